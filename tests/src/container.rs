//! Containers without a container engine: the files of the image are the root of a process in namespaces of its own.
//!
//! The root is read-only, there is no /tmp, the process is process 1 and has another user. What a container engine would do, a
//! few commands of util-linux do here.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::network::Network;
use crate::process::{Process, isthmus};

/// Sets the root up and becomes the program. Its arguments: the root, `UID:GID`, the number of mounts, three for each mount
/// (folder, place, `ro` or `rw`), and those of the program.
const SCRIPT: &str = r#"
set -eu
root=$1 user=$2 mounts=$3
shift 3
mount --make-rprivate /
mount --bind "$root" "$root"
while [ "$mounts" -gt 0 ]; do
  mount --bind "$1" "$root$2"
  [ "$3" = rw ] || mount -o remount,bind,ro "$root$2"
  shift 3
  mounts=$((mounts - 1))
done
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount -o remount,bind,ro "$root"
# The capabilities are those that this line itself needs; another user than root has none of them.
exec setpriv --no-new-privs --inh-caps=-all --bounding-set=-all,+sys_chroot,+setuid,+setgid \
  chroot --userspec="$user" "$root" /bin/isthmus "$@"
"#;

/// The files of the image, written by `deploy/container/rootfs`.
pub struct Image {
    root: PathBuf,
}

impl Image {
    /// Writes the files into a folder below `dir`. If no container can be started here, prints that `what` is skipped.
    ///
    /// # Panics
    /// If the files cannot be written.
    pub fn build(dir: &Path, what: &str) -> Option<Self> {
        let permitted = Command::new("unshare").args(["--mount", "--pid", "--fork", "true"]).output();
        if !permitted.is_ok_and(|output| output.status.success()) {
            println!("skipped: {what} (no mount namespace can be created here)");
            return None;
        }
        let root = dir.join("rootfs");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/container/rootfs");
        let output = Command::new(&script).arg(isthmus()).arg(&root).output().expect("the script runs");
        assert!(output.status.success(), "{}: {}", script.display(), String::from_utf8_lossy(&output.stderr));
        Some(Self { root })
    }

    /// The folder with the files.
    pub fn root(&self) -> &Path {
        &self.root
    }
}

/// How the program is started in a container.
pub struct Container<'a> {
    image: &'a Image,
    user: String,
    mounts: Vec<(PathBuf, String, &'static str)>,
    namespace: Option<&'a Network>,
}

impl<'a> Container<'a> {
    /// The program with this user and group, and the network of this process.
    pub fn new(image: &'a Image, user: u32, group: u32) -> Self {
        Self { image, user: format!("{user}:{group}"), mounts: Vec::new(), namespace: None }
    }

    /// Mounts a folder, or a file over one of the image, read-only at a place, which must exist in no other mount.
    pub fn with(mut self, folder: &Path, place: &str) -> Self {
        self.mounts.push((folder.to_owned(), place.to_owned(), "ro"));
        self
    }

    /// Mounts a folder that the program may write.
    pub fn with_writable(mut self, folder: &Path, place: &str) -> Self {
        self.mounts.push((folder.to_owned(), place.to_owned(), "rw"));
        self
    }

    /// Uses a network of its own.
    pub fn within(mut self, network: &'a Network) -> Self {
        self.namespace = Some(network);
        self
    }

    /// The command line, whose first word is the program.
    fn command_line(&self, args: &[String]) -> Vec<String> {
        let mut line = self.namespace.map(Network::prefix).unwrap_or_default();
        line.extend(
            ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", SCRIPT, "sh"]
                .map(str::to_owned),
        );
        line.extend([
            self.image.root.display().to_string(),
            self.user.clone(),
            self.mounts.len().to_string(),
        ]);
        for (folder, place, mode) in &self.mounts {
            line.extend([folder.display().to_string(), place.clone(), (*mode).to_owned()]);
        }
        line.extend_from_slice(args);
        line
    }

    fn prepare(&self) {
        let places = self.mounts.iter().map(|(_, place, _)| place.as_str()).chain(["/proc", "/dev"]);
        for place in places {
            let place = self.image.root.join(place.trim_start_matches('/'));
            if !place.exists() {
                fs::create_dir_all(&place).expect("a place for a mount");
            }
        }
    }

    /// Runs the program to its end.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn run(&self, args: &[&str]) -> Output {
        self.prepare();
        let args: Vec<String> = args.iter().map(ToString::to_string).collect();
        let line = self.command_line(&args);
        Command::new(&line[0]).args(&line[1..]).output().expect("unshare runs")
    }

    /// Starts the program. Its output is written to `log`.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn start(&self, args: &[String], log: &Path) -> Process {
        self.prepare();
        let line = self.command_line(args);
        Process::start(Path::new(&line[0]), &line[1..], log)
    }
}

/// The id of process 1 of a container, as this process sees it.
///
/// # Panics
/// If there is none.
pub fn process_one(container: &Process) -> u32 {
    let id = container.id();
    let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
    children
        .split_whitespace()
        .next()
        .and_then(|child| child.parse().ok())
        .expect("process 1 of the container")
}

/// Asks process 1 of a container to stop, as SIGTERM does, waits for its end, and returns its exit code.
///
/// # Panics
/// If it does not end in 30 seconds.
pub fn stop(container: &mut Process) -> Option<i32> {
    let id = i32::try_from(process_one(container)).ok().and_then(rustix::process::Pid::from_raw);
    rustix::process::kill_process(id.expect("a process id"), rustix::process::Signal::TERM)
        .expect("a signal");
    container.wait_end()
}
