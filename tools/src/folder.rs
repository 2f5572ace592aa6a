//! Folders for what a command has on its way.

use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::error::{Cause, Context, Result, ToolError};

/// A folder below `--tmp.dir` that is removed with all that is in it when it is dropped.
#[derive(Debug)]
pub(crate) struct WorkingFolder(PathBuf);

impl WorkingFolder {
    /// Makes an empty folder for this process.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn create(tmp_dir: &Path, name: &str) -> Result<Self> {
        let dir = tmp_dir.join(format!("isthmus-{name}-{}", std::process::id()));
        match std::fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).context(format_args!("--tmp.dir: empty folder {}", dir.display()));
            }
            _ => {}
        }
        make_private(&dir)?;
        Ok(Self(dir))
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

/// Makes a folder that is nobody else's, or takes the one that is there if it is so. Folders of temporary files are
/// open to all: what others could have put there, or could read, is not used.
///
/// # Errors
/// A folder that others may enter, something else of that name, or what the system says.
pub(crate) fn make_private(dir: &Path) -> Result<()> {
    let doing = || format!("--tmp.dir: make folder {}", dir.display());
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
                format!("--tmp.dir: {} is no folder of ours alone (mode 0700): remove it", dir.display()),
            ))
        }
        result => result.context(doing()),
    }
}

impl Drop for WorkingFolder {
    fn drop(&mut self) {
        // What stays behind is in a folder of temporary files.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_private_folder_is_entered_by_nobody_else() {
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
