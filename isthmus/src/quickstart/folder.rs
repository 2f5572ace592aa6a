//! The directory of the demonstration. Only a directory that quickstart has created or that was empty is used, and only
//! by one quickstart at a time.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::usage::UsageError;
use anyhow::{Context, Result};
use rustix::fs::{FlockOperation, OFlags, flock};

/// The file that marks a directory of quickstart. Its lock is held while quickstart runs.
const MARKER: &str = ".isthmus-quickstart";
/// The content of the marker.
const MARKER_TEXT: &str =
    "This directory belongs to `isthmus quickstart`, which replaces its content at each start.\n";

/// The entries that a run creates. Nothing else in the directory is removed.
const OURS: [&str; 10] = [
    "pki",
    "observability",
    "eu-1",
    "us-1",
    "logs",
    "eu-1.token",
    "us-1.token",
    "used-token",
    "wrong-token",
    "endpoints.json",
];

/// The directory for certificates, data and logs.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    is_temporary: bool,
    /// Locked until it is dropped.
    _marker: File,
}

impl Folder {
    /// Creates a temporary directory, or prepares the given one: removes what an earlier run left there.
    ///
    /// # Errors
    /// The directory has content that is not from a quickstart, or another quickstart uses it.
    pub(super) fn prepare(asked: Option<&Path>) -> Result<Self> {
        let Some(asked) = asked else {
            let path = std::env::temp_dir().join(format!("isthmus-quickstart-{}", std::process::id()));
            fs::create_dir(&path).with_context(|| format!("create {}", path.display()))?;
            let marker =
                create_marker(&path.join(MARKER)).with_context(|| format!("mark {}", path.display()))?;
            return Ok(Self { path, is_temporary: true, _marker: marker });
        };
        let refused = |error: std::io::Error| UsageError(format!("--dir {}: {error}", asked.display()));
        // With a slash at the end, the system would follow the link.
        let entry: PathBuf = asked.components().collect();
        if let Ok(target) = fs::read_link(&entry) {
            let (entry, target) = (entry.display(), target.display());
            let text = format!("--dir {entry}: it is a symbolic link to {target}; give the directory itself");
            return Err(UsageError(text).into());
        }
        fs::create_dir_all(asked).map_err(refused)?;
        let path = fs::canonicalize(asked).map_err(refused)?;
        let marker = open_marker(&path).map_err(|error| match error.downcast::<std::io::Error>() {
            Ok(error) => refused(error).into(),
            Err(error) => error,
        })?;
        if flock(&marker, FlockOperation::NonBlockingLockExclusive).is_err() {
            let path = path.display();
            return Err(UsageError(format!(
                "--dir {path}: another quickstart uses this directory, choose another one"
            ))
            .into());
        }
        for name in OURS {
            remove(&path.join(name))?;
        }
        Ok(Self { path, is_temporary: false, _marker: marker })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Keeps a temporary directory, so that its logs can be read.
    pub(super) fn keep(mut self) {
        self.is_temporary = false;
        eprintln!("the logs are in {}", self.path.join("logs").display());
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.is_temporary
            && let Err(error) = fs::remove_dir_all(&self.path)
        {
            eprintln!("remove {}: {error}", self.path.display());
        }
    }
}

/// Opens the marker of `dir`, or creates it if the directory is empty.
fn open_marker(dir: &Path) -> Result<File> {
    let path = dir.join(MARKER);
    let refuse = |found: &str| {
        let dir = dir.display();
        UsageError(format!("--dir {dir}: {found}, so it is not from a quickstart; choose an empty directory"))
    };
    let opened = OpenOptions::new().read(true).custom_flags(OFlags::NOFOLLOW.bits() as i32).open(&path);
    match opened {
        Ok(mut marker) => {
            let mut text = String::new();
            let read = Read::by_ref(&mut marker).take(1024).read_to_string(&mut text);
            if read.is_err() || text != MARKER_TEXT {
                return Err(refuse(&format!("{MARKER} has another content")).into());
            }
            Ok(marker)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let entries = fs::read_dir(dir)?;
            match entries.into_iter().next().transpose()? {
                Some(entry) => {
                    Err(refuse(&format!("it contains {:?} and no file {MARKER}", entry.file_name())).into())
                }
                None => Ok(create_marker(&path)?),
            }
        }
        Err(error) => Err(error.into()),
    }
}

fn create_marker(path: &Path) -> std::io::Result<File> {
    let mut marker = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
    marker.write_all(MARKER_TEXT.as_bytes())?;
    Ok(marker)
}

/// Removes a file or a directory, if there is one. A symbolic link is removed, and not what it refers to.
fn remove(path: &Path) -> Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    };
    removed.with_context(|| format!("remove {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(dir: &Path) -> String {
        Folder::prepare(Some(dir)).expect_err("refused").to_string()
    }

    #[test]
    fn a_directory_without_the_marker_is_left_alone() {
        let dir = tempfile::tempdir().expect("a directory");
        let precious = dir.path().join("pki/ca.key");
        fs::create_dir(dir.path().join("pki")).expect("a directory");
        fs::write(&precious, "secret").expect("a file");
        let error = refused(dir.path());
        assert!(error.contains("contains \"pki\" and no file .isthmus-quickstart"), "{error}");
        fs::write(dir.path().join(MARKER), "mine").expect("a file");
        assert!(refused(dir.path()).contains("has another content"));
        assert_eq!(fs::read_to_string(precious).expect("a file"), "secret");
    }

    #[test]
    fn an_earlier_run_is_replaced_and_links_are_not_followed() {
        let dir = tempfile::tempdir().expect("a directory");
        let other = tempfile::tempdir().expect("a directory");
        fs::write(other.path().join("kept"), "").expect("a file");
        let run = dir.path().join("run");
        let folder = Folder::prepare(Some(&run)).expect("a folder");
        fs::create_dir(run.join("logs")).expect("a directory");
        std::os::unix::fs::symlink(other.path(), run.join("pki")).expect("a link");
        fs::write(run.join("notes"), "").expect("a file");
        assert!(refused(&run).contains("another quickstart uses this directory"));
        drop(folder);
        let folder = Folder::prepare(Some(&run)).expect("a folder");
        let left: Vec<_> =
            fs::read_dir(folder.path()).expect("entries").flatten().map(|e| e.file_name()).collect();
        assert!(left.len() == 2 && left.iter().any(|name| name == "notes"), "{left:?}");
        assert!(other.path().join("kept").exists());
    }

    #[test]
    fn a_directory_that_is_a_link_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::create_dir(dir.path().join("real")).expect("a directory");
        for (name, target) in [("link", "real"), ("dangling", "nowhere")] {
            let link = dir.path().join(name);
            std::os::unix::fs::symlink(target, &link).expect("a link");
            for path in [link.clone(), link.join("")] {
                let error = refused(&path);
                assert!(error.contains(&format!("is a symbolic link to {target}")), "{error}");
            }
        }
        assert_eq!(fs::read_dir(dir.path().join("real")).expect("entries").count(), 0);
        assert!(!dir.path().join("nowhere").exists());
    }

    #[test]
    fn a_directory_that_cannot_be_written_is_wrong_usage() {
        // Not even root can create files there.
        let error = Folder::prepare(Some(Path::new("/proc/tty/ldisc"))).expect_err("refused");
        assert!(
            error.is::<UsageError>() && error.to_string().starts_with("--dir /proc/tty/ldisc: "),
            "{error}"
        );
    }

    #[test]
    fn a_marker_that_is_a_link_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::write(dir.path().join("real"), MARKER_TEXT).expect("a file");
        std::os::unix::fs::symlink("real", dir.path().join(MARKER)).expect("a link");
        refused(dir.path());
    }

    #[test]
    fn a_temporary_directory_is_removed() {
        let folder = Folder::prepare(None).expect("a folder");
        let path = folder.path().to_owned();
        drop(folder);
        assert!(!path.exists());
    }
}
