//! Warnings and infos while they are collected: one for each text, however many series caused it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::syntax::ast::Span;
use crate::text::{go_date, go_g, go_g2};
use crate::value::annotations::Annotations;
use crate::value::note::{ForMetric, ForcedMonotonicity, Note};

/// Most texts of one kind that are kept: the first in alphabetic order, whatever the order in which they come.
const MAX_TEXTS: usize = 1000;

/// Longest text, because names in data may be long. A longer one is cut off.
const MAX_TEXT_BYTES: usize = 1024;

/// Most texts of one kind that are counted in addition to those that are kept.
const MAX_OMITTED: usize = 10_000;

#[derive(Clone, Copy, Debug)]
struct NotePosition {
    span: Span,
    details: Option<ForcedMonotonicity>,
    /// How often it was added; `Some` if the line says so.
    occurrences: Option<u64>,
}

impl NotePosition {
    /// Merges with another position of the same note.
    fn merge(&mut self, other: &Self) {
        if let (Some(count), Some(more)) = (&mut self.occurrences, other.occurrences) {
            *count += more;
        }
        if let (Some(details), Some(more)) = (&mut self.details, &other.details) {
            details.merge(more);
        }
        // Operands come before their operator and, of several, left ones first.
        let order = |span: &Span| (span.end, Reverse(span.start));
        let counted = self.details.is_some() || self.occurrences.is_some();
        let choose = if counted { std::cmp::min_by_key } else { std::cmp::max_by_key };
        self.span = choose(self.span, other.span, order);
    }

    /// The finished line of a note with this text.
    fn line(&self, mut text: String, query: &str) -> String {
        if let Some(d) = self.details {
            // Writing into a string cannot fail.
            let _ = write!(
                text,
                ", from buckets {} to {}, with a max diff of {}, over {} samples from {} to {}",
                go_g(d.buckets.0),
                go_g(d.buckets.1),
                go_g2(d.max_diff),
                d.count,
                go_date(d.times.0),
                go_date(d.times.1)
            );
        }
        if let Some(count) = self.occurrences.filter(|count| *count > 1) {
            let _ = write!(text, " ({count} occurrences)");
        }
        let (line, column) = self.span.line_column(query);
        let _ = write!(text, " ({line}:{column})");
        text
    }
}

/// The notes of one worker or one query. Of several notes with the same text, the position that is evaluated last is kept, or
/// the first one if they are counted. It does not matter in which order they come.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    warnings: NotesOfKind,
    infos: NotesOfKind,
    text: String,
}

/// The warnings, or the infos.
#[derive(Debug, Default)]
struct NotesOfKind {
    places: BTreeMap<String, NotePosition>,
    /// Hashes of the texts that are not kept.
    omitted: HashSet<u64>,
}

impl NotesOfKind {
    fn insert(&mut self, text: &str, place: NotePosition) {
        if let Some(known) = self.places.get_mut(text) {
            known.merge(&place);
            return;
        }
        if self.places.len() < MAX_TEXTS {
            self.places.insert(text.to_owned(), place);
            return;
        }
        match self.places.last_entry().filter(|last| text < last.key().as_str()) {
            Some(last) => {
                let (last, _) = last.remove_entry();
                self.omit(&last);
                self.places.insert(text.to_owned(), place);
            }
            None => self.omit(text),
        }
    }

    fn omit(&mut self, text: &str) {
        if self.omitted.len() < MAX_OMITTED {
            let mut hasher = DefaultHasher::new();
            text.hash(&mut hasher);
            self.omitted.insert(hasher.finish());
        }
    }

    /// Adds what a worker has of this kind.
    fn merge(&mut self, other: Self) {
        for (text, place) in other.places {
            self.insert(&text, place);
        }
        for hash in other.omitted {
            if self.omitted.len() < MAX_OMITTED {
                self.omitted.insert(hash);
            }
        }
    }

    fn lines(self, query: &str) -> Vec<String> {
        let line = |(text, place): (String, NotePosition)| place.line(text, query);
        self.places.into_iter().map(line).collect()
    }
}

fn shorten(text: &mut String) {
    if text.len() > MAX_TEXT_BYTES {
        text.truncate(text.floor_char_boundary(MAX_TEXT_BYTES));
        text.push('…');
    }
}

impl Notes {
    /// Adds a note about the expression at `span`.
    pub(crate) fn add(&mut self, note: Note<'_>, span: Span) {
        self.add_times(note, span, 1);
    }

    /// Adds a note about the expression at `span` for each of `times` occurrences.
    pub(crate) fn add_times(&mut self, note: Note<'_>, span: Span, times: u64) {
        if times == 0 {
            return;
        }
        self.text.clear();
        // Writing into a string cannot fail.
        let _ = write!(self.text, "{note}");
        shorten(&mut self.text);
        let occurrences = matches!(note, Note::StartOverlap(_)).then_some(times);
        let kind = if note.is_warning() { &mut self.warnings } else { &mut self.infos };
        kind.insert(&self.text, NotePosition { span, details: None, occurrences });
    }

