//! The files of a log.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// One file of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) number: u32,
    pub(crate) path: PathBuf,
}

/// The name of a segment.
pub(crate) fn segment_name(number: u32) -> String {
    format!("{number:08}")
}

/// The segments in a directory, by number. Other files are ignored, as in Prometheus. None if there is no such directory.
///
/// # Errors
/// When the directory cannot be read.
pub(crate) fn list(dir: &Path) -> io::Result<Vec<Segment>> {
    let mut segments = Vec::new();
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(segments),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let digits = name.to_str().filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()));
        if let Some(number) = digits.and_then(|name| name.parse().ok()) {
            segments.push(Segment { number, path: entry.path() });
        }
    }
    segments.sort_by_key(|segment| segment.number);
    Ok(segments)
}

/// The last complete checkpoint of a log: its directory, and the number of the last segment that it replaces.
///
/// # Errors
/// When the directory cannot be read.
pub(crate) fn last_checkpoint(dir: &Path) -> io::Result<Option<Segment>> {
    Ok(checkpoints(dir)?.pop())
}

/// All complete checkpoints, by number.
pub(crate) fn checkpoints(dir: &Path) -> io::Result<Vec<Segment>> {
    let mut found = Vec::new();
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("checkpoint."));
        if let Some(number) = number.and_then(|number| number.parse().ok()) {
            found.push(Segment { number, path: entry.path() });
        }
    }
    found.sort_by_key(|checkpoint| checkpoint.number);
    Ok(found)
}

/// The name of a checkpoint that replaces the segments up to `number`.
pub(crate) fn checkpoint_name(number: u32) -> String {
    format!("checkpoint.{number:08}")
}
