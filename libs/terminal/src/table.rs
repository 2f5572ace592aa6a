//! A table for people.

use crate::wrap::{columns, parts, wrap};

/// How a table is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableStyle {
    /// Columns with two spaces between them.
    Plain,
    /// A table in Markdown.
    Markdown,
}

/// Rows of text below titles.
///
/// Within a width, the widest columns become narrower and their cells have several lines, except those of numbers. Where even the
/// longest words of all columns do not fit beside each other, each row becomes a list of fields, one below the other. A word is never cut, so that
/// it can be copied.
#[derive(Clone, Debug)]
pub struct TextTable {
    titles: Vec<String>,
    right: Vec<bool>,
    rows: Vec<Vec<String>>,
}

impl TextTable {
    /// An empty table.
    pub fn new<'a>(titles: impl IntoIterator<Item = &'a str>) -> Self {
        let titles: Vec<String> = titles.into_iter().map(str::to_owned).collect();
        Self { right: vec![false; titles.len()], titles, rows: Vec::new() }
    }

    /// Adds a row. Missing cells are empty, and cells without a title are left out.
    pub fn push(&mut self, cells: impl IntoIterator<Item = String>) {
        let mut row: Vec<String> = cells.into_iter().take(self.titles.len()).collect();
        row.resize(self.titles.len(), String::new());
        self.rows.push(row);
    }

    /// Aligns a column to the right, for numbers.
    pub fn align_right(&mut self, column: usize) {
        if let Some(right) = self.right.get_mut(column) {
            *right = true;
        }
    }

    /// The lines of the table. Without a width, each row is one line.
    pub fn draw(&self, style: TableStyle, width: Option<usize>) -> String {
        let natural = self.widths(columns);
        let frame = match style {
            TableStyle::Plain => 2 * self.titles.len().saturating_sub(1),
            TableStyle::Markdown => 3 * self.titles.len() + 1,
        };
        let Some(width) = width else { return self.grid(style, &natural) };
        let longest_words =
            self.widths(|cell| parts(cell).map(|part| columns(part.trim_end())).max().unwrap_or(0));
        // A number that is broken, as after its comma, is easily read as two.
        let whole =
            |(column, words): (usize, usize)| if self.right[column] { natural[column] } else { words };
        let least: Vec<usize> = longest_words.into_iter().enumerate().map(whole).collect();
        match fitted(natural, &least, width.saturating_sub(frame)) {
            Some(widths) => self.grid(style, &widths),
            None => self.list(width),
        }
    }

    /// The largest measure of each column, of its title and its cells.
    fn widths(&self, measure: impl Fn(&str) -> usize) -> Vec<usize> {
        let of = |column: usize| {
            let cells = self.rows.iter().map(|row| row[column].as_str());
            cells.map(&measure).chain([columns(&self.titles[column])]).max().unwrap_or(0)
        };
        (0..self.titles.len()).map(of).collect()
    }

    fn grid(&self, style: TableStyle, widths: &[usize]) -> String {
        let mut lines = grid_row(style, &self.titles, widths, &self.right);
        if style == TableStyle::Markdown {
            let rule: Vec<String> = widths.iter().map(|width| "-".repeat(width + 2)).collect();
            lines.push(format!("|{}|", rule.join("|")));
        }
        lines.extend(self.rows.iter().flat_map(|row| grid_row(style, row, widths, &self.right)));
        lines.join("\n")
    }

    /// Each row as fields, one below the other, and an empty line between rows.
    fn list(&self, width: usize) -> String {
        let label = self.titles.iter().map(|title| columns(title)).max().unwrap_or(0);
        let row = |row: &Vec<String>| {
            let field = |(title, cell): (&String, &String)| {
                let lines = wrap(cell, width.saturating_sub(label + 2));
                let titles = std::iter::once(title.as_str()).chain(std::iter::repeat(""));
                let lines =
                    titles.zip(lines).map(|(title, line)| format!("{}  {line}", padded(title, label, false)));
                lines.map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
            };
            self.titles.iter().zip(row).map(field).collect::<Vec<_>>().join("\n")
        };
        match self.rows.is_empty() {
            true => wrap(&self.titles.join("  "), width).join("\n"),
            false => self.rows.iter().map(row).collect::<Vec<_>>().join("\n\n"),
        }
    }
}

/// The widths of columns that fit into `width` together: the widest ones become narrower, but not narrower than `least`.
fn fitted(mut widths: Vec<usize>, least: &[usize], width: usize) -> Option<Vec<usize>> {
    if least.iter().sum::<usize>() > width {
        return None;
    }
    while widths.iter().sum::<usize>() > width {
        let can_shrink = widths.iter_mut().zip(least).filter(|(width, least)| **width > **least);
        let (widest, _) = can_shrink.max_by_key(|(width, _)| **width)?;
        *widest -= 1;
    }
    Some(widths)
}

