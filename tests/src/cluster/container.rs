//! Running containers.
//!
//! A container is a process with namespaces of its own for mounts and processes, in the network of its pod. Its root folder has the
//! files of its image and its volumes. It runs without capabilities and cannot gain any. It is process 1, as in Kubernetes, so that a
//! program that does not handle SIGTERM is seen.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use crate::cluster::environment::{Environment, expand};
use crate::cluster::image::{Image, Programs, image};
use crate::cluster::network::Namespace;
use crate::cluster::pod_spec::{Container, PodSpec, SecurityContext};
use crate::cluster::volumes::is_read_only;

/// The begin of the script that becomes a container.
const SCRIPT: &str = r#"set -e
bind() {
  if [ -d "$1" ] || [ ! -e "$1" ]; then mkdir -p "$1" "$2"; else mkdir -p "${2%/*}"; [ -e "$2" ] || : >"$2"; fi
  mount --bind "$1" "$2"
  [ "$3" = rw ] || mount -o remount,bind,ro "$2"
}
"#;

/// Where a container has the program that starts its own one.
const SETPRIV: &str = "/dev/.setpriv";

/// Everything that a container is started from.
pub(crate) struct Launch<'a> {
    pub(crate) spec: &'a PodSpec,
    pub(crate) container: &'a Container,
    pub(crate) environment: Environment,
    /// The folders of its volumes.
    pub(crate) volumes: BTreeMap<String, PathBuf>,
    pub(crate) network: &'a Namespace,
    /// The folder of the container, which is created again for each start.
    pub(crate) folder: PathBuf,
    /// Its output is appended to this file.
    pub(crate) log: PathBuf,
    /// The text of `/etc/hosts` and of `/etc/resolv.conf`.
    pub(crate) hosts: String,
    pub(crate) resolver: String,
    /// The programs of its image, if that is Isthmus.
    pub(crate) programs: &'a Programs,
}

/// Who a container runs as.
#[derive(Clone, Debug)]
struct User {
    user: u32,
    group: u32,
    groups: String,
}

/// A running container. It is killed when dropped.
pub(crate) struct Running {
    child: Child,
    /// Its process 1.
    pub(crate) pid: u32,
}

impl Launch<'_> {
    /// Starts the container.
    ///
    /// # Errors
    /// If it cannot be started, or ended at once.
    pub(crate) async fn start(&self) -> Result<Running, String> {
        let image = image(&self.container.image, self.programs)?;
        let user = user(&self.spec.security_context, &self.container.security_context, &image)?;
        let failed = |cause: std::io::Error| format!("container {}: {cause}", self.container.name);
        let script = self.unpack(&image, &user).map_err(failed)?;
        let (program, args) = self.command(&image);
        let log = File::options().create(true).append(true).open(&self.log).map_err(failed)?;
        let child = Command::new("/usr/bin/setpriv")
            .args(["--pdeathsig=KILL", "nsenter", &self.network.enter(), &self.network.enter_hostname()])
            .args(["unshare", "--mount", "--pid", "--fork", "--kill-child=KILL", "/bin/sh"])
            .arg(script)
            .arg(program)
            .args(args)
            .env_clear()
            .envs(&self.environment)
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(failed)?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        Running::of(child).await
    }

    /// The program and its arguments, with variables replaced.
    fn command(&self, image: &Image) -> (String, Vec<String>) {
        let expanded = |text: &String| expand(text, &self.environment);
        let mut words: Vec<String> = self.container.command.iter().map(expanded).collect();
        if words.is_empty() {
            words.push(image.entrypoint.clone());
        }
        words.extend(self.container.args.iter().map(expanded));
        let program = words.remove(0);
        (program, words)
    }

    /// Creates the root folder, and the script that mounts its parts and then becomes the program.
    fn unpack(&self, image: &Image, user: &User) -> std::io::Result<PathBuf> {
        let root = self.folder.join("root");
        match fs::remove_dir_all(&self.folder) {
            Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => return Err(cause),
            _ => fs::create_dir_all(&root)?,
        }
        image.unpack(&root)?;
        fs::write(root.join("etc/hosts"), &self.hosts)?;
        fs::write(root.join("etc/resolv.conf"), &self.resolver)?;
        let script = self.folder.join("start.sh");
        fs::write(&script, self.script(&root, image, user))?;
        Ok(script)
    }

    fn script(&self, root: &Path, image: &Image, user: &User) -> String {
        // Variables of the script would become variables of the program, so it has none.
        let mut text = format!("{SCRIPT}mount --bind {0} {0}\nmount -t proc proc {0}/proc\n", quoted(root));
        let devices = ["full", "null", "random", "urandom", "zero"].map(|name| format!("/dev/{name}"));
        let devices = devices.iter().map(|device| (PathBuf::from(device), &**device, false));
        let own = [
            (PathBuf::from("/etc/ssl"), "/etc/ssl", true),
            (PathBuf::from("/usr/bin/setpriv"), SETPRIV, true),
        ];
        let files = image.files.iter().map(|(from, at)| (from.clone(), *at, true));
        for (from, at, is_read_only) in own.into_iter().chain(devices).chain(files) {
            bind(&mut text, root, &from, at, is_read_only);
        }
        for (name, to) in [("fd", "fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")] {
            let _ = writeln!(text, "ln -s /proc/self/{to} {}/dev/{name}", quoted(root));
        }
        let mut mounts: Vec<_> = self.container.volume_mounts.iter().collect();
        // A volume may be mounted within another one.
        mounts.sort_by_key(|mount| mount.mount_path.len());
        for mount in mounts {
            let from = self.volumes.get(&mount.name).cloned().unwrap_or_default().join(&mount.sub_path);
            let volume = self.spec.volumes.iter().find(|volume| volume.name == mount.name);
            let is_read_only = mount.read_only || volume.is_none_or(is_read_only);
            bind(&mut text, root, &from, &mount.mount_path, is_read_only);
        }
        if self.container.security_context.read_only_root_filesystem {
            let _ = writeln!(text, "mount -o remount,bind,ro {}", quoted(root));
        }
        let User { user, group, groups } = user;
        // The capabilities are those that this line itself needs. The kernel forgets who must die with the runner when the user changes.
        let _ = writeln!(
            text,
            "unset PWD OLDPWD\nexec setpriv --no-new-privs --inh-caps=-all \
             --bounding-set=-all,+sys_chroot,+setuid,+setgid \
             chroot --userspec={user}:{group} --groups={groups} {} {SETPRIV} --pdeathsig=KILL -- \"$@\"",
            quoted(root)
        );
        text
    }
}

