//! The objects of `pki cluster bundle --format kubernetes`: those that the chart renders with the values of `--format helm`.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tests::{Mesh, isthmus};

use crate::charts::objects::{list, name, parse, title};
use crate::charts::render::{documents, helm};
use crate::charts::tools;
use crate::workspace::root;

/// What the program has inside for one gateway and for several, rendered with these values and the placeholders.
const EMBEDDED: [(&str, &[&str]); 2] = [
    ("pki/src/cluster_bundle/kubernetes.yaml", &[]),
    ("pki/src/cluster_bundle/kubernetes-gateways.yaml", &["--set", "gateway.replicas=9999"]),
];
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
    for (file, more) in EMBEDDED {
        let fresh = objects(&release(&[&set[..], more].concat()));
        if std::env::var_os("ISTHMUS_REGENERATE").is_some() {
            fs::write(root().join(file), &fresh).expect("a file");
        }
        let embedded = fs::read_to_string(root().join(file)).expect("the objects");
        assert!(embedded == fresh, "{file} is outdated; run ISTHMUS_REGENERATE=1 ./tests/run");
    }

    println!("a bundle in both formats: the values give the same objects");
    let dir = tempfile::tempdir().expect("a folder");
    let mesh = Mesh::start(&dir.path().join("mesh"), "auto", &[]);
    for gateways in ["1", "3"] {
        let file = |name: &str| dir.path().join(format!("{name}-{gateways}"));
        let (values, objects_file) = (file("helm"), file("kubernetes"));
        write_bundle(&mesh, "helm", gateways, &values);
        write_bundle(&mesh, "kubernetes", gateways, &objects_file);
        let values = values.join("values.yaml").display().to_string();
        let of_chart = without_checksums(&objects(&release(&["--values", &values])));
        let text = fs::read_to_string(&objects_file).expect("a bundle");
        // Without the lines for people, and the last one.
        let lines = text.lines().filter(|line| !line.starts_with('#')).map(|line| format!("{line}\n"));
        let of_program: Vec<String> = documents(&lines.collect::<String>()).collect();
        let (secret, of_program) = of_program.split_first().expect("objects");
        assert!(secret.contains("kind: Secret") && secret.contains("name: isthmus-join"), "{secret}");
        let of_program: String = of_program.iter().map(|object| format!("---\n{object}")).collect();
        assert_eq!(without_checksums(&of_program), of_chart, "{gateways}");
    }
}

/// `kubectl delete --filename` leaves the claims of StatefulSets, which have the data. The page for their owners names the labels.
#[test]
fn all_that_a_cluster_leaves_behind_has_the_labels_of_the_page() {
    let page = fs::read_to_string(root().join("docs/cluster-owner.md")).expect("the page");
    let command = "kubectl delete persistentvolumeclaims,secrets --namespace NAMESPACE --selector app.kubernetes.io/instance=isthmus-client";
    assert!(page.contains(command), "{command}");
    let labels_of = |metadata: &Value, title: &str| {
        assert_eq!(metadata["labels"]["app.kubernetes.io/instance"], "isthmus-client", "{title}");
    };
    for (file, _) in EMBEDDED {
        let text = fs::read_to_string(root().join(file)).expect("the objects");
        let mut claims = Vec::new();
        for object in parse(&text) {
            labels_of(&object["metadata"], &title(&object));
            for claim in list(&object, "spec.volumeClaimTemplates") {
                labels_of(&claim["metadata"], &title(&object));
                claims.push(format!("{}-{}", text_at(claim), name(&object)));
            }
        }
        claims.sort();
        assert_eq!(claims, ["data-isthmus-client-gateway", "data-isthmus-client-scraper"], "{file}");
        assert!(claims.iter().all(|claim| page.contains(&format!("{claim}-0"))), "{claims:?}");
    }
    let dir = tempfile::tempdir().expect("a folder");
    let mesh = Mesh::start(&dir.path().join("mesh"), "auto", &[]);
    let file = dir.path().join("bundle");
    write_bundle(&mesh, "kubernetes", "1", &file);
    let objects = parse(&fs::read_to_string(&file).expect("a bundle"));
    objects.iter().for_each(|object| labels_of(&object["metadata"], &title(object)));
    assert!(objects.iter().any(|object| object["kind"] == "Secret"));
}

fn text_at(claim: &Value) -> &str {
    claim["metadata"]["name"].as_str().unwrap_or_default()
}

fn write_bundle(mesh: &Mesh, format: &str, gateways: &str, out: &Path) {
    let (state, address) = (mesh.pki_state().display().to_string(), mesh.address.to_string());
    let output = Command::new(isthmus())
        .args(["pki", "cluster", "bundle", "--cluster=eu-1", "--environment=production", "--state", &state])
        .args(["--address", &address, "--format", format, "--gateways", gateways])
        .args(["--out", &out.display().to_string()])
        .output()
        .expect("isthmus runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
