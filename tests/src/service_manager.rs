//! systemd as process 1 of namespaces of its own, so that units run as on a machine: with their users, folders and system calls.
//!
//! It sees the files of this machine, but has a copy of `/etc`, an empty `/var`, and no units but those that it is given. It has no
//! controllers of control groups, so limits on memory have no effect.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use crate::process::{Process, isthmus, wait_for};

/// How long the start may take.
const START: Duration = Duration::from_secs(30);
/// How long killed processes may take to leave their control groups.
const END: Duration = Duration::from_secs(5);

const SYSTEMD: &str = "/lib/systemd/systemd";

/// Targets that services need by default, without what a machine starts with them.
const TARGETS: [&str; 4] = ["sysinit", "basic", "network-online", "shutdown"];

/// Its arguments: the control group, the folder for `/etc` and `/var`, and the program.
const SCRIPT: &str = r#"
set -eu
mount --make-rprivate /
mount -t proc proc /proc
umount --lazy /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /usr/local/bin
touch /usr/local/bin/isthmus
mount --bind "$2" /usr/local/bin/isthmus
mount --bind "$1/etc" /etc
mount --bind "$1/var" /var
mount --bind "$1/units" /lib/systemd/system
ip link set lo up
export container=other
exec /lib/systemd/systemd --unit=basic.target --log-target=console --show-status=0
"#;

/// A running systemd. It ends with all of its services when dropped.
pub struct ServiceManager {
    process: Process,
    /// Process 1, as this process sees it.
    pid: u32,
    group: ControlFolder,
}

impl ServiceManager {
    /// Starts it with the units of a folder, and with files in `/etc/isthmus`. The output of each service is written to
    /// `/var/log/UNIT`. If it cannot be started here, prints that `what` is skipped.
    ///
    /// # Panics
    /// If a file cannot be written.
    pub fn start(dir: &Path, units: &Path, files: &[(&str, &str)], what: &str) -> Option<Self> {
        let skip = |why: &str| {
            println!("skipped: {what} ({why})");
            None
        };
        if !Path::new(SYSTEMD).is_file() || !rustix::process::geteuid().is_root() {
            return skip("it needs systemd and root");
        }
        let Some(group) = ControlFolder::create() else {
            return skip("no control group can be created here");
        };
        prepare(dir, units, files);
        let enter = "echo $$ > \"$0\"/cgroup.procs && exec \"$@\"";
        let words = ["-c", enter, &text(&group.0), "unshare", "--mount", "--pid", "--fork", "--kill-child"];
        let inside =
            ["--net", "--uts", "--ipc", "--cgroup", "sh", "-c", SCRIPT, "sh", &text(dir), &text(&isthmus())];
        let args: Vec<String> = words.iter().chain(&inside).map(ToString::to_string).collect();
        let process = Process::start(Path::new("sh"), &args, &dir.join("systemd.log"));
        let mut manager = Self { process, pid: 0, group };
        let is_up = wait_for("systemd", START, || {
            if !manager.process.is_running() {
                return Ok(false);
            }
            manager.pid = manager.child();
            match manager.systemctl(&["is-active", "basic.target"]) {
                (true, _) => Ok(true),
                (false, said) => Err(format!("{said}: {}", manager.process.output())),
            }
        });
        if is_up {
            return Some(manager);
        }
        skip(&format!("systemd cannot be process 1 here: {}", manager.process.output()))
    }

    /// The child of `unshare`, into which the shell has turned; 0 as long as there is none.
    fn child(&self) -> u32 {
        let id = self.process.id();
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
        children.split_whitespace().next().and_then(|child| child.parse().ok()).unwrap_or(0)
    }

