//! A control group of the kernel, for programs that must stay within their memory.

use std::fs;
use std::path::{Path, PathBuf};

use crate::process::Process;

/// A control group with a limit on memory. It is removed when dropped, after its processes.
#[derive(Debug)]
pub struct ControlGroup {
    folder: PathBuf,
    is_first_version: bool,
}

impl ControlGroup {
    /// A group below that of this process. If there can be none, prints that `what` is skipped.
    pub fn create(limit_bytes: u64, what: &str) -> Option<Self> {
        let created = memory_group(Path::new("/")).and_then(|(parent, is_first_version)| {
            let folder = parent.join(format!("isthmus-test-{}-{limit_bytes}", std::process::id()));
            fs::create_dir(&folder).ok()?;
            let group = Self { folder, is_first_version };
            let file = if is_first_version { "memory.limit_in_bytes" } else { "memory.max" };
            fs::write(group.folder.join(file), limit_bytes.to_string()).ok()?;
            Some(group)
        });
        if created.is_none() {
            println!("skipped: {what} (no control group with a limit on memory can be created here)");
        }
        created
    }

    /// Starts `program` in the group. Its output is written to `log`.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn start(&self, program: &Path, args: &[String], log: &Path) -> Process {
        let join = "echo $$ > \"$0\" && exec \"$@\"".to_owned();
        let procs = self.folder.join("cgroup.procs");
        let mut all = vec!["-c".to_owned(), join];
        all.extend([&*procs, program].map(|path| path.to_string_lossy().into_owned()));
        all.extend_from_slice(args);
        Process::start(Path::new("sh"), &all, log)
    }

    /// The most memory that was used at any time, with the page cache of the kernel.
    pub fn peak_bytes(&self) -> u64 {
        let file = if self.is_first_version { "memory.max_usage_in_bytes" } else { "memory.peak" };
        self.read(file).trim().parse().unwrap_or(0)
    }

    /// Number of processes that were killed because the group had no memory left.
    pub fn kills(&self) -> u64 {
        let text = self.read(if self.is_first_version { "memory.oom_control" } else { "memory.events" });
        let count = text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok());
        count.unwrap_or(0)
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.folder.join(file)).unwrap_or_default()
    }
}

impl Drop for ControlGroup {
    fn drop(&mut self) {
        // It stays only if a process is left in it.
        drop(fs::remove_dir(&self.folder));
    }
}

/// The folder of the group of this process in which a group with a limit on memory may be created, and whether it is of version 1.
fn memory_group(root: &Path) -> Option<(PathBuf, bool)> {
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
    groups.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?.trim_start_matches('/'));
        if controllers.split(',').any(|controller| controller == "memory") {
            return Some((root.join("sys/fs/cgroup/memory").join(path), true));
        }
        let folder = root.join("sys/fs/cgroup").join(path);
        let passed_on = fs::read_to_string(folder.join("cgroup.subtree_control")).ok()?;
        (controllers.is_empty() && passed_on.split_whitespace().any(|name| name == "memory"))
            .then_some((folder, false))
    })
}