/// A row in as many lines as its cell with the most lines.
fn grid_row(style: TableStyle, row: &[String], widths: &[usize], right: &[bool]) -> Vec<String> {
    let cells: Vec<Vec<String>> = row.iter().zip(widths).map(|(cell, width)| wrap(cell, *width)).collect();
    let height = cells.iter().map(Vec::len).max().unwrap_or(0);
    let line = |at: usize| {
        let parts =
            cells.iter().zip(widths).zip(right).map(|((cell, width), right)| {
                padded(cell.get(at).map_or("", String::as_str), *width, *right)
            });
        let parts: Vec<String> = parts.collect();
        match style {
            TableStyle::Plain => parts.join("  ").trim_end().to_owned(),
            TableStyle::Markdown => format!("| {} |", parts.join(" | ")),
        }
    };
    (0..height).map(line).collect()
}

fn padded(text: &str, width: usize, right: bool) -> String {
    let space = " ".repeat(width.saturating_sub(columns(text)));
    if right { format!("{space}{text}") } else { format!("{text}{space}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> TextTable {
        let mut table = TextTable::new(["ULID", "#SERIES", "LABELS"]);
        table.push(["01JGFSEP807TV4R0WQK0JSHSBN", "1,000", "cluster=eu-1,replica=a"].map(str::to_owned));
        table.push(["01JGG0ADG0ENP012HXH85WH8QQ", "20", "cluster=us-1"].map(str::to_owned));
        table.align_right(1);
        table
    }

    #[test]
    fn without_a_width_each_row_is_one_line() {
        assert_eq!(
            table().draw(TableStyle::Markdown, None),
            "| ULID                       | #SERIES | LABELS                 |\n\
             |----------------------------|---------|------------------------|\n\
             | 01JGFSEP807TV4R0WQK0JSHSBN |   1,000 | cluster=eu-1,replica=a |\n\
             | 01JGG0ADG0ENP012HXH85WH8QQ |      20 | cluster=us-1           |"
        );
        assert_eq!(
            table().draw(TableStyle::Plain, Some(100)),
            "ULID                        #SERIES  LABELS\n\
             01JGFSEP807TV4R0WQK0JSHSBN    1,000  cluster=eu-1,replica=a\n\
             01JGG0ADG0ENP012HXH85WH8QQ       20  cluster=us-1"
        );
    }

    #[test]
    fn cells_have_several_lines_where_a_row_is_too_wide() {
        assert_eq!(
            table().draw(TableStyle::Plain, Some(54)),
            "ULID                        #SERIES  LABELS\n\
             01JGFSEP807TV4R0WQK0JSHSBN    1,000  cluster=eu-1,\n\
             \x20                                    replica=a\n\
             01JGG0ADG0ENP012HXH85WH8QQ       20  cluster=us-1"
        );
    }

    #[test]
    fn rows_become_lists_where_the_words_do_not_fit() {
        assert_eq!(
            table().draw(TableStyle::Markdown, Some(40)),
            "ULID     01JGFSEP807TV4R0WQK0JSHSBN\n\
             #SERIES  1,000\n\
             LABELS   cluster=eu-1,replica=a\n\
             \n\
             ULID     01JGG0ADG0ENP012HXH85WH8QQ\n\
             #SERIES  20\n\
             LABELS   cluster=us-1"
        );
    }

    #[test]
    fn numbers_are_not_broken() {
        let mut numbers = TextTable::new(["A", "B"]);
        numbers.push(["a b c d", "1,234,567"].map(str::to_owned));
        numbers.align_right(1);
        assert_eq!(numbers.draw(TableStyle::Plain, Some(14)), "A            B\na b  1,234,567\nc d");
        assert_eq!(numbers.draw(TableStyle::Plain, Some(11)), "A  a b c d\nB  1,234,567");
    }

    #[test]
    fn no_line_is_wider_than_the_terminal_unless_a_word_is() {
        for width in 20..200 {
            for style in [TableStyle::Plain, TableStyle::Markdown] {
                let drawn = table().draw(style, Some(width));
                let longest_word = "#SERIES  01JGFSEP807TV4R0WQK0JSHSBN".len();
                let too_wide = drawn.lines().find(|line| columns(line) > width.max(longest_word));
                assert_eq!(too_wide, None, "{width}");
                assert_eq!(drawn.matches("01JGG0ADG0ENP012HXH85WH8QQ").count(), 1);
            }
        }
    }
}
