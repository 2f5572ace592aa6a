//! The units in `deploy/systemd`: systemd accepts them, they are confined, and the program tells systemd what it does.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use tests::{ServiceManager, free_port, isthmus, wait_for};

/// The highest exposure that `systemd-analyze security` may find, in tenths.
const MAX_EXPOSURE: &str = "15";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/systemd")
}

fn units() -> Vec<PathBuf> {
    let files = fs::read_dir(folder()).expect("the folder of the units");
    let mut units: Vec<PathBuf> = files.map(|file| file.expect("a file").path()).collect();
    units.retain(|path| path.extension().is_some_and(|extension| extension == "service"));
    units.sort();
    assert!(units.len() >= 8, "{units:?}");
    units
}

/// The value of a setting in the text of a unit.
fn setting<'a>(unit: &'a str, name: &str) -> &'a str {
    let mut lines = unit.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    lines.next_back().unwrap_or_else(|| panic!("{name} is missing"))
}

#[test]
fn systemd_accepts_the_units_and_finds_them_confined() {
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        println!("skipped: systemd-analyze is not installed");
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    for path in units() {
        // The program of the unit must exist where it is verified.
        let text = fs::read_to_string(&path).expect("a unit");
        let installed = text.replace("/usr/local/bin/isthmus", &isthmus().display().to_string());
        assert_ne!(installed, text, "{}", path.display());
        let copy = dir.path().join(path.file_name().expect("a name"));
        fs::write(&copy, installed).expect("a file");
        let analyze = |args: &[&str]| {
            let output =
                Command::new("systemd-analyze").args(args).arg(&copy).output().expect("systemd-analyze runs");
            let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
            (output.status.success(), said)
        };
        let (valid, said) = analyze(&["verify", "--man=no"]);
        assert!(valid && !said.contains(copy.to_str().expect("a path")), "{}: {said}", path.display());
        let (confined, said) =
            analyze(&["security", "--offline=yes", &format!("--threshold={MAX_EXPOSURE}")]);
        assert!(confined, "{}: {}", path.display(), said.lines().last().unwrap_or_default());
    }
}

/// The units differ in their program and their folders, and in nothing that confines them.
#[test]
fn all_units_are_confined_alike() {
    let confinement = |path: &PathBuf| {
        let text = fs::read_to_string(path).expect("a unit");
        let name = setting(&text, "StateDirectory").rsplit('/').next().expect("a folder").to_owned();
        let (_, confined) = text.split_once("# The program needs a network").expect("the part that confines");
        confined.replace(&format!("isthmus/{name}"), "isthmus/NAME")
    };
    let units = units();
    for path in &units {
        assert_eq!(confinement(path), confinement(&units[0]), "{}", path.display());
    }
}

/// The program knows each flag of the units.
#[test]
fn the_flags_of_the_units_exist() {
    for path in units() {
        let text = fs::read_to_string(&path).expect("a unit");
        let command = setting(&text, "ExecStart");
        let words: Vec<&str> =
            command.split_whitespace().skip(1).filter(|word| !word.starts_with('$')).collect();
        let help = Command::new(isthmus()).arg(words[0]).arg("--help").output().expect("the program runs");
        let help = String::from_utf8_lossy(&help.stdout).into_owned();
        for flag in words[1..].iter().filter_map(|word| word.split('=').next()) {
            assert!(
                help.contains(&format!("{flag} ")) || help.contains(&format!("{flag}\n")),
                "{}: {flag}",
                path.display()
            );
        }
    }
}

#[test]
fn the_service_manager_is_told_of_start_reload_and_stop() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("notify");
    let manager = UnixDatagram::bind(&path).expect("a socket");
    manager.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
    let mut role = Command::new(isthmus())
        .args([
            "query",
            &format!("--http-address={}", free_port()),
            &format!("--grpc-address={}", free_port()),
        ])
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "200000")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program starts");
    let id = rustix::process::Pid::from_child(&role);
    let until = |expected: &str| {
        let mut buffer = [0; 4096];
        for _ in 0..1000 {
            let length = manager.recv(&mut buffer).unwrap_or_else(|error| panic!("{expected}: {error}"));
            if String::from_utf8_lossy(&buffer[..length]).starts_with(expected) {
                return;
            }
        }
        panic!("{expected} was not told");
    };
    until("READY=1");
    until("WATCHDOG=1");
    rustix::process::kill_process(id, rustix::process::Signal::HUP).expect("a signal");
    until("RELOADING=1\nMONOTONIC_USEC=");
    until("READY=1");
    rustix::process::kill_process(id, rustix::process::Signal::TERM).expect("a signal");
    until("STOPPING=1");
    assert!(role.wait().expect("its end").success());
}