    /// Runs a command beside the services.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn exec(&self, command: &[&str]) -> Output {
        let target = format!("--target={}", self.pid);
        let enter = [&target, "--mount", "--pid", "--net", "--ipc", "--uts", "--"];
        Command::new("nsenter").args(enter).args(command).output().expect("nsenter runs")
    }

    /// Runs `systemctl`. Returns whether it succeeded, and what it printed.
    pub fn systemctl(&self, args: &[&str]) -> (bool, String) {
        let output = self.exec(&[&["systemctl"], args].concat());
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).trim().to_owned();
        (output.status.success(), said)
    }

    /// A property of a unit.
    pub fn property(&self, unit: &str, name: &str) -> String {
        self.systemctl(&["show", unit, "--value", "--property", name]).1
    }

    /// Sends a GET request to a port of loopback. Returns the answer, with its head.
    pub fn get(&self, port: u16, path: &str) -> String {
        let script = format!(
            "exec 3<>/dev/tcp/127.0.0.1/{port} && printf 'GET %s HTTP/1.0\\r\\nHost: localhost\\r\\n\\r\\n' \"$1\" >&3 && cat <&3"
        );
        let output = self.exec(&["bash", "-c", &script, "bash", path]);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for ServiceManager {
    fn drop(&mut self) {
        self.process.kill();
        self.group.remove();
    }
}

/// Writes the folders that replace `/etc`, `/var` and the units of this machine.
fn prepare(dir: &Path, units: &Path, files: &[(&str, &str)]) {
    let (etc, var, own) = (dir.join("etc"), dir.join("var"), dir.join("units"));
    let copied = Command::new("cp").args(["--archive", "/etc"]).arg(&etc).status().expect("cp runs");
    assert!(copied.success(), "/etc cannot be copied");
    fs::remove_dir_all(etc.join("systemd")).expect("the settings of systemd");
    for folder in
        [etc.join("systemd/system"), etc.join("isthmus"), var.join("lib"), var.join("log"), own.clone()]
    {
        fs::create_dir_all(folder).expect("a folder");
    }
    // Users of the services pass through it.
    for folder in [dir, &etc, &var] {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).expect("a mode");
    }
    for (name, content) in files {
        fs::write(etc.join("isthmus").join(name), content).expect("a file");
    }
    for target in TARGETS {
        let unit = format!("[Unit]\nDescription={target}\nDefaultDependencies=no\n");
        fs::write(own.join(format!("{target}.target")), unit).expect("a unit");
    }
    for unit in fs::read_dir(units).expect("units") {
        let unit = unit.expect("a unit").path();
        let name = unit.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.ends_with(".service") {
            fs::copy(&unit, own.join(&name)).expect("a unit");
            let log = format!(
                "[Service]\nStandardOutput=append:/var/log/{name}\nStandardError=append:/var/log/{name}\n"
            );
            fs::create_dir(own.join(format!("{name}.d"))).expect("a folder");
            fs::write(own.join(format!("{name}.d/log.conf")), log).expect("a file");
        }
    }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// A control group of version 2, without controllers.
struct ControlFolder(PathBuf);

impl ControlFolder {
    fn create() -> Option<Self> {
        let mounts = fs::read_to_string("/proc/mounts").ok()?;
        let mount = mounts.lines().find_map(|line| {
            let fields: Vec<&str> = line.split(' ').collect();
            (fields.get(2) == Some(&"cgroup2")).then(|| fields[1].to_owned())
        })?;
        let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
        let own = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
        let folder = Path::new(&mount).join(own).join(format!("isthmus-units-{}", std::process::id()));
        fs::create_dir(&folder).ok().map(|()| Self(folder))
    }

    fn remove(&self) {
        // The groups of the services are in it. A group can be removed when its killed processes are gone.
        let until = Instant::now() + END;
        while self.0.exists() && Instant::now() < until {
            let folders = Command::new("find").arg(&self.0).args(["-depth", "-type", "d"]).output();
            let folders = folders
                .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
                .unwrap_or_default();
            folders.lines().for_each(|folder| drop(fs::remove_dir(folder)));
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
