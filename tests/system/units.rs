//! The units in `deploy/systemd`: systemd accepts them, they are confined, and the program tells systemd what it does.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use tests::{free_port, isthmus};

/// The highest exposure that `systemd-analyze security` may find, in tenths.
const MAX_EXPOSURE: &str = "15";

fn units() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/systemd");
    let files = fs::read_dir(folder).expect("the folder of the units");
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
