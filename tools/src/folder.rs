//! Temporary folders of commands.

use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Cause, DescribeAction, Result, ToolError};

/// A folder below `--tmp.dir`. It is removed with its content when this is dropped.
#[derive(Debug)]
pub(crate) struct WorkingFolder(PathBuf);

impl WorkingFolder {
    /// Creates an empty folder with a name that no other folder of this process has.
    ///
    /// # Errors
    /// Any error of the system.
    pub(crate) fn create(tmp_dir: &Path, name: &str) -> Result<Self> {
        // One process may have several such folders at a time, as in tests.
        static CREATED: AtomicU64 = AtomicU64::new(0);
        let number = CREATED.fetch_add(1, Ordering::Relaxed);
        let dir = tmp_dir.join(format!("isthmus-{name}-{}-{number}", std::process::id()));
        match std::fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).context(format_args!("--tmp.dir: empty folder {}", dir.display()));
            }
            _ => {}
        }
        make_private(&dir)?;
        Ok(Self(dir))
    }

    /// Its path.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

/// Creates a folder that no other user may enter, or uses an existing one with that mode. Every user can write to a folder
/// of temporary files, so a folder that another user could have filled or could read is rejected.
///
/// # Errors
/// A folder with another mode, another file of that name, or any error of the system.
pub(crate) fn make_private(dir: &Path) -> Result<()> {
    let doing = || format!("--tmp.dir: create folder {}", dir.display());
    if let Some(parent) = dir.parent() {
        std::fs::create_dir_all(parent).context(doing())?;
    }
    match std::fs::DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            let found = std::fs::symlink_metadata(dir).context(doing())?;
            if found.is_dir() && found.permissions().mode() & 0o077 == 0 {
                return Ok(());
            }
            Err(ToolError::new(
                Cause::Refused,
                format!(
                    "--tmp.dir: {} is not a folder with mode 0700, so other users may have written to it: remove it",
                    dir.display()
                ),
            ))
        }
        result => result.context(doing()),
    }
}

impl Drop for WorkingFolder {
    fn drop(&mut self) {
        // Files that remain are in a folder of temporary files.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_other_users_may_enter_is_rejected() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = tmp.path().join("a/b");
        make_private(&dir).unwrap();
        assert_eq!(std::fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
        make_private(&dir).unwrap();
        std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(make_private(&dir).unwrap_err().cause(), Cause::Refused);
        let link = tmp.path().join("link");
        std::os::unix::fs::symlink(tmp.path(), &link).unwrap();
        assert_eq!(make_private(&link).unwrap_err().cause(), Cause::Refused);
    }
}
