//! Checks invariants of the source tree: layers, no I/O in the heart, lints, the lock file, forbidden words.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// The layers of the architecture. A crate may depend only on crates with a lower number, and not on its
/// neighbours.
const LAYERS: &[(u8, &[&str])] = &[
    (7, &["isthmus", "isthmus-pki", "tests"]),
    (6, &["sidecar", "scraper", "ruler", "gateway", "tools"]),
    (5, &["rules", "shipper", "localstore", "store", "querier", "compactor", "pki"]),
    (4, &["promql", "storeapi", "bucket", "remotewrite", "alertmanager"]),
    (3, &["series", "head", "httpclient"]),
    (2, &["tsdb", "exposition", "promapi", "mesh", "runtime"]),
    (1, &["model", "identity", "proto", "budget", "compression", "tls", "terminal", "batching"]),
];

/// The crates without I/O: they take data and give answers.
const HEART: &[&str] = &["budget", "model", "tsdb", "series", "promql"];

/// Crates that do no I/O themselves, although they use types of crates that do.
const MACHINES: &[&str] = &["rules"];

/// Crates for async code, sockets, TLS or clocks. The heart must not depend on any of them, directly or
/// indirectly.
const IO: &[&str] = &[
    "async-trait",
    "axum",
    "chrono",
    "futures",
    "futures-util",
    "h2",
    "hyper",
    "mio",
    "quinn",
    "reqwest",
    "rustls",
    "socket2",
    "time",
    "tokio",
    "tokio-util",
    "tonic",
    "tower",
];

/// Calls that clippy rejects in the crates of the heart. Each of these crates has a `clippy.toml` with
/// exactly this list.
const REFUSED_CALLS: &[&str] = &[
    "std::time::Instant::now",
    "std::time::SystemTime::now",
    "std::thread::sleep",
    "std::net::TcpStream::connect",
    "std::net::TcpListener::bind",
    "std::net::UdpSocket::bind",
    "std::os::unix::net::UnixStream::connect",
    "std::process::Command::new",
];

/// The root of the workspace.
pub(crate) fn root() -> PathBuf {
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

/// The packages of the workspace.
fn members_of(metadata: &Value) -> impl Iterator<Item = &Value> {
    metadata["packages"].as_array().expect("packages").iter().filter(|package| package["source"].is_null())
}

/// The folders of the workspace's crates, relative to its root.
pub(crate) fn members() -> Vec<String> {
    let metadata = metadata();
    let folder = |package: &Value| {
        let manifest = Path::new(package["manifest_path"].as_str().expect("manifest_path"));
        let folder = manifest.parent().expect("a manifest is in a folder");
        folder.strip_prefix(root()).expect("members are below the root").to_str().expect("UTF-8").to_owned()
    };
    members_of(&metadata).map(folder).collect()
}

/// Normal and build dependencies of each package of the workspace. Dependencies of tests are not restricted.
fn arrows(metadata: &Value) -> BTreeMap<String, Vec<String>> {
    members_of(metadata)
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
        let upper =
            layer(from).unwrap_or_else(|| panic!("crate {from} is not in the table of layers; add it"));
        for to in dependencies {
            let Some(lower) = layer(to).filter(|_| arrows.contains_key(to)) else { continue };
            assert!(lower < upper, "{from} (layer {upper}) must not depend on {to} (layer {lower})");
        }
    }
}

#[test]
fn the_heart_has_no_io() {
    let metadata = metadata();
    let nodes = metadata["resolve"]["nodes"].as_array().expect("nodes");
    let id = |name: &str| {
        let package = members_of(&metadata).find(|package| package["name"] == name);
        package.unwrap_or_else(|| panic!("no crate {name}"))["id"].as_str().expect("id")
    };
    for name in HEART {
        let mut reached = BTreeMap::from([(id(name), vec![(*name).to_owned()])]);
        let mut left = vec![id(name)];
        while let Some(at) = left.pop() {
            let node = nodes.iter().find(|node| node["id"] == at).expect("a node for each package");
            for dependency in node["deps"].as_array().expect("deps") {
                let kinds = dependency["dep_kinds"].as_array().expect("dep_kinds");
                let to = dependency["pkg"].as_str().expect("pkg");
                // Isthmus is not built for WebAssembly, where some crates get clocks from the browser.
                let is_used = |kind: &Value| {
                    kind["kind"].is_null() && kind["target"].as_str().is_none_or(|t| !t.contains("wasm"))
                };
                if !kinds.iter().any(is_used) || reached.contains_key(to) {
                    continue;
                }
                let crate_name = dependency["name"].as_str().expect("name").replace('_', "-");
                let way: Vec<String> = reached[at].iter().cloned().chain([crate_name.clone()]).collect();
                assert!(
                    !IO.contains(&crate_name.as_str()),
                    "the heart must not use {crate_name}: {}",
                    way.join(" -> ")
                );
                reached.insert(to, way);
                left.push(to);
            }
        }
    }
}

#[test]
fn clippy_refuses_clocks_and_sockets_in_the_heart() {
    for name in HEART.iter().chain(MACHINES) {
        let path = root().join("libs").join(name).join("clippy.toml");
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let listed: Vec<&str> =
            text.split("path = \"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
        assert_eq!(listed, REFUSED_CALLS, "{}", path.display());
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
            assert!(
                text.contains("[lints]\nworkspace = true"),
                "{manifest} must use the lints of the workspace"
            );
        }
    }
}