impl Running {
    /// The container of a started `unshare`, once that has made its process 1.
    async fn of(child: Child) -> Result<Self, String> {
        let parent = child.id().ok_or("the container has ended")?;
        let path = format!("/proc/{parent}/task/{parent}/children");
        let mut running = Self { child, pid: 0 };
        loop {
            let children = fs::read_to_string(&path).unwrap_or_default();
            if let Some(pid) = children.split_whitespace().next().and_then(|pid| pid.parse().ok()) {
                running.pid = pid;
                return Ok(running);
            }
            if let Ok(Some(status)) = running.child.try_wait() {
                return Err(format!("the container ended at once: {status}"));
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Waits until it ends, and returns how.
    ///
    /// # Cancel safety
    /// It can be called again after it was cancelled.
    pub(crate) async fn ended(&mut self) -> String {
        match self.child.wait().await {
            Ok(status) => status.to_string(),
            Err(cause) => cause.to_string(),
        }
    }

    /// Sends SIGTERM, waits for the end for at most `grace`, and kills what is left.
    pub(crate) async fn stop(&mut self, grace: Duration) -> String {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        let signal = |signal: Signal| {
            if let Some(pid) = pid {
                // It fails only if the process has ended.
                let _ = kill_process(pid, signal);
            }
        };
        if !grace.is_zero() {
            signal(Signal::TERM);
            if let Ok(status) = tokio::time::timeout(grace, self.ended()).await {
                return status;
            }
        }
        signal(Signal::KILL);
        self.ended().await;
        if grace.is_zero() { "killed".to_owned() } else { format!("killed after {grace:?}") }
    }
}

/// A command that runs in the container whose process 1 is `pid`, with its user and its environment, as by `kubectl exec`.
pub(crate) fn exec(pid: u32, command: &[String]) -> std::process::Command {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let id = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|line| line.split_whitespace().next()).unwrap_or("65534").to_owned()
    };
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    let environment = String::from_utf8_lossy(&environment).into_owned();
    let mut enter = std::process::Command::new("/usr/bin/nsenter");
    enter
        .arg(format!("--target={pid}"))
        .args(["--mount", "--uts", "--net", "--pid", "--root", "--wd"])
        .args([format!("--setuid={}", id("Uid:")), format!("--setgid={}", id("Gid:"))])
        .arg("--")
        .args(command)
        .env_clear()
        .envs(environment.split('\0').filter_map(|variable| variable.split_once('=')))
        .stdin(Stdio::null());
    enter
}

/// Adds commands that mount `from` at the path `at` of the container.
fn bind(text: &mut String, root: &Path, from: &Path, at: &str, is_read_only: bool) {
    let mode = if is_read_only { "ro" } else { "rw" };
    let _ = writeln!(text, "bind {} {}{} {mode}", quoted(from), quoted(root), quoted(Path::new(at)));
}

fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', "'\\''"))
}

fn user(pod: &SecurityContext, container: &SecurityContext, image: &Image) -> Result<User, String> {
    let user = container.run_as_user.or(pod.run_as_user).unwrap_or(image.user);
    let group = container.run_as_group.or(pod.run_as_group).unwrap_or(0);
    if user == 0 && container.run_as_non_root.or(pod.run_as_non_root) == Some(true) {
        return Err("runAsNonRoot is set, and the user is root".to_owned());
    }
    let groups: Vec<String> =
        pod.fs_group.iter().chain(&pod.supplemental_groups).map(u32::to_string).collect();
    Ok(User { user, group, groups: groups.join(",") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn container_settings_have_precedence_and_root_is_refused() {
        let programs = Programs { isthmus: PathBuf::from("isthmus"), previous: None };
        let image = image("registry.example:5000/isthmus:1@sha256:0", &programs).expect("the image");
        let context = |text: &str| serde_json::from_str::<SecurityContext>(text).expect("a context");
        let pod =
            context(r#"{"runAsUser": 1, "fsGroup": 7, "supplementalGroups": [8], "runAsNonRoot": true}"#);
        let own = user(&pod, &context(r#"{"runAsGroup": 3}"#), &image).expect("a user");
        assert_eq!((own.user, own.group, &*own.groups), (1, 3, "7,8"));
        let error = user(&pod, &context(r#"{"runAsUser": 0}"#), &image).expect_err("root");
        assert!(error.contains("runAsNonRoot"), "{error}");
        let default = user(&context("{}"), &context("{}"), &image).expect("a user");
        assert_eq!(default.user, 65_532);
    }
}
