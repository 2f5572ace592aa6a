//! The objects of `pki cluster bundle --format kubernetes`: those that the chart renders with the values of `--format helm`.

use std::fs;
use std::path::Path;
use std::process::Command;

use tests::{Mesh, isthmus};

use crate::charts::render::{documents, helm};
use crate::charts::tools;
use crate::workspace::root;

/// What the program has inside, rendered with these values.
const EMBEDDED: &str = "pki/src/cluster_bundle/kubernetes.yaml";
const PLACEHOLDERS: [&str; 3] = [
    "cluster=placeholder-cluster",
    "environment=placeholder-environment",
    "trustDomain=placeholder-domain.example",
];

/// The objects without what Helm says about itself.
fn objects(rendered: &str) -> String {
    let managed = |line: &&str| {
        let line = line.trim_start();
        !["app.kubernetes.io/managed-by: ", "helm.sh/chart: ", "# Source: "]
            .iter()
            .any(|mark| line.starts_with(mark))
    };
    let documents = documents(rendered);
    let object = |document: String| {
        format!("---\n{}\n", document.lines().filter(managed).collect::<Vec<_>>().join("\n"))
    };
    documents.map(object).collect()
}

/// The objects without the checksums of configurations that have the name of the cluster.
fn without_checksums(objects: &str) -> String {
    let lines = objects.lines().filter(|line| !line.trim_start().starts_with("checksum/"));
    lines.map(|line| format!("{line}\n")).collect()
}

#[test]
fn the_objects_of_a_cluster_bundle_are_those_of_the_chart() {
    let Some(tools) = tools::folder() else { return };
    let set: Vec<&str> = PLACEHOLDERS.iter().flat_map(|value| ["--set-string", value]).collect();
    let release = |args: &[&str]| helm(&tools, "v37", "isthmus-client", args).expect("the chart is rendered");
    let fresh = objects(&release(&set));
    let file = root().join(EMBEDDED);
    if std::env::var_os("ISTHMUS_REGENERATE").is_some() {
        fs::write(&file, &fresh).expect("a file");
    }
    let embedded = fs::read_to_string(&file).expect("the objects");
    assert!(embedded == fresh, "{EMBEDDED} is outdated; run ISTHMUS_REGENERATE=1 ./tests/run");

    println!("a bundle in both formats: the values give the same objects");
    let dir = tempfile::tempdir().expect("a folder");
    let mesh = Mesh::start(&dir.path().join("mesh"), "auto", &[]);
    let (values, objects_file) = (dir.path().join("helm"), dir.path().join("eu-1.yaml"));
    write_bundle(&mesh, "helm", &values);
    write_bundle(&mesh, "kubernetes", &objects_file);
    let values = values.join("values.yaml").display().to_string();
    let of_chart = without_checksums(&objects(&release(&["--values", &values])));
    let of_program = fs::read_to_string(&objects_file).expect("a bundle");
    let of_program: Vec<String> = documents(&of_program).collect();
    let (secret, of_program) = of_program.split_first().expect("objects");
    assert!(secret.contains("kind: Secret") && secret.contains("name: isthmus-join"), "{secret}");
    let of_program: String = of_program.iter().map(|object| format!("---\n{object}")).collect();
    assert_eq!(without_checksums(&of_program), of_chart);
}

fn write_bundle(mesh: &Mesh, format: &str, out: &Path) {
    let (state, address) = (mesh.pki_state().display().to_string(), mesh.address.to_string());
    let output = Command::new(isthmus())
        .args(["pki", "cluster", "bundle", "--cluster=eu-1", "--environment=production", "--state", &state])
        .args(["--address", &address, "--format", format, "--out", &out.display().to_string()])
        .output()
        .expect("isthmus runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
