//! Writes the configuration for Prometheus: decompressed, with variables replaced.

use std::fs::{self, File, OpenOptions, Permissions};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;

/// Maximum size of the decompressed configuration in bytes; far larger than any real one.
const MAX_BYTES: u64 = 64 << 20;

/// Mode of a file that did not exist before.
const NEW_FILE_MODE: u32 = 0o644;

/// The first bytes of a gzip file, with the only compression method that is defined.
const GZIP: [u8; 3] = [0x1f, 0x8b, 0x08];

/// Why the output was not written. The previous file is kept.
#[derive(Debug, thiserror::Error)]
pub(super) enum OutputError {
    #[error("read {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} is larger than 64 MiB after decompression", path.display())]
    TooLarge { path: PathBuf },
    #[error("{} is not valid UTF-8", path.display())]
    NotText { path: PathBuf },
    #[error("{}: {source}", path.display())]
    Variable { path: PathBuf, source: runtime::UnsetVariable },
    #[error("write {}: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
}

/// Writes `from`, decompressed and expanded, to `to`; returns whether the content changed.
///
/// The file is replaced as a whole. It keeps its mode; a new one gets mode 0644. It is not touched if it has the right content already.
///
/// # Errors
/// Names the file, and the variable that is not set.
pub(super) fn write_expanded(
    from: &Path,
    to: &Path,
    lookup: impl Fn(&str) -> Option<String>,
) -> Result<bool, OutputError> {
    let text = String::from_utf8(read_unpacked(from)?)
        .map_err(|_| OutputError::NotText { path: from.to_owned() })?;
    let expanded = runtime::expand_env(&text, lookup)
        .map_err(|source| OutputError::Variable { path: from.to_owned(), source })?;
    if fs::read(to).is_ok_and(|old| old == expanded.as_bytes()) {
        return Ok(false);
    }
    replace(to, expanded.as_bytes()).map_err(|source| OutputError::Write { path: to.to_owned(), source })?;
    Ok(true)
}

fn read_unpacked(path: &Path) -> Result<Vec<u8>, OutputError> {
    let failed = |source| OutputError::Read { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    File::open(path).map_err(failed)?.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.starts_with(&GZIP) {
        let mut unpacked = Vec::new();
        let packed = MultiGzDecoder::new(bytes.as_slice());
        packed.take(MAX_BYTES + 1).read_to_end(&mut unpacked).map_err(failed)?;
        bytes = unpacked;
    }
    if bytes.len() as u64 > MAX_BYTES {
        return Err(OutputError::TooLarge { path: path.to_owned() });
    }
    Ok(bytes)
}

fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    // The expanded file may contain passwords: its owner decides who reads it.
    let mode = fs::metadata(path).map_or(NEW_FILE_MODE, |old| old.permissions().mode() & 0o777);
    // Others who may write to the folder cannot guess the name and put a link there.
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{:016x}.tmp", RandomState::new().build_hasher().finish()));
    let temporary = PathBuf::from(name);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    let written = (|| {
        file.write_all(content)?;
        file.set_permissions(Permissions::from_mode(mode))?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    })();
    if written.is_err() {
        // A partial file is useless and takes space on a full disk.
        drop(fs::remove_file(&temporary));
    }
    written
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use tempfile::TempDir;

    use super::*;

    fn lookup(name: &str) -> Option<String> {
        (name == "CLUSTER").then(|| "eu-1".to_owned())
    }

    #[test]
    fn gzip_configuration_is_decompressed_and_expanded() {
        let dir = TempDir::new().unwrap();
        let (from, to) = (dir.path().join("in.yaml.gz"), dir.path().join("out.yaml"));
        let mut packer = GzEncoder::new(Vec::new(), Compression::default());
        packer.write_all(b"cluster: $(CLUSTER) $1 ${2}\n").unwrap();
        fs::write(&from, packer.finish().unwrap()).unwrap();
        assert!(write_expanded(&from, &to, lookup).unwrap());
        assert_eq!(fs::read_to_string(&to).unwrap(), "cluster: eu-1 $1 ${2}\n");
        assert_eq!(fs::metadata(&to).unwrap().permissions().mode() & 0o777, 0o644);
        assert!(!write_expanded(&from, &to, lookup).unwrap(), "written again without need");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "a temporary file stays");
    }

    #[test]
    fn a_file_keeps_its_mode_and_no_link_is_followed() {
        let dir = TempDir::new().unwrap();
        let (from, to) = (dir.path().join("in.yaml"), dir.path().join("out.yaml"));
        fs::write(&from, "a: 1\n").unwrap();
        fs::write(&to, "old").unwrap();
        fs::set_permissions(&to, Permissions::from_mode(0o640)).unwrap();
        // Where the temporary file once was, another user has put a link.
        let victim = dir.path().join("victim");
        fs::write(&victim, "precious").unwrap();
        std::os::unix::fs::symlink(&victim, dir.path().join("out.yaml.tmp")).unwrap();
        assert!(write_expanded(&from, &to, lookup).unwrap());
        assert_eq!(fs::metadata(&to).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
    }

    #[test]
    fn unset_variable_keeps_the_previous_output() {
        let dir = TempDir::new().unwrap();
        let (from, to) = (dir.path().join("in.yaml"), dir.path().join("out.yaml"));
        fs::write(&to, "old").unwrap();
        fs::write(&from, "a: $(CLUSTER)\nb: $(REPLICA)\n").unwrap();
        let error = write_expanded(&from, &to, lookup).unwrap_err().to_string();
        assert!(error.contains("in.yaml: ") && error.contains("$(REPLICA)"), "{error}");
        assert_eq!(fs::read_to_string(&to).unwrap(), "old");
    }

    #[test]
    fn errors_name_the_file() {
        let dir = TempDir::new().unwrap();
        let (from, to) = (dir.path().join("in.yaml"), dir.path().join("no/such/out.yaml"));
        let error = write_expanded(&from, &to, lookup).unwrap_err().to_string();
        assert!(error.starts_with("read ") && error.contains("in.yaml"), "{error}");
        for (content, message) in [
            (&b"\xff\xfe"[..], "not valid UTF-8"),
            (b"\x1f\x8b\x08\0broken", "in.yaml"),
            (b"a: 1", "out.yaml"),
        ] {
            fs::write(&from, content).unwrap();
            let error = write_expanded(&from, &to, lookup).unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
        fs::write(&from, vec![b' '; (MAX_BYTES + 1) as usize]).unwrap();
        let error = write_expanded(&from, &to, lookup).unwrap_err().to_string();
        assert!(error.contains("64 MiB"), "{error}");
    }
}
