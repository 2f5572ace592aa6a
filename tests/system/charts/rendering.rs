//! Rendering: it gives the same always and with every version of the tools, what is committed, and what Kubernetes accepts.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::charts::objects::{at, committed, parse, title};
use crate::charts::render::{
    CHARTS, all, chart_folder, documents, kustomize_files, kustomize_folder, rendered,
};
use crate::charts::tools::{KUBERNETES, VERSIONS, folder, run};
use crate::workspace::root;

/// The files of a folder by name.
fn files(folder: &Path) -> BTreeMap<String, String> {
    let Ok(entries) = fs::read_dir(folder) else { return BTreeMap::new() };
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths
        .map(|path| {
            let name = path.file_name().and_then(|name| name.to_str()).expect("a name").to_owned();
            (name, fs::read_to_string(&path).expect("a file"))
        })
        .collect()
}

/// Helm 3 and Helm 4 give the same documents, except for empty lines at their ends.
#[test]
fn every_rendering_is_the_committed_one() {
    let Some(tools) = folder() else { return };
    for (chart, set) in all() {
        let first = rendered(&tools, VERSIONS[0], chart, set);
        assert!(
            first == rendered(&tools, VERSIONS[0], chart, set),
            "{chart} {set}: the second rendering differs"
        );
        let other: Vec<String> = documents(&rendered(&tools, VERSIONS[1], chart, set)).collect();
        assert!(documents(&first).eq(other), "{chart} {set}: Helm 3 and Helm 4 differ");
        let (folder, fresh) = (kustomize_folder(chart, set), kustomize_files(&first));
        if std::env::var_os("ISTHMUS_REGENERATE").is_some() {
            fs::create_dir_all(&folder).expect("a folder");
            files(&folder).keys().for_each(|name| fs::remove_file(folder.join(name)).expect("an old file"));
            fresh.iter().for_each(|(name, text)| fs::write(folder.join(name), text).expect("a file"));
        }
        let differ = "differs from the rendered chart; run ISTHMUS_REGENERATE=1 ./tests/run";
        assert!(files(&folder) == fresh, "{}: {differ}", folder.display());
    }
}

/// Sorted by kind and name, because kustomize has an order of its own.
fn sorted(mut objects: Vec<Value>) -> Vec<Value> {
    objects.sort_by_key(title);
    objects
}

#[test]
fn kustomize_gives_the_same_objects() {
    let Some(tools) = folder() else { return };
    for ((chart, set), version) in all().flat_map(|it| VERSIONS.map(|version| (it, version))) {
        let mut kubectl = Command::new(tools.join(version).join("kubectl"));
        let built = run(kubectl.arg("kustomize").arg(kustomize_folder(chart, set)));
        let built = parse(&built.unwrap_or_else(|error| panic!("{chart} {set} {version}: {error}")));
        assert_eq!(sorted(built), sorted(committed(chart, set)), "{chart} {set} {version}");
    }
}

#[test]
fn the_oldest_and_the_newest_kubernetes_accept_every_object() {
    let Some(tools) = folder() else { return };
    for chart in CHARTS {
        let oldest = format!("kubeVersion: \">={}.0-0\"\n", KUBERNETES[0]);
        let chart = fs::read_to_string(chart_folder(chart).join("Chart.yaml")).expect("a chart");
        assert!(chart.contains(&oldest), "{oldest}");
    }
    let paths: Vec<PathBuf> = all()
        .flat_map(|(chart, set)| {
            let folder = kustomize_folder(chart, set);
            files(&folder).into_keys().map(move |name| folder.join(name))
        })
        .filter(|path| path.file_name().is_some_and(|name| name != "kustomization.yaml"))
        .collect();
    let mut validate = Command::new(tools.join("bin/kubernetes-validate"));
    validate.args(["--strict", "--quiet"]);
    for version in KUBERNETES {
        validate.args(["--kubernetes-version", version]);
    }
    let said = run(validate.args(&paths)).unwrap_or_else(|error| panic!("{error}"));
    // The types of prometheus-operator are not part of Kubernetes; `checks/monitors.rs` knows them.
    let other: Vec<&str> = said.lines().filter(|line| !line.contains("for kind ServiceMonitor")).collect();
    assert!(other.is_empty(), "{other:#?}");
    // The validator works: it refuses a field that is not known.
    let folder = tempfile::tempdir().expect("a folder");
    let wrong = folder.path().join("wrong.yaml");
    fs::write(&wrong, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndatas: {}\n").expect("a file");
    let mut validate = Command::new(tools.join("bin/kubernetes-validate"));
    run(validate.arg("--strict").arg(&wrong)).expect_err("a field that is not known");
}

/// Functions of templates whose result is not decided by the values.
const NOT_BY_VALUES: [&str; 11] = [
    "bcrypt",
    "date",
    "derivePassword",
    "genCA",
    "genPrivateKey",
    "genSelfSignedCert",
    "genSignedCert",
    "getHostByName",
    "htpasswd",
    "lookup",
    "now",
];

/// A rendering depends on the values, and on nothing else.
#[test]
fn templates_use_no_random_numbers_no_clock_and_no_cluster() {
    let mut seen = 0;
    for chart in CHARTS.into_iter().chain(["isthmus-common"]) {
        for (name, text) in files(&root().join("deploy/charts").join(chart).join("templates")) {
            for code in text.split("{{").skip(1).filter_map(|code| code.split("}}").next()) {
                let is_comment = code.trim_start_matches(['-', ' ']).starts_with("/*");
                let mut words = code.split(|c: char| !c.is_alphanumeric()).filter(|_| !is_comment);
                seen += 1;
                let wrong = words.find(|word| {
                    word.starts_with("rand") || word.starts_with("uuid") || NOT_BY_VALUES.contains(word)
                });
                assert_eq!(wrong, None, "{chart}: {name}: {code}");
            }
        }
    }
    assert!(seen > 100, "{seen} pieces of code");
}

#[test]
fn every_object_has_the_conventional_labels() {
    for (chart, set) in all() {
        for object in committed(chart, set) {
            for label in ["name", "instance", "component", "part-of", "version"] {
                let found = at(&object, "metadata.labels").get(format!("app.kubernetes.io/{label}"));
                assert!(found.is_some_and(Value::is_string), "{chart} {set}: {}: {label}", title(&object));
            }
        }
    }
}