    /// Adds the info that buckets of the classic histogram `name` did not ascend.
    pub(crate) fn forced_monotonicity(&mut self, name: &str, span: Span, details: ForcedMonotonicity) {
        let mut text = format!(
            "PromQL info: input to histogram_quantile needed to be fixed for monotonicity (see \
             https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile){}",
            ForMetric(name)
        );
        shorten(&mut text);
        self.infos.insert(&text, NotePosition { span, details: Some(details), occurrences: None });
    }

    /// Adds the notes of a worker.
    pub(crate) fn merge(&mut self, other: Self) {
        self.warnings.merge(other.warnings);
        self.infos.merge(other.infos);
    }

    /// The finished lines; `query` is the text that the positions refer to.
    pub(crate) fn finish(self, query: &str) -> Annotations {
        let omitted = (self.warnings.omitted.len(), self.infos.omitted.len());
        Annotations { warnings: self.warnings.lines(query), infos: self.infos.lines(query), omitted }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_text_has_one_line_with_its_last_position() {
        let mut notes = Notes::default();
        notes.add(Note::PossibleNonCounter("up"), Span::new(8, 9));
        notes.add(Note::PossibleNonCounter("up"), Span::new(5, 7));
        notes.add(Note::InvalidQuantile(1.5), Span::new(0, 1));
        let found = notes.finish("rate(\n  up[5m])");
        assert_eq!(
            found.infos,
            ["PromQL info: metric might not be a counter, name does not end in \
              _total/_sum/_count/_bucket: \"up\" (2:3)"]
        );
        assert_eq!(
            found.warnings,
            ["PromQL warning: quantile value should be between 0 and 1, got 1.5 (1:1)"]
        );
    }

    #[test]
    fn of_many_texts_the_first_are_kept_and_the_rest_counted_in_any_order() {
        let name = |n: usize| format!("m{n:05}");
        let mut together = Notes::default();
        for from in [2, 0, 1] {
            let mut notes = Notes::default();
            for n in (0..3000).rev().filter(|n| n % 3 == from || n % 7 == 0) {
                notes.add(Note::NotCounter(&name(n)), Span::new(0, 1));
                notes.add(Note::PossibleNonCounter(&name(n % 20)), Span::new(0, 1));
            }
            together.merge(notes);
        }
        let found = together.finish("x");
        assert_eq!((found.warnings.len(), found.infos.len(), found.omitted), (1000, 20, (2000, 0)));
        assert!(found.warnings.iter().enumerate().all(|(n, line)| line.contains(&name(n))));
        let shown = found.limited(10);
        assert_eq!(shown.warnings[10], "2990 more warning annotations omitted");
        assert_eq!(shown.infos[10], "10 more info annotations omitted");
    }

    #[test]
    fn long_names_are_cut_off() {
        let mut notes = Notes::default();
        notes.add(Note::NotCounter(&"é".repeat(1 << 20)), Span::new(0, 1));
        let line = notes.finish("x").warnings.remove(0);
        assert!(line.len() < 1100 && line.ends_with("é… (1:1)"), "{line}");
    }

    #[test]
    fn overlaps_of_start_timestamps_are_counted() {
        let mut notes = Notes::default();
        let mut others = Notes::default();
        notes.add(Note::StartOverlap("a"), Span::new(0, 1));
        for _ in 0..2 {
            notes.add(Note::StartOverlap("b"), Span::new(0, 1));
            others.add(Note::StartOverlap("b"), Span::new(0, 1));
        }
        notes.merge(others);
        let text =
            "PromQL warning: sample has start time that overlaps with previous sample timestamp for metric";
        assert_eq!(
            notes.finish("x").warnings,
            [format!("{text} \"a\" (1:1)"), format!("{text} \"b\" (4 occurrences) (1:1)")]
        );
    }

    #[test]
    fn corrections_of_buckets_are_added_up() {
        let mut notes = Notes::default();
        let one = ForcedMonotonicity { times: (0, 0), buckets: (1.0, 2.0), max_diff: 5.0, count: 1 };
        notes.forced_monotonicity("", Span::default(), one);
        let other =
            ForcedMonotonicity { times: (60_000, 60_000), buckets: (0.5, 1.0), max_diff: 2.0, count: 1 };
        notes.forced_monotonicity("", Span::new(7, 8), other);
        let line = notes.finish("x").infos.remove(0);
        assert!(
            line.ends_with(
                ", from buckets 0.5 to 2, with a max diff of 5, over 2 samples from \
                 1970-01-01T00:00:00Z to 1970-01-01T00:01:00Z (1:1)"
            ),
            "{line}"
        );
    }
}
