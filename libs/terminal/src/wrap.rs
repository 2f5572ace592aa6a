//! A text in lines.

use unicode_width::UnicodeWidthStr;

/// The columns that a text takes.
pub(crate) fn columns(text: &str) -> usize {
    text.width()
}

/// The parts of a text between which a line may end: after a space, and after a comma, which lists of labels have no space after.
/// A comma within a number is no such place.
pub(crate) fn parts(text: &str) -> impl Iterator<Item = &str> {
    let bytes = text.as_bytes();
    let is_digit = move |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
    let is_end = move |at: &usize| bytes[*at] == b' ' || !(*at > 0 && is_digit(at - 1) && is_digit(at + 1));
    let ends = text.match_indices([' ', ',']).map(|(at, _)| at).filter(is_end).map(|at| at + 1);
    let mut start = 0;
    ends.chain(std::iter::once(text.len())).filter_map(move |end| {
        let part = &text[start..end];
        start = end;
        (!part.is_empty()).then_some(part)
    })
}

/// The text in lines of at most `width` columns; a longer word has a line of its own. Line breaks are kept, and other spaces
/// within lines.
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for paragraph in text.split('\n') {
        let mut line = String::new();
        for part in parts(paragraph) {
            if !line.is_empty() && columns(&line) + columns(part.trim_end()) > width {
                lines.push(std::mem::take(&mut line).trim_end().to_owned());
            }
            line.push_str(part);
        }
        lines.push(line.trim_end().to_owned());
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::wrap;

    #[test]
    fn lines_end_after_words_and_commas() {
        let check =
            |text: &str, width, expected: &[&str]| assert_eq!(wrap(text, width), expected, "{text:?}");
        check("", 10, &[""]);
        check("one two three", 13, &["one two three"]);
        check("one two three", 12, &["one two", "three"]);
        check("one two three", 7, &["one two", "three"]);
        check("cluster=eu-1,replica=a", 15, &["cluster=eu-1,", "replica=a"]);
        check("01JGFSEP807TV4R0WQK0JSHSBN is whole", 10, &["01JGFSEP807TV4R0WQK0JSHSBN", "is whole"]);
        check("of 1,234,567 samples", 7, &["of", "1,234,567", "samples"]);
        check("a\n\nb  c", 10, &["a", "", "b  c"]);
        // Two columns for each of these characters.
        check("度量 度量", 5, &["度量", "度量"]);
    }
}
