//! Output of the commands: lines and tables for people, one versioned JSON object for programs.

use std::io::{self, Write};

use serde_json::{Value, json};
use terminal::{TableStyle, TextTable};

use crate::error::PkiError;

/// The output of a command.
pub(super) struct CommandOutput<'a> {
    to: &'a mut dyn Write,
    /// Columns of the terminal; `None` for a reader that gets whole lines.
    width: Option<usize>,
}

impl<'a> CommandOutput<'a> {
    /// Writes to `to`, with tables for a terminal of `width` columns.
    pub(super) fn new(to: &'a mut dyn Write, width: Option<usize>) -> Self {
        Self { to, width }
    }

    /// Prints a text of one or more lines.
    pub(super) fn line(&mut self, text: &str) -> Result<(), PkiError> {
        ignore_closed_pipe(writeln!(self.to, "{text}"))
    }

    /// Prints a JSON object after adding the version of its schema.
    pub(super) fn object(&mut self, mut object: Value) -> Result<(), PkiError> {
        object["v"] = json!(1);
        self.line(&object.to_string())
    }

    /// Prints a table.
    pub(super) fn table(&mut self, head: &[&str], rows: Vec<Vec<String>>) -> Result<(), PkiError> {
        let mut table = TextTable::new(head.iter().copied());
        rows.into_iter().for_each(|row| table.push(row));
        self.line(&table.draw(TableStyle::Plain, self.width))
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
