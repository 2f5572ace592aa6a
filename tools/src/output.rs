//! What commands print to standard output: lines, tables for people, JSON and separated values for programs.

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write};

use comfy_table::presets::ASCII_MARKDOWN;
use comfy_table::{CellAlignment, Table as Drawing};
use serde::Serialize;
use serde_json::Value;

use crate::error::{Context, Result};

/// Where a command prints to; buffered, so call [`Output::flush`] at the end.
pub(crate) struct Output {
    to: Box<dyn Write + Send>,
}

impl Output {
    /// Standard output.
    pub(crate) fn stdout() -> Self {
        Self { to: Box::new(BufWriter::with_capacity(1 << 16, io::stdout())) }
    }

    /// Any other place.
    #[cfg(test)]
    pub(crate) fn new(to: impl Write + Send + 'static) -> Self {
        Self { to: Box::new(to) }
    }

    /// Prints a line.
    pub(crate) fn line(&mut self, text: impl std::fmt::Display) -> Result<()> {
        writeln!(self.to, "{text}").context("print")
    }

    /// Prints bytes as they are.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        self.to.write_all(bytes).context("print")
    }

    /// Prints a value as indented JSON.
    pub(crate) fn json(&mut self, value: &impl Serialize) -> Result<()> {
        let mut text = serde_json::to_vec_pretty(value)?;
        text.push(b'\n');
        self.bytes(&text)
    }

    /// Prints a table in the form that is wanted.
    pub(crate) fn table(&mut self, table: &Table, format: TableFormat) -> Result<()> {
        match format {
            TableFormat::Table => self.line(table.drawn()),
            TableFormat::Tsv => self.line(table.separated('\t')),
            TableFormat::Csv => self.line(table.separated(',')),
            TableFormat::Json => self.json(&table.json()),
        }
    }

    /// Hands all that was printed to the reader.
    ///
    /// # Errors
    /// The reader is gone or its disk is full.
    pub(crate) fn flush(&mut self) -> Result<()> {
        self.to.flush().context("print")
    }
}

/// How a table can be printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum TableFormat {
    /// Columns for people, which are a Markdown table too
    Table,
    /// Values separated by tabs
    Tsv,
    /// Values separated by commas
    Csv,
    /// A JSON list with an object for each row
    Json,
}

/// A value in a table. People see it with units, programs bare.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Cell {
    Text(String),
    Number(u64),
    /// A size in bytes.
    Bytes(u64),
    /// A length of time in milliseconds.
    Length(i64),
    Flag(bool),
    /// Labels by name.
    Labels(BTreeMap<String, String>),
    /// Not known, or it makes no sense here.
    Absent,
}

impl Cell {
    /// A text.
    pub(crate) fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    fn for_people(&self) -> String {
        match self {
            Self::Number(number) => grouped(&number.to_string()),
            Self::Bytes(bytes) => crate::text::size(*bytes),
            Self::Absent => "-".to_owned(),
            other => other.bare(),
        }
    }

    fn bare(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Number(number) | Self::Bytes(number) => number.to_string(),
            Self::Length(millis) => crate::text::length(*millis),
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

/// A column: what people read above it, and the name of the field in JSON.
pub(crate) type Column = (&'static str, &'static str);

/// Rows under a head.
pub(crate) struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// An empty table.
    pub(crate) fn new(columns: &[Column]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Adds a row, which has a cell for each column.
    pub(crate) fn push(&mut self, row: Vec<Cell>) {
        debug_assert_eq!(row.len(), self.columns.len(), "{row:?}");
        self.rows.push(row);
    }

    /// Whether it has no row.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The rows as objects.
    pub(crate) fn json(&self) -> Value {
        let object = |row: &Vec<Cell>| -> Value {
            let names = self.columns.iter().map(|(_, field)| (*field).to_owned());
            names.zip(row.iter().map(Cell::json)).collect()
        };
        self.rows.iter().map(object).collect()
    }

    /// The table for people: numbers stand to the right.
    fn drawn(&self) -> Drawing {
        let mut drawing = Drawing::new();
        drawing.load_style(ASCII_MARKDOWN).set_header(self.columns.iter().map(|(title, _)| *title));
        for row in &self.rows {
            drawing.add_row(row.iter().map(Cell::for_people));
        }
        for index in 0..self.columns.len() {
            let is_number =
                |row: &Vec<Cell>| matches!(row[index], Cell::Number(_) | Cell::Bytes(_) | Cell::Absent);
            let all_numbers = !self.rows.is_empty() && self.rows.iter().all(is_number);
            if let Some(column) = drawing.column_mut(index).filter(|_| all_numbers) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        drawing
    }

    /// The table with cells between separators; a cell that needs quotes gets them.
    fn separated(&self, separator: char) -> String {
        let quoted = |cell: &Cell| match cell.bare() {
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

/// `1234567` as `1,234,567`; anything but a bare number stays.
pub(crate) fn grouped(number: &str) -> String {
    if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) {
        return number.to_owned();
    }
    let mut text = String::with_capacity(number.len() * 4 / 3);
    for (index, digit) in number.chars().enumerate() {
        if index > 0 && (number.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::error::Cause;

    /// Keeps what is printed.
    #[derive(Clone, Default)]
    pub(crate) struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Kept {
        /// What was printed so far.
        pub(crate) fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl Write for Kept {
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
        table.push(vec![Cell::text("up"), Cell::Number(1_234_567), Cell::Bytes(2048)]);
        table.push(vec![Cell::text("a,\"b\""), Cell::Number(5), Cell::Absent]);
        let print = |format| {
            let kept = Kept::default();
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
        assert_eq!(print(TableFormat::Csv), "NAME,#SERIES,SIZE\nup,1234567,2048\n\"a,\"\"b\"\"\",5,\n");
        let json: Value = serde_json::from_str(&print(TableFormat::Json)).unwrap();
        assert_eq!(json[0], serde_json::json!({"name": "up", "series": 1_234_567, "sizeBytes": 2048}));
        assert_eq!(json[1]["sizeBytes"], Value::Null);
    }

    #[test]
    fn a_reader_that_is_gone_is_no_failure() {
        let mut output = Output::new(Gone);
        let error = output.line("x").unwrap_err();
        assert_eq!(error.cause(), Cause::ClosedPipe);
        assert_eq!(output.json(&[1]).unwrap_err().cause(), Cause::ClosedPipe);
    }
}
