//! The command line as a user types it.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

fn isthmus(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_isthmus")).args(args).output().expect("isthmus runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn help_lists_every_command() {
    let output = isthmus(&["--help"]);
    assert!(output.status.success());
    let help = text(&output.stdout);
    for command in ["sidecar", "query", "gateway", "pki", "tools", "quickstart", "completions", "man"] {
        assert!(help.contains(&format!("\n  {command} ")), "no {command} in:\n{help}");
    }
}

#[test]
fn an_unknown_flag_is_named_and_ends_with_code_2() {
    let output = isthmus(&["query", "--no-such-flag"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("--no-such-flag"), "{}", text(&output.stderr));
}

#[test]
fn the_version_names_program_and_number() {
    let output = isthmus(&["--version"]);
    assert!(
        text(&output.stdout).starts_with(concat!("isthmus version ", env!("CARGO_PKG_VERSION"))),
        "{}",
        text(&output.stdout)
    );
}

#[test]
fn the_version_has_the_commit_of_a_checkout() {
    let head = Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).output();
    let Some(head) = head.ok().filter(|head| head.status.success()) else {
        println!("skipped: this is not a git checkout");
        return;
    };
    let (head, version) = (text(&head.stdout), text(&isthmus(&["--version"]).stdout));
    assert!(version.contains(&format!("revision: {}", head.trim())), "{version}");
}

#[test]
fn the_title_of_a_man_page_is_one_line() {
    let dir = tempfile::tempdir().expect("a directory");
    assert!(isthmus(&["man", &dir.path().display().to_string()]).status.success());
    for page in std::fs::read_dir(dir.path()).expect("pages").flatten() {
        let page = std::fs::read_to_string(page.path()).expect("a page");
        let title = page.lines().position(|line| line.starts_with(".TH ")).expect("a title");
        assert!(page.lines().nth(title + 1).is_some_and(|line| line.starts_with('.')), "{page:.300}");
    }
}

/// 40 consecutive ports that are free now.
fn free_ports() -> u16 {
    let is_free = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
    (22_000..32_000).step_by(40).find(|base| (*base..base + 40).all(is_free)).expect("free ports")
}

/// A quickstart that runs until it is ended.
struct Quickstart(Child);

impl Quickstart {
    fn start(dir: &Path, base: u16) -> Self {
        let process = Command::new(env!("CARGO_BIN_EXE_isthmus"))
            .args(["quickstart", "--dir", &dir.display().to_string(), "--base-port", &base.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Self(process.expect("isthmus runs"))
    }

    /// The processes that it has started: command by process id. See proc_pid_stat(5).
    fn children(&self) -> BTreeMap<u32, String> {
        let own = self.0.id().to_string();
        let processes = std::fs::read_dir("/proc").expect("processes").flatten();
        let stats = processes.filter_map(|process| std::fs::read_to_string(process.path().join("stat")).ok());
        let child = |stat: String| {
            let (id, rest) = stat.split_once(" (")?;
            let (name, rest) = rest.rsplit_once(") ")?;
            let parent = rest.split(' ').nth(1)?;
            (parent == own).then(|| Some((id.parse().ok()?, name.to_owned())))?
        };
        stats.filter_map(child).collect()
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args(["-s", name, &self.0.id().to_string()]).status();
        assert!(sent.expect("kill runs").success());
    }
}

impl Drop for Quickstart {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn wait_until(what: &str, mut probe: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !probe() {
        assert!(begun.elapsed() < Duration::from_secs(60), "waited 60 s for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn all_processes_of_quickstart_end_with_it() {
    if Command::new("prometheus").arg("--version").output().is_err() {
        println!("skipped: no prometheus on the PATH");
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    for signal in ["HUP", "KILL"] {
        let mut quickstart = Quickstart::start(dir.path(), free_ports());
        // The gateway, the querier, and a Prometheus of the first cluster.
        wait_until("processes", || quickstart.children().values().any(|name| name == "prometheus"));
        let children = quickstart.children();
        quickstart.signal(signal);
        let status = quickstart.0.wait().expect("it ends");
        assert_eq!(status.code(), (signal == "HUP").then_some(0), "{status}");
        let runs = |id: &u32| {
            let state = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
            state.rsplit_once(") ").is_some_and(|(_, state)| !state.starts_with('Z'))
        };
        wait_until(&format!("the end of {children:?}"), || !children.keys().any(runs));
    }
}
