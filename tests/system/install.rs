//! The commands of `docs/install-machines.md` are run in an empty folder, and what they leave is what the units need.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tests::isthmus;

/// Before a block of commands that is run.
const MARK: &str = "<!-- run -->\n```sh\n";

/// All marked blocks of a page as one script.
fn script(page: &str) -> String {
    let blocks = page.split(MARK).skip(1).map(|rest| rest.split("```").next().expect("a block"));
    blocks.collect::<Vec<_>>().join("\n")
}

/// The words that systemd makes of the variable in a file of the environment.
fn words(file: &Path) -> Vec<String> {
    let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let (_, value) = text.trim().split_once('=').expect("a variable");
    let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).expect("quotes");
    value.replace("\\\"", "\"").split_whitespace().map(str::to_owned).collect()
}

fn setting<'a>(unit: &'a str, name: &str) -> &'a str {
    let mut lines = unit.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    lines.next_back().unwrap_or_else(|| panic!("{name} is missing"))
}

/// The folder of configuration files: that of the machine of the observability side, or that of the cluster.
fn configuration(root: &Path, role: &str) -> PathBuf {
    match role {
        "sidecar" => root.join("cluster/etc/isthmus"),
        _ => root.join("etc/isthmus"),
    }
}

#[test]
fn the_documented_installation_leaves_what_the_units_need() {
    let repository = crate::workspace::root();
    let page = fs::read_to_string(repository.join("docs/install-machines.md")).expect("the page");
    let dir = tempfile::tempdir().expect("a folder");
    let root = dir.path().join("root");
    let program = isthmus();
    std::os::unix::fs::symlink(&program, dir.path().join("isthmus")).expect("a link");
    std::os::unix::fs::symlink(repository.join("deploy"), dir.path().join("deploy")).expect("a link");
    let path = format!("{}:{}", dir.path().display(), std::env::var("PATH").unwrap_or_default());
    let output = Command::new("sh")
        .args(["-euc", &script(&page)])
        .current_dir(dir.path())
        .envs([("ROOT", root.as_os_str()), ("PATH", path.as_ref())])
        .output()
        .expect("a shell runs");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{said}");

    let mut roles = Vec::new();
    for unit in fs::read_dir(root.join("etc/systemd/system")).expect("the units") {
        let unit = unit.expect("an entry").path();
        if unit.is_dir() {
            continue;
        }
        let text = fs::read_to_string(&unit).expect("a unit");
        let mut command = setting(&text, "ExecStart").split_whitespace();
        let installed = root.join(command.next().expect("a program").trim_start_matches('/'));
        assert!(installed.is_file(), "{}", installed.display());
        let role = command.next().expect("a role").to_owned();
        let variable = format!("$ISTHMUS_{}_ARGS", role.to_uppercase());
        let folder = configuration(&root, &role);
        if !text.contains(&variable) || !folder.join(format!("{role}.env")).exists() {
            continue;
        }
        // The program accepts the flags of the unit and those of the file together.
        let flags = command.filter(|word| *word != variable).map(str::to_owned);
        let flags: Vec<String> = flags.chain(words(&folder.join(format!("{role}.env")))).collect();
        for flag in &flags {
            if let Some((_, file)) = flag.split_once("=/etc/isthmus/").filter(|(_, file)| !file.contains('*'))
            {
                assert!(folder.join(file).is_file(), "{}: {file}", unit.display());
            }
        }
        let output = Command::new(&program).arg(&role).args(&flags).arg("--help").output().expect("it runs");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{role} {flags:?}: {error}");
        roles.push(role);
    }
    roles.sort();
    assert_eq!(roles, ["compact", "query", "rule", "sidecar", "store"]);
    for folder in ["etc/isthmus", "cluster/etc/isthmus"] {
        assert!(root.join(folder).join("gateway.yaml").is_file(), "{folder}");
    }
    assert!(root.join("cluster/etc/isthmus/token").is_file());
}
