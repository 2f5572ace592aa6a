//! The rules in `deploy/rules`: they are valid, tested and explained.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tests::isthmus;

fn root() -> PathBuf {
    crate::workspace::root()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The names of all alerts.
pub(crate) fn alerts() -> BTreeSet<String> {
    let rules = read("deploy/rules/isthmus.yaml");
    let names = rules.lines().filter_map(|line| line.trim_start().strip_prefix("- alert: "));
    names.map(str::to_owned).collect()
}

/// Runs a program in a folder; `None` if it is not installed.
fn run(folder: &Path, program: &Path, args: &[&str]) -> Option<(bool, String)> {
    let output = Command::new(program).args(args).current_dir(folder).output().ok()?;
    let text = [output.stdout, output.stderr].concat();
    Some((output.status.success(), String::from_utf8_lossy(&text).into_owned()))
}

#[test]
fn shipped_rules_and_their_tests_pass_here_and_in_promtool() {
    let folder = root().join("deploy/rules");
    for args in [["check", "isthmus.yaml"], ["test", "isthmus.test.yaml"]] {
        let (passed, text) =
            run(&folder, &isthmus(), &[&["tools", "rules"], &args[..]].concat()).expect("a run");
        assert!(passed, "{args:?}: {text}");
    }
    // Prometheus does not know the strategy of Thanos.
    let folder = tempfile::tempdir().expect("a temporary folder");
    let copy = |name: &str, text: String| fs::write(folder.path().join(name), text).expect("a file");
    copy(
        "isthmus.yaml",
        read("deploy/rules/isthmus.yaml").replace("    partial_response_strategy: warn\n", ""),
    );
    copy("isthmus.test.yaml", read("deploy/rules/isthmus.test.yaml"));
    for args in [["check", "rules", "isthmus.yaml"], ["test", "rules", "isthmus.test.yaml"]] {
        match run(folder.path(), Path::new("promtool"), &args) {
            Some((passed, text)) => assert!(passed, "promtool {args:?}: {text}"),
            None => println!("skipped: promtool is not installed"),
        }
    }
}

#[test]
fn every_alert_has_a_unit_test_and_a_runbook_to_which_it_links() {
    let (rules, tests, page) =
        (read("deploy/rules/isthmus.yaml"), read("deploy/rules/isthmus.test.yaml"), read("docs/runbooks.md"));
    let headings: BTreeSet<String> =
        page.lines().filter_map(|line| line.strip_prefix("### ")).map(str::to_owned).collect();
    assert_eq!(headings, alerts(), "the headings of docs/runbooks.md are not the names of the alerts");
    for alert in alerts() {
        let link = format!("runbook: docs/runbooks.md#{}\n", alert.to_lowercase());
        assert!(rules.contains(&link), "{alert} has no annotation {link}");
        let is_tested = tests.contains(&format!("alertname: {alert}\n"))
            || tests.contains(&format!("{{labels: '{{alertname=\"{alert}\""));
        assert!(is_tested, "no unit test expects {alert}");
    }
}
