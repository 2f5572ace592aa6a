//! Output of the commands: lines and tables for people, one versioned JSON object for programs.

use std::io::{self, Write};

use serde_json::{Value, json};

use crate::error::PkiError;

/// The output of a command.
pub(super) struct CommandOutput<'a>(&'a mut dyn Write);

impl<'a> CommandOutput<'a> {
    pub(super) fn new(to: &'a mut dyn Write) -> Self {
        Self(to)
    }

    /// Prints one line of text.
    pub(super) fn line(&mut self, text: &str) -> Result<(), PkiError> {
        ignore_closed_pipe(writeln!(self.0, "{text}"))
    }

    /// Prints a JSON object after adding the version of its schema.
    pub(super) fn object(&mut self, mut object: Value) -> Result<(), PkiError> {
        object["v"] = json!(1);
        self.line(&object.to_string())
    }

    /// Prints a table. Each column is as wide as its widest cell.
    pub(super) fn table(&mut self, head: &[&str], rows: &[Vec<String>]) -> Result<(), PkiError> {
        let head: Vec<String> = head.iter().map(|cell| (*cell).to_owned()).collect();
        let width = |column: usize| {
            let cells =
                rows.iter().chain([&head]).map(|row| row.get(column).map_or(0, |cell| cell.chars().count()));
            cells.max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..head.len()).map(width).collect();
        for row in [&head].into_iter().chain(rows) {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
            self.line(cells.collect::<Vec<_>>().join("  ").trim_end())?;
        }
        Ok(())
    }
}

/// Ignores the error of a closed pipe, so that `| head` is not a failure of the command.
fn ignore_closed_pipe(written: io::Result<()>) -> Result<(), PkiError> {
    match written {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => {
            Err(PkiError::Failed(format!("write to the output: {e}")))
        }
        _ => Ok(()),
    }
}
