//! Output of commands: lines, tables for people, JSON and separated values for programs.

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write};

use serde::Serialize;
use serde_json::Value;
use terminal::{TableStyle, TextTable};

use crate::error::{DescribeAction, Result};
use crate::text;

/// The output of a command. It is buffered, so call [`Output::flush`] at the end.
pub(crate) struct Output {
    to: Box<dyn Write + Send>,
    /// Columns of the terminal; `None` for a reader that gets whole lines.
    width: Option<usize>,
}

impl Output {
    /// Standard output.
    pub(crate) fn stdout() -> Self {
        Self {
            to: Box::new(BufWriter::with_capacity(1 << 16, io::stdout())),
            width: terminal::output_width(),
        }
    }

    /// Another writer.
    #[cfg(test)]
    pub(crate) fn new(to: impl Write + Send + 'static) -> Self {
        Self { to: Box::new(to), width: None }
    }

    /// Prints a text of one or more lines. Control characters are escaped, because names come from buckets and blocks.
    pub(crate) fn line(&mut self, text: impl std::fmt::Display) -> Result<()> {
        writeln!(self.to, "{}", text::printable(&text.to_string(), true)).context("print")
    }

    /// Prints bytes unchanged.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        self.to.write_all(bytes).context("print")
    }

    /// Prints a value as indented JSON.
    pub(crate) fn json(&mut self, value: &impl Serialize) -> Result<()> {
        let mut text = serde_json::to_vec_pretty(value)?;
        text.push(b'\n');
        self.bytes(&text)
    }

    /// Prints a table in the given format.
    pub(crate) fn table(&mut self, table: &Table, format: TableFormat) -> Result<()> {
        match format {
            TableFormat::Table => self.line(table.drawn().draw(TableStyle::Markdown, self.width)),
            TableFormat::Tsv => self.bytes(format!("{}\n", table.separated('\t')).as_bytes()),
            TableFormat::Csv => self.bytes(format!("{}\n", table.separated(',')).as_bytes()),
            TableFormat::Json => self.json(&table.json()),
        }
    }

    /// Writes buffered output.
    ///
    /// # Errors
    /// The pipe is closed, or the disk is full.
    pub(crate) fn flush(&mut self) -> Result<()> {
        self.to.flush().context("print")
    }
}

/// Formats of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum TableFormat {
    /// A table for people, in Markdown
    Table,
    /// Tab-separated values
    Tsv,
    /// Comma-separated values
    Csv,
    /// A JSON array with an object for each row
    Json,
}

/// A value in a table. It is printed with a unit for people, and bare for programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TableCell {
    Text(String),
    Number(u64),
    /// A size in bytes.
    Bytes(u64),
    /// A length of time in milliseconds.
    Length(i64),
    Flag(bool),
    /// Labels by name.
    Labels(BTreeMap<String, String>),
    /// Not known, or not applicable.
    Absent,
}

impl TableCell {
    /// A text.
    pub(crate) fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    fn for_people(&self) -> String {
        match self {
            Self::Number(number) => text::grouped(&number.to_string()),
            Self::Bytes(bytes) => text::size(*bytes),
            Self::Absent => "-".to_owned(),
            // In Markdown, a line break ends a row and a bar ends a cell.
            other => text::printable(&other.bare(), false).replace('|', "\\|"),
        }
    }

    fn bare(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Number(number) | Self::Bytes(number) => number.to_string(),
            Self::Length(millis) => text::length(*millis),
            Self::Flag(flag) => flag.to_string(),
            Self::Labels(labels) => {
                let pairs: Vec<String> =
                    labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
                pairs.join(",")
            }
            Self::Absent => String::new(),
        }
    }

    fn json(&self) -> Value {
        match self {
            Self::Text(text) => text.as_str().into(),
            Self::Number(number) | Self::Bytes(number) => (*number).into(),
            Self::Length(millis) => (*millis).into(),
            Self::Flag(flag) => (*flag).into(),
            Self::Labels(labels) => labels.clone().into_iter().collect(),
            Self::Absent => Value::Null,
        }
    }
}

/// A column: its title, and the name of its field in JSON.
pub(crate) type ColumnTitle = (&'static str, &'static str);

/// Rows below titles.
pub(crate) struct Table {
    columns: Vec<ColumnTitle>,
    rows: Vec<Vec<TableCell>>,
}

