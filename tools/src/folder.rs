//! Folders for what a command has on its way.

use std::path::{Path, PathBuf};

use crate::error::{Context, Result};

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
        std::fs::create_dir_all(&dir).context(format_args!("--tmp.dir: make folder {}", dir.display()))?;
        Ok(Self(dir))
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for WorkingFolder {
    fn drop(&mut self) {
        // What stays behind is in a folder of temporary files.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
