//! Reading and writing files with keys and certificates: bounded reads and atomic writes.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
};

/// Reads a file of at most `max_bytes`.
///
/// # Errors
/// Any error of the operating system; `InvalidData` when the file is longer.
pub fn read_bounded(path: &Path, max_bytes: u64) -> io::Result<Vec<u8>> {
    read_file(File::open(path)?, max_bytes)
}

fn read_file(file: File, max_bytes: u64) -> io::Result<Vec<u8>> {
    // A vector that grows leaves copies behind.
    let expected = file.metadata().map_or(0, |meta| meta.len()).min(max_bytes) + 1;
    let mut bytes = Vec::with_capacity(usize::try_from(expected).unwrap_or_default());
    file.take(max_bytes + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max_bytes {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("the file is longer than {max_bytes} bytes"),
        ));
    }
    Ok(bytes)
}

/// Reads a file with a key, of at most `max_bytes`. It must be a regular file and no link, belong to this user or to root,
/// and be readable only by its owner: anything else means that others have the key, or have put another one there.
///
/// # Errors
/// Any error of the operating system; `PermissionDenied` with what to do when one of these does not hold; `InvalidData` when
/// the file is longer.
pub fn read_private(path: &Path, max_bytes: u64) -> io::Result<Vec<u8>> {
    let refuse = |why: String| Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::LOOP) => return refuse("is a link; put the file itself there".into()),
        Err(error) => return Err(error.into()),
    };
    let meta = file.metadata()?;
    let (own, mode) = (rustix::process::geteuid().as_raw(), meta.mode() & 0o777);
    if !meta.is_file() {
        return refuse("is not a regular file".into());
    }
    if meta.uid() != own && meta.uid() != 0 {
        return refuse(format!("belongs to user {}, expected user {own} or root", meta.uid()));
    }
    if mode & 0o077 != 0 {
        return refuse(format!("has mode {mode:03o}, so that others can read the key; run chmod 600"));
    }
    read_file(file, max_bytes)
}

/// Replaces a file with one of mode 0600, atomically and durably: after a crash the file has either the old
/// or the new content, complete.
///
/// # Errors
/// Any error of the operating system; the old file is then unchanged.
pub fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    replace_file(path, content, 0o600)
}

/// Does the same as [`write_private`] with mode 0644, for files that every user may read.
///
/// # Errors
/// Any error of the operating system; the old file is then unchanged.
pub fn write_public(path: &Path, content: &[u8]) -> io::Result<()> {
    replace_file(path, content, 0o644)
}

fn replace_file(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let name = path
        .file_name()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the path has no file name"))?;
    let dir = match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    let mut temp_name = std::ffi::OsString::from(".");
    temp_name.push(name);
    temp_name.push(format!(".{}-{}.tmp", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed)));
    let temp = dir.join(temp_name);

    let written = write_new(&temp, content, mode).and_then(|()| fs::rename(&temp, path));
    if written.is_err() {
        // Best effort: the caller needs the first error, not that of removing the file.
        let _ = fs::remove_file(&temp);
        return written;
    }
    // The rename is durable only after the directory has been synced.
    File::open(dir)?.sync_all()
}

fn write_new(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    // `create_new` does not follow a symbolic link that an attacker may have placed under the temporary name.
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_private_file_gets_mode_0600_even_when_it_replaces_a_readable_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key.pem");
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        write_private(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "a temporary file is left");
    }

    #[test]
    fn a_key_that_others_can_read_or_replace_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (path, link) = (dir.path().join("key.pem"), dir.path().join("link.pem"));
        write_private(&path, b"key").unwrap();
        assert_eq!(read_private(&path, 10).unwrap(), b"key");
        assert!(read_private(&path, 2).is_err());
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let check = |path: &Path, expected: &str| {
            let error = read_private(path, 10).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check(&link, "is a link");
        check(dir.path(), "is not a regular file");
        for mode in [0o640, 0o604, 0o660, 0o777] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            check(&path, "run chmod 600");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
        assert_eq!(read_private(&path, 10).unwrap(), b"key");
        check(&dir.path().join("missing"), "No such file");
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&path, Some(12345), None).unwrap();
            check(&path, "belongs to user 12345");
        }
    }

    #[test]
    fn a_failed_write_leaves_no_temporary_file() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("occupied");
        fs::create_dir(&target).unwrap();
        assert!(write_private(&target, b"x").is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(write_private(&dir.path().join("no/such/dir"), b"x").is_err());
    }

    #[test]
    fn a_file_longer_than_the_limit_is_rejected() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("big");
        fs::write(&path, [0; 11]).unwrap();
        assert!(read_bounded(&path, 10).is_err());
        assert_eq!(read_bounded(&path, 11).unwrap().len(), 11);
    }
}
