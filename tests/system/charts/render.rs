//! Renders a chart as `helm template` does, and divides the text into files for kustomize.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::charts::tools::run;
use crate::workspace::root;

pub(super) const CHARTS: [&str; 2] = ["isthmus-client", "isthmus-observability"];
pub(super) const SETS: [&str; 3] = ["small", "usual", "large"];

/// All combinations of a chart and a set of values.
pub(super) fn all() -> impl Iterator<Item = (&'static str, &'static str)> {
    CHARTS.into_iter().flat_map(|chart| SETS.into_iter().map(move |set| (chart, set)))
}

/// The folder of a chart.
pub(super) fn chart_folder(chart: &str) -> PathBuf {
    root().join("deploy/charts").join(chart)
}

/// The folder of the objects that are rendered from a chart with a set of values.
pub(super) fn kustomize_folder(chart: &str, set: &str) -> PathBuf {
    root().join("deploy/kustomize").join(chart).join(set)
}

/// Runs `helm template` with these arguments after the name of the chart.
pub(super) fn helm(tools: &Path, version: &str, chart: &str, args: &[&str]) -> Result<String, String> {
    let mut command = Command::new(tools.join(version).join("helm"));
    command.args(["template", chart]).arg(chart_folder(chart)).args(args);
    // Nothing of the user's own settings.
    run(command.env("HELM_CONFIG_HOME", "/nonexistent").env("HELM_CACHE_HOME", "/nonexistent"))
}

/// Renders a chart with a set of values.
pub(super) fn rendered(tools: &Path, version: &str, chart: &str, set: &str) -> String {
    let values = chart_folder(chart).join("ci").join(format!("{set}.yaml"));
    let values = values.display().to_string();
    helm(tools, version, chart, &["--values", &values])
        .unwrap_or_else(|error| panic!("{chart} {set} {version}: {error}"))
}

/// The documents of a text, each without its empty last lines. Helm 4 leaves such lines where Helm 3 removes them.
pub(super) fn documents(text: &str) -> impl Iterator<Item = String> {
    let text = format!("\n{text}");
    let documents: Vec<String> = text.split("\n---\n").map(|part| format!("{}\n", part.trim())).collect();
    let says_something = |line: &str| !line.is_empty() && !line.trim_start().starts_with('#');
    documents.into_iter().filter(move |document| document.lines().any(says_something))
}

/// The files of `deploy/kustomize`: one for each template, and the list of them. Labels that say that Helm manages an object are left
/// out.
pub(super) fn kustomize_files(rendered: &str) -> BTreeMap<String, String> {
    let mut files: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for document in documents(rendered) {
        let (source, object) = document.split_once('\n').expect("an object after its source");
        let name = source.rsplit('/').next().expect("the last part").to_owned();
        let managed = |line: &&str| {
            let line = line.trim_start();
            !line.starts_with("app.kubernetes.io/managed-by: ") && !line.starts_with("helm.sh/chart: ")
        };
        let object: Vec<&str> = object.lines().filter(managed).collect();
        files.entry(name).or_default().push(format!("{}\n", object.join("\n")));
    }
    let resources: String = files.keys().map(|name| format!("  - {name}\n")).collect();
    let list =
        format!("apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources:\n{resources}");
    let mut files: BTreeMap<String, String> =
        files.into_iter().map(|(name, objects)| (name, objects.join("---\n"))).collect();
    files.insert("kustomization.yaml".to_owned(), list);
    files
}
