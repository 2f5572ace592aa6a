//! The command line as a user types it.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, PoisonError};
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
    for command in
        ["sidecar", "store", "query", "gateway", "pki", "tools", "quickstart", "completions", "man"]
    {
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

/// 40 consecutive ports that are free now. Two runs of the tests at the same time begin to search at different ports.
fn free_ports() -> u16 {
    let is_free = |port| {
        let at = (Ipv4Addr::LOCALHOST, port);
        TcpListener::bind(at).is_ok() && UdpSocket::bind(at).is_ok()
    };
    let first = std::process::id() % 250;
    let bases = (0..250).filter_map(|at| u16::try_from(22_000 + (first + at) % 250 * 40).ok());
    bases.into_iter().find(|base| (*base..base + 40).all(is_free)).expect("free ports")
}

/// Locked by each test that starts a quickstart: two at the same time would find the same free ports.
static PORTS: Mutex<()> = Mutex::new(());

/// A quickstart that runs until it is ended.
struct Quickstart(Child);

impl Quickstart {
    fn start(dir: &Path, base: u16, errors: Stdio) -> Self {
        let process = Command::new(env!("CARGO_BIN_EXE_isthmus"))
            .args(["quickstart", "--dir", &dir.display().to_string(), "--base-port", &base.to_string()])
            .stdout(Stdio::null())
            .stderr(errors)
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
    let _ports = PORTS.lock().unwrap_or_else(PoisonError::into_inner);
    let dir = tempfile::tempdir().expect("a directory");
    for signal in ["HUP", "KILL"] {
        let mut quickstart = Quickstart::start(dir.path(), free_ports(), Stdio::inherit());
        // The gateway, the querier, and a Prometheus of the first cluster.
        wait_until("processes", || {
            let ended = quickstart.0.try_wait().expect("a status");
            assert!(ended.is_none(), "quickstart has ended: {ended:?}");
            quickstart.children().values().any(|name| name == "prometheus")
        });
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

#[test]
fn a_process_of_quickstart_that_ends_is_named_with_its_log() {
    if Command::new("prometheus").arg("--version").output().is_err() {
        println!("skipped: no prometheus on the PATH");
        return;
    }
    let _ports = PORTS.lock().unwrap_or_else(PoisonError::into_inner);
    let dir = tempfile::tempdir().expect("a directory");
    let (base, errors) = (free_ports(), dir.path().join("errors"));
    let file = std::fs::File::create(&errors).expect("a file");
    let mut quickstart = Quickstart::start(&dir.path().join("quickstart"), base, Stdio::from(file));
    wait_until("a Prometheus", || {
        let ended = quickstart.0.try_wait().expect("a status");
        assert!(ended.is_none(), "quickstart has ended: {ended:?}");
        quickstart.children().values().any(|name| name == "prometheus")
    });
    let children = quickstart.children();
    let (id, _) = children.iter().find(|(_, name)| *name == "prometheus").expect("a Prometheus");
    assert!(
        Command::new("kill").args(["-s", "KILL", &id.to_string()]).status().expect("kill runs").success()
    );
    assert_eq!(quickstart.0.wait().expect("it ends").code(), Some(1));
    let said = std::fs::read_to_string(&errors).expect("a file");
    assert!(said.contains("exited with signal: 9") && said.contains("the end of its log"), "{said}");
}

/// Runs a command line in `dir` that must fail, and compares its exit code and error.
fn check_failure(dir: &Path, line: &str, code: i32, expected: &str) {
    let output = Command::new(env!("CARGO_BIN_EXE_isthmus"))
        .args(line.split(' '))
        .current_dir(dir)
        .stdin(Stdio::null())
        .output()
        .expect("isthmus runs");
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "isthmus {line}: {error}");
    assert!(error.contains(expected), "isthmus {line}: {error}");
}

#[test]
fn wrong_usage_ends_with_code_2_and_names_what_is_wrong() {
    let dir = tempfile::tempdir().expect("a directory");
    let write = |name: &str, content: &str| std::fs::write(dir.path().join(name), content).expect("a file");
    write("bad.yaml", "field: [\n");
    write("file", "not a token\n");
    write("empty", "");
    write("bucket.yaml", "type: FILESYSTEM\nconfig: {directory: .}\n");
    write(
        "observability.yaml",
        "role: observability\ndata_dir: gateway\npki: {state: none}\nlisten: 127.0.0.1:0\n",
    );
    write("cluster.yaml", "role: cluster\ndata_dir: none\ntargets: [{name: a, address: '127.0.0.1:1'}]\n");
    let check = |line: &str, expected: &str| check_failure(dir.path(), line, 2, expected);
    // Commands, flags and values.
    for command in [
        "",
        "query ",
        "sidecar ",
        "gateway ",
        "pki ",
        "pki init ",
        "tools ",
        "tools bucket ls ",
        "quickstart ",
    ] {
        check(&format!("{command}--no-such-flag"), "--no-such-flag");
    }
    check("no-such-command", "no-such-command");
    check("query extra", "extra");
    check("query --endpoint", "--endpoint");
    check("query --query.timeout=soon", "--query.timeout");
    check("sidecar --prometheus.url=nothing", "--prometheus.url");
    check("gateway --target=x", "--target");
    check("pki token create --cluster a --environment b --address c:1 --ttl 10d", "--ttl");
    check("tools bucket ls", "--objstore.config");
    check("tools bucket ls --objstore.config-file=bucket.yaml --min-time=soon", "--min-time");
    check("quickstart --base-port=65530", "--base-port");
    check("completions no-such-shell", "no-such-shell");
    // Files and directories that flags name.
    let any = "--http-address=127.0.0.1:0 --grpc-address=127.0.0.1:0";
    for flag in ["--http.config", "--tracing.config-file", "--request.logging-config-file"] {
        check(&format!("query {any} {flag}=none"), "none");
        check(&format!("query {any} {flag}=bad.yaml"), "bad.yaml: line 1");
    }
    check(&format!("query {any} --endpoint.sd-config-file=none"), "--endpoint.sd-config-file=none");
    check(&format!("query {any} --query.active-query-path=file"), "--query.active-query-path=file");
    check("sidecar --objstore.config-file=none", "--objstore.config-file=none");
    check("sidecar --objstore.config-file=bad.yaml", "--objstore.config-file=bad.yaml: line 1");
    check(&format!("sidecar {any} --objstore.config-file=bucket.yaml --tsdb.path=none"), "--tsdb.path=none");
    check("gateway", "--join-file");
    check("gateway --config none", "none");
    check("gateway --config bad.yaml", "bad.yaml: line 1");
    check("gateway --join-file none", "--join-file none");
    check("gateway --join-file file", "--join-file file");
    check(&format!("gateway {any} --config observability.yaml"), "pki.state");
    check(&format!("gateway {any} --config cluster.yaml"), "--join-file");
    check("gateway check-config none", "none");
    check("gateway check-config bad.yaml", "bad.yaml: line 1");
    let init = "pki init --trust-domain a.example --root-out roots --state pki";
    check(init, "--root-passphrase-file");
    check(&format!("{init} --root-passphrase-file none"), "--root-passphrase-file none");
    check(&format!("{init} --root-passphrase-file empty"), "passphrase");
    check("tools bucket ls --objstore.config-file=none", "--objstore.config-file=none");
    check("tools bucket ls --objstore.config-file=bad.yaml", "--objstore.config-file=bad.yaml: line 1");
    write("unset.yaml", "type: S3\nconfig: {access_key: $(ISTHMUS_NOT_SET)}\n");
    check("tools bucket ls --objstore.config-file=unset.yaml", "unset.yaml: contains $(ISTHMUS_NOT_SET)");
    check("sidecar --prometheus.http-client-file=bad.yaml", "--prometheus.http-client-file=bad.yaml: line 1");
    for flag in ["--endpoint.sd-config-file", "--selector.relabel-config-file"] {
        check(&format!("query {any} {flag}=bad.yaml"), &format!("{flag}=bad.yaml: "));
    }
    check("quickstart --prometheus=none", "--prometheus none");
    check("quickstart --dir=file", "--dir file");
    check("quickstart --dir=file/below", "--dir file/below");
    check("man file", "DIR file");
    // What does not exist or exists already is not wrong usage for the tools and the PKI.
    check_failure(dir.path(), "tools block dump none", 3, "none");
    check_failure(dir.path(), "tools block generate --output-dir=file --series=1", 5, "--output-dir");
    check_failure(dir.path(), "pki doctor --state none", 3, "none");
}

#[test]
fn a_port_in_use_is_a_failure_that_names_the_flag() {
    let dir = tempfile::tempdir().expect("a directory");
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let at = taken.local_addr().expect("an address");
    let line = format!("query --http-address={at} --grpc-address=127.0.0.1:0");
    check_failure(dir.path(), &line, 1, "give this one another port with --http-address=HOST:PORT");
    let line = format!("query --grpc-address={at} --http-address=127.0.0.1:0");
    check_failure(dir.path(), &line, 1, "give this one another port with --grpc-address=HOST:PORT");
}

/// The output of a command on a terminal with this number of columns, in the way that script(1) records it.
fn on_terminal(dir: &Path, columns: u16, environment: &str, line: &str) -> String {
    let command = format!("stty cols {columns}; {environment} {} {line}", env!("CARGO_BIN_EXE_isthmus"));
    let output = Command::new("script").args(["-qec", &command, "/dev/null"]).current_dir(dir).output();
    text(&output.expect("script runs").stdout).replace('\r', "")
}

#[test]
fn tables_fit_the_terminal_and_are_whole_elsewhere() {
    if Command::new("script").arg("--version").output().is_err() {
        println!("skipped: no script on the PATH");
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("passphrase"), "only a test\n").expect("a file");
    let run = |line: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_isthmus"))
            .args(line.split(' '))
            .env("COLUMNS", "40")
            .current_dir(dir.path())
            .output();
        let output = output.expect("isthmus runs");
        assert!(output.status.success(), "{line}: {}", text(&output.stderr));
        text(&output.stdout)
    };
    run("pki init --trust-domain a.example --root-out roots --state pki --root-passphrase-file passphrase");
    run("tools block generate --output-dir=blocks --series=10 --label=cluster=\"eu-1\"");
    std::fs::write(dir.path().join("bucket.yaml"), "type: FILESYSTEM\nconfig: {directory: blocks}\n")
        .expect("a file");
    let inspect = "tools bucket inspect --objstore.config-file=bucket.yaml";
    for line in ["pki doctor --state pki", inspect] {
        let whole = run(line);
        assert!(whole.lines().any(|line| line.chars().count() > 100), "{line}: {whole}");
        for (columns, environment, expected) in [(70, "", 70), (200, "COLUMNS=60", 60)] {
            let shown = on_terminal(dir.path(), columns, environment, line);
            let widest = shown.lines().map(|line| line.chars().count()).max();
            assert!(
                widest.is_some_and(|widest| widest > 20 && widest <= expected),
                "{line}, {columns}: {shown}"
            );
        }
    }
    let json: String = run(&format!("{inspect} --output=json"));
    assert!(json.contains("\"samples\": 2400"), "{json}");
}
