//! Numbers label names and values until their order in the index is known.

use std::collections::HashMap;

use model::Labels;

use crate::writer::error::WriteError;

/// A label and the number of series that have it.
pub(super) struct LabelNumbers {
    /// Number of the name's text.
    pub(super) name: u32,
    /// Number of the value's text.
    pub(super) value: u32,
    pub(super) series: u32,
}

/// Texts and labels, numbered in the order of their first use.
#[derive(Default)]
pub(super) struct LabelTable {
    texts: HashMap<Box<str>, u32>,
    numbers: HashMap<(u32, u32), u32>,
    pairs: Vec<LabelNumbers>,
    /// The series before and the numbers of its labels: most labels are the same as in the series before.
    last: Labels,
    last_pairs: Vec<u32>,
}

impl LabelTable {
    /// The numbers of the labels of a series, in their order. Counts the series for each of them.
    pub(super) fn add(&mut self, labels: &Labels) -> Result<&[u32], WriteError> {
        let last = std::mem::replace(&mut self.last, labels.clone());
        let last_pairs = std::mem::take(&mut self.last_pairs);
        let mut before = last.iter().zip(last_pairs).peekable();
        for label in labels {
            while before.next_if(|(other, _)| other.name < label.name).is_some() {}
            let number = match before.next_if(|(other, _)| *other == label) {
                Some((_, number)) => number,
                None => {
                    let (name, value) = (self.text(label.name)?, self.text(label.value)?);
                    self.pair(name, value)?
                }
            };
            self.pairs[number as usize].series += 1;
            self.last_pairs.push(number);
        }
        Ok(&self.last_pairs)
    }

    fn text(&mut self, text: &str) -> Result<u32, WriteError> {
        if let Some(&number) = self.texts.get(text) {
            return Ok(number);
        }
        let number = u32::try_from(self.texts.len())
            .map_err(|_| WriteError::TooLarge("more than 2^32 label texts"))?;
        self.texts.insert(text.into(), number);
        Ok(number)
    }

    fn pair(&mut self, name: u32, value: u32) -> Result<u32, WriteError> {
        let next =
            u32::try_from(self.pairs.len()).map_err(|_| WriteError::TooLarge("more than 2^32 labels"))?;
        let number = *self.numbers.entry((name, value)).or_insert(next);
        if number == next {
            self.pairs.push(LabelNumbers { name, value, series: 0 });
        }
        Ok(number)
    }

    /// All texts, sorted; for each number, the index in them; and all labels by number.
    pub(super) fn finish(self) -> (Vec<Box<str>>, Vec<u32>, Vec<LabelNumbers>) {
        drop(self.numbers);
        let mut sorted: Vec<(Box<str>, u32)> = self.texts.into_iter().collect();
        sorted.sort_unstable();
        let mut places = vec![0; sorted.len()];
        for (place, (_, number)) in sorted.iter().enumerate() {
            places[*number as usize] = place as u32;
        }
        (sorted.into_iter().map(|(text, _)| text).collect(), places, self.pairs)
    }
}
