//! A disk that fills up. The processes of the demonstration report it in their logs, which they can no longer write.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::statvfs;

/// What must be free. The processes write less than this in a minute.
const LEAST_BYTES: u64 = 16 << 20;

/// There is too little space on a disk.
#[derive(Debug)]
pub(super) struct FullDisk {
    dir: PathBuf,
    free_bytes: u64,
}

impl fmt::Display for FullDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the disk of {} is full: {} MiB are free, {} MiB are needed; free some space, or use --dir with a directory on \
             another disk",
            self.dir.display(),
            self.free_bytes >> 20,
            LEAST_BYTES >> 20,
        )
    }
}

impl std::error::Error for FullDisk {}

/// Checks that there is space on the disk of `dir`.
///
/// # Errors
/// [`FullDisk`], or its space cannot be read.
pub(super) fn check_space(dir: &Path) -> Result<()> {
    let disk = statvfs(dir).with_context(|| format!("read the free space of {}", dir.display()))?;
    // Some file systems do not say how large they are.
    match disk.f_blocks > 0 {
        true => Ok(enough(dir, disk.f_bavail.saturating_mul(disk.f_frsize))?),
        false => Ok(()),
    }
}

fn enough(dir: &Path, free_bytes: u64) -> Result<(), FullDisk> {
    match free_bytes >= LEAST_BYTES {
        true => Ok(()),
        false => Err(FullDisk { dir: dir.to_owned(), free_bytes }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_named() {
        let dir = Path::new("/data");
        assert!(enough(dir, LEAST_BYTES).is_ok());
        let error = enough(dir, LEAST_BYTES - 1).unwrap_err().to_string();
        assert!(
            error.starts_with("the disk of /data is full: 15 MiB are free, 16 MiB are needed"),
            "{error}"
        );
        // It has no size.
        assert!(check_space(Path::new("/proc")).is_ok());
        assert!(check_space(Path::new("/no/such/directory")).is_err());
    }
}
