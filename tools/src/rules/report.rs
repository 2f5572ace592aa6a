//! Reads files and reports on them.

use std::path::{Path, PathBuf};

use crate::error::{Cause, DescribeAction, Result, ToolError};

/// Largest file of rules or tests.
const MAX_FILE_BYTES: u64 = 64 << 20;

/// Format of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum RuleReportFormat {
    /// A line for each file and each problem
    Text,
    /// A JSON array with an object for each file
    Json,
}

/// The files that are named, sorted where a name has a `*`.
pub(super) fn files(names: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for name in names {
        let mut found = runtime::matching_files(name);
        if found.is_empty() {
            let message = format!("{}: no file matches; check the path", name.display());
            return Err(ToolError::new(Cause::Missing, message));
        }
        found.sort();
        files.append(&mut found);
    }
    Ok(files)
}

/// The text of a file.
pub(super) fn read(path: &Path) -> Result<String> {
    let read = || -> Result<String> {
        let length = std::fs::metadata(path)?.len();
        if length > MAX_FILE_BYTES {
            let message = format!("has {length} bytes, the most are {MAX_FILE_BYTES}; divide it");
            return Err(ToolError::new(Cause::Failed, message));
        }
        String::from_utf8(std::fs::read(path)?)
            .map_err(|error| ToolError::new(Cause::Failed, format!("is not valid UTF-8: {error}")))
    };
    read().context(path.display())
}