impl Table {
    /// An empty table.
    pub(crate) fn new(columns: &[ColumnTitle]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Adds a row, which has a cell for each column.
    pub(crate) fn push(&mut self, row: Vec<TableCell>) {
        debug_assert_eq!(row.len(), self.columns.len(), "{row:?}");
        self.rows.push(row);
    }

    /// Whether it has no row.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The rows as objects.
    pub(crate) fn json(&self) -> Value {
        let object = |row: &Vec<TableCell>| -> Value {
            let names = self.columns.iter().map(|(_, field)| (*field).to_owned());
            names.zip(row.iter().map(TableCell::json)).collect()
        };
        self.rows.iter().map(object).collect()
    }

    /// The table for people; columns of numbers are aligned to the right.
    fn drawn(&self) -> TextTable {
        let mut drawing = TextTable::new(self.columns.iter().map(|(title, _)| *title));
        for row in &self.rows {
            drawing.push(row.iter().map(TableCell::for_people));
        }
        for index in 0..self.columns.len() {
            let is_number = |row: &Vec<TableCell>| {
                matches!(row[index], TableCell::Number(_) | TableCell::Bytes(_) | TableCell::Absent)
            };
            if !self.rows.is_empty() && self.rows.iter().all(is_number) {
                drawing.align_right(index);
            }
        }
        drawing
    }

    /// The table as separated values; a cell is quoted if it contains the separator, a quote or a line break.
    fn separated(&self, separator: char) -> String {
        // Line breaks and separators are quoted; other control characters are escaped.
        let escaped = |cell: String| {
            let kept = |c: char| matches!(c, '\n' | '\r' | '\t');
            let escape = |part: &str| match part.chars().all(kept) {
                true => part.to_owned(),
                false => text::printable(part, false).into_owned(),
            };
            cell.split_inclusive(kept)
                .flat_map(|part| {
                    let end = part.trim_end_matches(kept).len();
                    [escape(&part[..end]), part[end..].to_owned()]
                })
                .collect::<String>()
        };
        let quoted = |cell: &TableCell| match escaped(cell.bare()) {
            cell if cell.contains([separator, '"', '\n', '\r']) => {
                format!("\"{}\"", cell.replace('"', "\"\""))
            }
            cell => cell,
        };
        let between = separator.to_string();
        let mut lines = vec![self.columns.iter().map(|(title, _)| *title).collect::<Vec<_>>().join(&between)];
        lines.extend(self.rows.iter().map(|row| row.iter().map(quoted).collect::<Vec<_>>().join(&between)));
        lines.join("\n")
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::error::Cause;

    /// Collects the output.
    #[derive(Clone, Default)]
    pub(crate) struct CapturedOutput(Arc<Mutex<Vec<u8>>>);

    impl CapturedOutput {
        /// The output so far.
        pub(crate) fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl Write for CapturedOutput {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Gone;

    impl Write for Gone {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
    }

    #[test]
    fn tables_are_drawn_for_people_and_separated_for_programs() {
        let mut table = Table::new(&[("NAME", "name"), ("#SERIES", "series"), ("SIZE", "sizeBytes")]);
        table.push(vec![TableCell::text("up"), TableCell::Number(1_234_567), TableCell::Bytes(2048)]);
        table.push(vec![TableCell::text("a,\"b\""), TableCell::Number(5), TableCell::Absent]);
        let print = |format| {
            let kept = CapturedOutput::default();
            Output::new(kept.clone()).table(&table, format).unwrap();
            kept.text()
        };
        assert_eq!(
            print(TableFormat::Table),
            "| NAME  |   #SERIES |     SIZE |\n\
             |-------|-----------|----------|\n\
             | up    | 1,234,567 | 2.00 KiB |\n\
             | a,\"b\" |         5 |        - |\n"
        );
        let kept = CapturedOutput::default();
        let mut narrow = Output { width: Some(28), ..Output::new(kept.clone()) };
        narrow.table(&table, TableFormat::Table).unwrap();
        assert!(
            kept.text().starts_with("NAME     up\n#SERIES  1,234,567\nSIZE     2.00 KiB\n\n"),
            "{}",
            kept.text()
        );
        assert_eq!(print(TableFormat::Csv), "NAME,#SERIES,SIZE\nup,1234567,2048\n\"a,\"\"b\"\"\",5,\n");
        let json: Value = serde_json::from_str(&print(TableFormat::Json)).unwrap();
        assert_eq!(json[0], serde_json::json!({"name": "up", "series": 1_234_567, "sizeBytes": 2048}));
        assert_eq!(json[1]["sizeBytes"], Value::Null);
    }

    #[test]
    fn a_closed_pipe_is_not_a_failure() {
        let mut output = Output::new(Gone);
        let error = output.line("x").unwrap_err();
        assert_eq!(error.cause(), Cause::ClosedPipe);
        assert_eq!(output.json(&[1]).unwrap_err().cause(), Cause::ClosedPipe);
    }
}
