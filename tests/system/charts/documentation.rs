//! The commands of docs/install-kubernetes.md run, as far as they need no cluster.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use tests::isthmus;

use crate::charts::objects::{committed, name, of_kind};
use crate::charts::render::CHARTS;
use crate::charts::tools::{VERSIONS, folder, run};
use crate::workspace::root;

/// The commands in the blocks that are marked as `sh`.
fn commands(page: &str) -> Vec<Vec<String>> {
    let blocks = page.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next());
    let lines = blocks.flat_map(str::lines);
    lines.map(|line| line.split_whitespace().map(str::to_owned).collect()).collect()
}

/// Runs a command of the page in a folder. What needs a cluster is done without one: objects are rendered and not applied.
fn try_command(tools: &Path, dir: &Path, words: &[String]) -> Result<String, String> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match &words[..] {
        ["isthmus", args @ ..] => run(Command::new(isthmus()).args(args).current_dir(dir)),
        ["helm", "upgrade", "--install", args @ ..] => {
            let args = args.iter().filter(|arg| **arg != "--reuse-values");
            let mut helm = Command::new(tools.join(VERSIONS[1]).join("helm"));
            run(helm.arg("template").args(args).current_dir(dir))
        }
        ["kubectl", "create", args @ ..] => {
            let mut kubectl = Command::new(tools.join(VERSIONS[1]).join("kubectl"));
            kubectl.arg("create").args(args).env("KUBECONFIG", "/nonexistent");
            if !args.contains(&"--dry-run=client") {
                kubectl.args(["--dry-run=client", "--output=yaml"]);
            }
            run(kubectl.current_dir(dir))
        }
        // The pod exists, and the program in it accepts the arguments.
        ["kubectl", "exec", pod, "--", "isthmus", args @ ..] => {
            let objects = committed(CHARTS[1], "usual");
            let wanted = pod.strip_prefix("statefulset/").ok_or("expected statefulset/NAME")?;
            if !of_kind(&objects, "StatefulSet").any(|it| name(it) == wanted) {
                return Err(format!("{wanted} does not exist"));
            }
            run(Command::new(isthmus()).args(args).arg("--help"))
        }
        _ => Err("it is not known how to run this".to_owned()),
    }
}

#[test]
fn the_commands_of_the_page_run() {
    let Some(tools) = folder() else { return };
    let page = fs::read_to_string(root().join("docs/install-kubernetes.md")).expect("the page");
    let dir = tempfile::tempdir().expect("a folder");
    for (file, text) in [
        ("passphrase", "correct horse battery\n"),
        ("token", "isthmus_join_x\n"),
        ("bucket.yaml", "type: FILESYSTEM\nconfig: {directory: /blocks}\n"),
    ] {
        fs::write(dir.path().join(file), text).expect("a file");
    }
    symlink(root().join("deploy"), dir.path().join("deploy")).expect("a link");
    let commands = commands(&page);
    assert!(commands.len() >= 10, "{commands:?}");
    for words in &commands {
        try_command(&tools, dir.path(), words).unwrap_or_else(|error| panic!("{}: {error}", words.join(" ")));
    }
}

/// Nothing of the cluster and of the image that the base names is left.
#[test]
fn the_kustomization_on_the_page_replaces_what_the_base_names() {
    let Some(tools) = folder() else { return };
    let page = fs::read_to_string(root().join("docs/install-kubernetes.md")).expect("the page");
    let example =
        page.split("```yaml\n# kustomization.yaml\n").nth(1).and_then(|rest| rest.split("```").next());
    let dir = tempfile::tempdir().expect("a folder");
    symlink(root().join("deploy"), dir.path().join("deploy")).expect("a link");
    for (file, text) in [
        ("kustomization.yaml", example.expect("an example")),
        ("gateway.yaml", "identity: {cluster: mine}\n"),
        ("prometheus.yml", "global: {external_labels: {cluster: mine}}\n"),
    ] {
        fs::write(dir.path().join(file), text).expect("a file");
    }
    for version in VERSIONS {
        let mut kubectl = Command::new(tools.join(version).join("kubectl"));
        let text = run(kubectl.arg("kustomize").arg(dir.path())).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(text.matches("cluster: mine").count(), 2, "{version}: {text}");
        for of_the_base in ["eu-1", "image: isthmus:"] {
            assert!(!text.contains(of_the_base), "{version}: {of_the_base}: {text}");
        }
    }
}

/// The example of a value that is refused is real.
#[test]
fn the_refusal_on_the_page_is_what_helm_says() {
    let Some(tools) = folder() else { return };
    let page = fs::read_to_string(root().join("docs/install-kubernetes.md")).expect("the page");
    let example = page.split("```console\n$ helm ").nth(1).and_then(|rest| rest.split("```").next());
    let (command, expected) =
        example.and_then(|text| text.split_once('\n')).expect("a command and its output");
    let mut helm = Command::new(tools.join(VERSIONS[1]).join("helm"));
    let said = run(helm.args(command.split_whitespace()).current_dir(root())).expect_err("a refusal");
    let said: Vec<&str> =
        said.lines().filter(|line| !line.starts_with("level=") && !line.is_empty()).collect();
    assert_eq!(said, expected.lines().collect::<Vec<_>>());
}
