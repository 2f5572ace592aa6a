//! Invariants of the source tree: layers, the lock file, the words that may not stand in it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// The layers of the architecture. An arrow may go only to a lower number; neighbours know nothing of each other.
const LAYERS: &[(u8, &[&str])] = &[
    (7, &["isthmus", "tests"]),
    (6, &["gateway"]),
    (5, &["sidecar", "store", "querier", "compactor", "ruler", "pki", "tools"]),
    (4, &["promql", "storeapi", "bucket"]),
    (3, &["series"]),
    (2, &["tsdb", "promapi", "mesh", "runtime"]),
    (1, &["model", "identity", "proto", "budget"]),
];

/// Crates that stand for a runtime, sockets, TLS or clocks: none of them may be under the heart.
const HEART: &[&str] = &["model", "budget", "tsdb", "series", "promql"];
const IO: &[&str] = &["tokio", "hyper", "tonic", "quinn", "rustls", "mio", "socket2", "axum", "time"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace is above this crate").to_owned()
}

fn metadata() -> Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--offline"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("cargo prints JSON")
}

/// Normal and build dependencies of each package of the workspace; what only tests use may point anywhere.
fn arrows(metadata: &Value) -> BTreeMap<String, Vec<String>> {
    let packages = metadata["packages"].as_array().expect("packages");
    packages
        .iter()
        .filter(|package| package["source"].is_null())
        .map(|package| {
            let dependencies = package["dependencies"].as_array().expect("dependencies");
            let names = dependencies
                .iter()
                .filter(|d| d["kind"].as_str() != Some("dev"))
                .map(|d| d["name"].as_str().expect("name").to_owned());
            (package["name"].as_str().expect("name").to_owned(), names.collect())
        })
        .collect()
}

fn layer(name: &str) -> Option<u8> {
    LAYERS.iter().find(|(_, names)| names.contains(&name)).map(|(layer, _)| *layer)
}

#[test]
fn arrows_between_crates_go_only_down() {
    let arrows = arrows(&metadata());
    for (from, dependencies) in &arrows {
        let upper = layer(from).unwrap_or_else(|| panic!("crate {from} has no place in the table of layers"));
        for to in dependencies {
            let Some(lower) = layer(to).filter(|_| arrows.contains_key(to)) else { continue };
            assert!(lower < upper, "{from} (layer {upper}) must not depend on {to} (layer {lower})");
        }
    }
}

#[test]
fn the_heart_has_no_io() {
    let arrows = arrows(&metadata());
    for name in HEART {
        for dependency in &arrows[*name] {
            assert!(
                !IO.contains(&dependency.as_str()),
                "{name} is of the heart and must not use {dependency}"
            );
        }
    }
}

#[test]
fn the_program_is_built_without_test_helpers() {
    for package in metadata()["packages"].as_array().expect("packages") {
        // The crate `tests` is never part of the program.
        if !package["source"].is_null() || package["name"] == "tests" {
            continue;
        }
        for dependency in package["dependencies"].as_array().expect("dependencies") {
            let features = dependency["features"].as_array().expect("features");
            assert!(
                dependency["kind"] == "dev" || !features.iter().any(|feature| feature == "test-util"),
                "{} enables test-util of {} outside its own tests",
                package["name"],
                dependency["name"]
            );
        }
    }
}

#[test]
fn the_lock_file_names_no_local_mirror() {
    let lock = fs::read_to_string(root().join("Cargo.lock")).expect("Cargo.lock");
    for line in lock.lines().filter(|l| l.starts_with("source = ")) {
        assert_eq!(line, r#"source = "registry+https://github.com/rust-lang/crates.io-index""#);
    }
}

#[test]
fn unsafe_stays_denied_in_every_crate() {
    for package in metadata()["packages"].as_array().expect("packages") {
        if package["source"].is_null() {
            let manifest = package["manifest_path"].as_str().expect("manifest_path");
            let text = fs::read_to_string(manifest).expect("a manifest");
            assert!(text.contains("[lints]\nworkspace = true"), "{manifest} must take the workspace's lints");
        }
    }
}