const PROMETHEUS: &str = "global: {scrape_interval: 200ms, external_labels: {cluster: eu-1, environment: testing, replica: a}}\n\
    scrape_configs: [{job_name: self, static_configs: [{targets: ['127.0.0.1:10902']}]}]\n";
const QUERY: &str = "ISTHMUS_QUERY_ARGS=\"--endpoint=127.0.0.1:10901 --http-address=127.0.0.1:10912 --grpc-address=127.0.0.1:10911\"\n";

/// systemd itself starts the units, with everything that they forbid.
#[test]
fn the_program_works_in_its_units() {
    let dir = tempfile::tempdir().expect("a folder");
    let files = [("prometheus.yml", PROMETHEUS), ("query.env", QUERY)];
    let Some(systemd) = ServiceManager::start(dir.path(), &folder(), &files, "units under systemd") else {
        return;
    };
    let log = |unit: &str| fs::read_to_string(dir.path().join("var/log").join(unit)).unwrap_or_default();
    let (scrape, query, store) = ("isthmus-scrape.service", "isthmus-query.service", "isthmus-store.service");
    for unit in [scrape, query] {
        let (started, said) = systemd.systemctl(&["start", unit]);
        assert!(started, "{unit}: {said}: {}", log(unit));
        let id = systemd.property(unit, "MainPID");
        let status = systemd.exec(&["cat", &format!("/proc/{id}/status")]);
        let status = String::from_utf8_lossy(&status.stdout).into_owned();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
            line.split_whitespace().next().unwrap_or_default().to_owned()
        };
        assert_ne!(field("Uid:"), "0", "{unit}: {status}");
        assert_eq!((field("NoNewPrivs:"), field("Seccomp:")), ("1".to_owned(), "2".to_owned()), "{unit}");
        assert_eq!(field("CapBnd:"), "0000000000000000", "{unit}");
    }
    println!("the querier reads the scraper, which writes into its state directory and nowhere else");
    wait_for("a sample", Duration::from_secs(30), || {
        let answer = systemd.get(10912, "/api/v1/query?query=up");
        if answer.contains("\"1\"]") { Ok(()) } else { Err(answer) }
    });
    let written = systemd.exec(&["find", "/var/lib/private/isthmus", "-type", "f", "-user", "root"]);
    assert!(written.status.success() && written.stdout.is_empty(), "{written:?}");
    let wal = systemd.exec(&["ls", "/var/lib/private/isthmus/scrape/wal"]);
    assert!(wal.status.success() && !wal.stdout.is_empty(), "{wal:?}");

    println!("it reloads, and stops in order");
    let (reloaded, said) = systemd.systemctl(&["reload", scrape]);
    assert!(reloaded, "{said}: {}", log(scrape));
    assert_eq!(systemd.property(scrape, "ActiveState"), "active");
    for unit in [query, scrape] {
        let (stopped, said) = systemd.systemctl(&["stop", unit]);
        assert!(stopped, "{unit}: {said}");
        assert_eq!(systemd.property(unit, "Result"), "success", "{unit}: {}", log(unit));
        assert!(!log(unit).contains("level=error"), "{unit}: {}", log(unit));
    }

    println!("a wrong configuration is not tried again");
    let (started, _) = systemd.systemctl(&["start", store]);
    assert!(!started && log(store).contains("bucket.yaml"), "{}", log(store));
    assert_eq!(systemd.property(store, "ExecMainStatus"), "2", "{}", log(store));
    assert_eq!(
        (&*systemd.property(store, "ActiveState"), &*systemd.property(store, "NRestarts")),
        ("failed", "0")
    );
}
