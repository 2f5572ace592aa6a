//! The commands of the PKI as processes, over one folder.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::process::isthmus;

/// The commands of the PKI over a folder. In a line, `STATE` is `--state` with its folder `state`, `ROOTS` are the options with its
/// folder `roots` and its file `passphrase`, and `DIR` is the folder itself.
#[derive(Clone, Debug)]
pub struct PkiCommands {
    dir: PathBuf,
}

impl PkiCommands {
    /// The commands over `dir`, into which a passphrase is written.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn new(dir: &Path) -> Self {
        std::fs::write(dir.join("passphrase"), "a long passphrase\n").expect("a file");
        Self { dir: dir.to_owned() }
    }

    /// A command that was not started yet.
    pub fn command(&self, line: &str) -> Command {
        let line = line
            .replace("ROOTS", "--root-out DIR/roots --root-passphrase-file DIR/passphrase")
            .replace("STATE", "--state DIR/state");
        let folder = self.dir.display().to_string();
        let mut command = Command::new(isthmus());
        command.arg("pki").args(line.split_whitespace().map(|word| word.replace("DIR", &folder)));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    /// Runs a command to its end, and returns its exit code, -1 after a signal, and what it printed.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn run(&self, line: &str) -> (i32, String) {
        let output = self.command(line).stdout(Stdio::piped()).stderr(Stdio::piped()).output();
        let output = output.expect("isthmus runs");
        let printed = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&printed).into_owned())
    }

    /// Runs a command that must succeed.
    ///
    /// # Panics
    /// If it does not.
    pub fn must(&self, line: &str) {
        let (code, printed) = self.run(line);
        assert_eq!(code, 0, "{line}: {printed}");
    }

    /// Checks that nothing has to be repaired.
    ///
    /// # Panics
    /// If `doctor` finds more than warnings.
    pub fn must_be_healthy(&self, after: &str) {
        let (code, printed) = self.run("doctor STATE");
        assert!(code == 0 || code == 10, "after {after}: {code} {printed}");
    }

    /// Kills a command after some time, and returns whether it was running.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn kill(&self, line: &str, after: Duration) -> bool {
        let mut child = self.command(line).spawn().expect("isthmus runs");
        std::thread::sleep(after);
        let is_running = child.try_wait().expect("a child").is_none();
        // Both fail only if it has ended.
        drop(child.kill());
        drop(child.wait());
        is_running
    }
}
