//! Label sets: sorted, unique, immutable, one allocation each.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Range;
use std::sync::Arc;

/// The label that contains the metric name of a series.
pub const METRIC_NAME: &str = "__name__";

/// A name and its value, borrowed from a [`Labels`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label<'a> {
    /// Never empty inside a [`Labels`].
    pub name: &'a str,
    /// Never empty inside a [`Labels`]: an empty value means "no such label".
    pub value: &'a str,
}

/// Why a list of pairs is not a label set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LabelsError {
    /// A name occurs twice.
    #[error("label {0:?} occurs twice in one label set")]
    Duplicate(String),
    /// A name is the empty string.
    #[error("empty label name (value {0:?})")]
    EmptyName(String),
}

/// A label set: pairs sorted by name, names unique, neither names nor values empty.
///
/// All text is in one shared allocation, so a clone costs a reference count and a comparison reads two
/// buffers. The encoding is private: each string is preceded by its length in base-64 digits that are ASCII.
/// The whole buffer is therefore valid UTF-8 without `unsafe`.
///
/// Label sets are ordered as by Prometheus' `labels.Compare`: label by label, first by name, then by value,
/// bytewise. A set that is a prefix of another sorts first.
///
/// ```
/// let labels = model::Labels::from_pairs([("job", "api"), ("__name__", "up")]).unwrap();
/// assert_eq!(labels.get("job"), Some("api"));
/// assert_eq!(labels.to_string(), r#"up{job="api"}"#);
/// ```
#[derive(Clone)]
pub struct Labels {
    text: Arc<str>,
}

const MORE: u8 = 0b0100_0000;
const DIGIT: usize = 0b0011_1111;

fn push_str(text: &mut String, part: &str) {
    let mut left = part.len();
    while left > DIGIT {
        text.push(char::from(MORE | (left & DIGIT) as u8));
        left >>= 6;
    }
    text.push(char::from(left as u8));
    text.push_str(part);
}

/// Splits the first string off `text`, which was written by [`push_str`].
fn split_str(text: &str) -> (&str, &str) {
    let string = string_at(text.as_bytes(), 0);
    text[string.start..].split_at(string.end - string.start)
}

/// The bytes of the string whose length is at `at` in `text`, which was written by [`push_str`].
fn string_at(text: &[u8], mut at: usize) -> Range<usize> {
    let (mut length, mut shift) = (0usize, 0u32);
    loop {
        let digit = text[at];
        length |= (usize::from(digit) & DIGIT) << shift;
        at += 1;
        if digit & MORE == 0 {
            return at..at + length;
        }
        shift += 6;
    }
}

/// Number of bytes with which both begin.
fn common_bytes(a: &[u8], b: &[u8]) -> usize {
    const STEP: usize = 16;
    let (a_steps, b_steps) = (a.as_chunks::<STEP>().0, b.as_chunks::<STEP>().0);
    let steps = a_steps.iter().zip(b_steps).take_while(|(a, b)| a == b).count() * STEP;
    steps + a[steps..].iter().zip(&b[steps..]).take_while(|(a, b)| a == b).count()
}

/// The labels of a [`Labels`] in order.
#[derive(Clone)]
pub struct Iter<'a> {
    left: &'a str,
}

impl<'a> Iterator for Iter<'a> {
    type Item = Label<'a>;
    fn next(&mut self) -> Option<Label<'a>> {
        if self.left.is_empty() {
            return None;
        }
        let (name, rest) = split_str(self.left);
        let (value, rest) = split_str(rest);
        self.left = rest;
        Some(Label { name, value })
    }
}

impl Labels {
    /// The label set without labels.
    pub fn empty() -> Self {
        Self { text: Arc::from("") }
    }

    /// Builds a set from pairs in any order. Pairs with an empty value are dropped.
    ///
    /// # Errors
    /// If a name is empty or occurs twice.
    pub fn from_pairs<N, V>(pairs: impl IntoIterator<Item = (N, V)>) -> Result<Self, LabelsError>
    where
        N: AsRef<str>,
        V: AsRef<str>,
    {
        let mut pairs: Vec<(N, V)> = pairs.into_iter().collect();
        if !pairs.is_sorted_by(|a, b| a.0.as_ref() < b.0.as_ref()) {
            pairs.sort_by(|a, b| a.0.as_ref().cmp(b.0.as_ref()));
        }
        if let Some(twice) = pairs.windows(2).find(|w| w[0].0.as_ref() == w[1].0.as_ref()) {
            return Err(LabelsError::Duplicate(twice[0].0.as_ref().to_owned()));
        }
        if let Some((_, value)) = pairs.iter().find(|(name, _)| name.as_ref().is_empty()) {
            return Err(LabelsError::EmptyName(value.as_ref().to_owned()));
        }
        let bytes = pairs.iter().map(|(n, v)| n.as_ref().len() + v.as_ref().len() + 4).sum();
        Ok(Self::encode(bytes, pairs.iter().map(|(n, v)| Label { name: n.as_ref(), value: v.as_ref() })))
    }

    /// Encodes labels that are already sorted and unique. Drops those with an empty value.
    fn encode<'a>(capacity: usize, sorted: impl Iterator<Item = Label<'a>>) -> Self {
        let mut text = String::with_capacity(capacity);
        for label in sorted.filter(|l| !l.value.is_empty()) {
            push_str(&mut text, label.name);
            push_str(&mut text, label.value);
        }
        Self { text: Arc::from(text) }
    }

    /// The labels, sorted by name.
    pub fn iter(&self) -> Iter<'_> {
        Iter { left: &self.text }
    }

    /// Number of labels.
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// Whether there is no label.
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Bytes of text in memory, which all clones share.
    pub fn size_bytes(&self) -> usize {
        self.text.len()
    }

    /// The value of `name`, or `None` if the set has no such label.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().take_while(|l| l.name <= name).find(|l| l.name == name).map(|l| l.value)
    }

    /// The value of `name`, or the empty string, as matchers treat an absent label.
    pub fn value(&self, name: &str) -> &str {
        self.get(name).unwrap_or("")
    }

    /// The metric name, or the empty string.
    pub fn metric_name(&self) -> &str {
        self.value(METRIC_NAME)
    }

    /// This set without the labels whose name `drop` accepts.
    pub fn without(&self, drop: impl Fn(&str) -> bool) -> Self {
        if !self.iter().any(|l| drop(l.name)) {
            return self.clone();
        }
        Self::encode(self.text.len(), self.iter().filter(|l| !drop(l.name)))
    }

    /// This set with only the labels whose name `keep` accepts.
    pub fn only(&self, keep: impl Fn(&str) -> bool) -> Self {
        self.without(|name| !keep(name))
    }

    /// This set extended by `other`. A label of `other` replaces the label of the same name.
    ///
    /// External labels are attached this way: they always override the labels of the series.
    pub fn extended(&self, other: &Self) -> Self {
        if other.is_empty() {
            return self.clone();
        }
        let (mut mine, mut theirs) = (self.iter().peekable(), other.iter().peekable());
        let merged = std::iter::from_fn(move || match (mine.peek(), theirs.peek()) {
            (Some(a), Some(b)) => match a.name.cmp(b.name) {
                Ordering::Less => mine.next(),
                Ordering::Greater => theirs.next(),
                Ordering::Equal => {
                    mine.next();
                    theirs.next()
                }
            },
            (Some(_), None) => mine.next(),
            (None, _) => theirs.next(),
        });
        Self::encode(self.text.len() + other.text.len(), merged)
    }

    /// Whether the first labels of this set are those of `other`.
    pub fn starts_with(&self, other: &Self) -> bool {
        self.text.starts_with(&*other.text)
    }

    /// A builder that starts from this set.
    pub fn to_builder(&self) -> LabelsBuilder {
        LabelsBuilder { pairs: self.iter().map(|l| (l.name.to_owned(), l.value.to_owned())).collect() }
    }

    /// xxHash64 over `name 0xff value 0xff` of the labels whose name `include` accepts, in order.
    ///
    /// StoreAPI shards series by this hash, so the client and the store must compute the same.
    pub fn shard_hash(&self, include: impl Fn(&str) -> bool) -> u64 {
        let mut hash = xxhash_rust::xxh64::Xxh64::new(0);
        for label in self.iter().filter(|l| include(l.name)) {
            hash.update(label.name.as_bytes());
            hash.update(&[0xff]);
            hash.update(label.value.as_bytes());
            hash.update(&[0xff]);
        }
        hash.digest()
    }
}

impl Default for Labels {
    fn default() -> Self {
        Self::empty()
    }
}

impl PartialEq for Labels {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Labels {}

impl Hash for Labels {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

impl PartialOrd for Labels {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Labels {
    /// Neighbours in a block share most of their labels. So the common bytes are skipped, and only the first strings that differ are
    /// compared.
    fn cmp(&self, other: &Self) -> Ordering {
        let (mine, theirs) = (self.text.as_bytes(), other.text.as_bytes());
        let common = common_bytes(mine, theirs);
        if common == mine.len() || common == theirs.len() {
            return mine.len().cmp(&theirs.len());
        }
        let mut at = 0;
        loop {
            let string = string_at(mine, at);
            if common < string.end {
                return mine[string].cmp(&theirs[string_at(theirs, at)]);
            }
            at = string.end;
        }
    }
}

impl<'a> IntoIterator for &'a Labels {
    type Item = Label<'a>;
    type IntoIter = Iter<'a>;
    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

/// Whether `name` is a label name that Prometheus before version 3 accepts: `[a-zA-Z_][a-zA-Z0-9_]*`.
pub fn is_legacy_label_name(name: &str) -> bool {
    is_bare(name, false)
}

/// Whether `name` can be written without quotes in PromQL.
fn is_bare(name: &str, metric: bool) -> bool {
    !name.is_empty()
        && name.bytes().enumerate().all(|(i, b)| {
            b == b'_' || b.is_ascii_alphabetic() || (metric && b == b':') || (i > 0 && b.is_ascii_digit())
        })
}

/// Writes the set as a PromQL selector: `up{job="api"}`. Names that need quotes are quoted.
impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let metric = self.metric_name();
        let bare = is_bare(metric, true);
        if bare {
            f.write_str(metric)?;
        }
        let mut first = true;
        let mut separator = |f: &mut fmt::Formatter<'_>| {
            let text = if std::mem::take(&mut first) { "{" } else { ", " };
            f.write_str(text)
        };
        if !bare && !metric.is_empty() {
            separator(f)?;
            write!(f, "{metric:?}")?;
        }
        for label in self.iter().filter(|l| l.name != METRIC_NAME) {
            separator(f)?;
            if is_bare(label.name, false) {
                write!(f, "{}={:?}", label.name, label.value)?;
            } else {
                write!(f, "{:?}={:?}", label.name, label.value)?;
            }
        }
        match (first, metric.is_empty()) {
            (false, _) => f.write_str("}"),
            (true, true) => f.write_str("{}"),
            (true, false) => Ok(()),
        }
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Changes a label set, then builds the new one.
#[derive(Clone, Debug, Default)]
pub struct LabelsBuilder {
    pairs: Vec<(String, String)>,
}

impl LabelsBuilder {
    /// A builder of the empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets `name` to `value`; an empty value removes the label.
    pub fn set(&mut self, name: &str, value: &str) -> &mut Self {
        match self.pairs.iter_mut().find(|(n, _)| n == name) {
            Some(pair) => value.clone_into(&mut pair.1),
            None => self.pairs.push((name.to_owned(), value.to_owned())),
        }
        self
    }

    /// Removes `name`.
    pub fn remove(&mut self, name: &str) -> &mut Self {
        self.pairs.retain(|(n, _)| n != name);
        self
    }

    /// Builds the label set from the current pairs.
    pub fn build(&self) -> Labels {
        let mut sorted: Vec<Label<'_>> =
            self.pairs.iter().map(|(name, value)| Label { name, value }).collect();
        sorted.sort_unstable();
        Labels::encode(64, sorted.into_iter().filter(|l| !l.name.is_empty()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        Labels::from_pairs(pairs.iter().copied()).unwrap()
    }

    #[test]
    fn strings_of_any_length_are_preserved() {
        for length in [1, 63, 64, 4095, 4096, 300_000] {
            let value = "é".repeat(length);
            let set = labels(&[("a", &value), ("b", "x")]);
            assert_eq!(set.get("a"), Some(value.as_str()));
            assert_eq!(set.get("b"), Some("x"));
        }
    }

    #[test]
    fn order_is_label_by_label_and_a_prefix_sorts_first() {
        let sorted = [
            labels(&[]),
            labels(&[("a", "1")]),
            labels(&[("a", "1"), ("b", "1")]),
            labels(&[("a", "10")]),
            labels(&[("a", "2")]),
            labels(&[("aa", "1")]),
        ];
        assert!(sorted.is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn order_and_prefixes_are_those_of_the_lists_of_labels() {
        let mut random = 1_u64;
        let mut below = |bound: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % bound
        };
        // Few letters and lengths around those at which the encoding of a length grows, so that many sets begin alike.
        let mut text = || {
            let length = [1, 2, 15, 16, 17, 62, 63, 64, 65, 130][below(10) as usize];
            (0..length).map(|_| ["a", "a", "a", "b", "é"][below(5) as usize]).collect::<String>()
        };
        let mut sets: Vec<Labels> = Vec::new();
        for _ in 0..400 {
            let names: std::collections::BTreeSet<String> = (0..3).map(|_| text()).collect();
            let pairs: Vec<(String, String)> = names.into_iter().map(|name| (name, text())).collect();
            sets.extend((0..=pairs.len()).map(|count| Labels::from_pairs(pairs[..count].to_vec()).unwrap()));
        }
        for (a, b) in sets.iter().flat_map(|a| sets.iter().map(move |b| (a, b))) {
            assert_eq!(a.cmp(b), a.iter().cmp(b.iter()), "{a} and {b}");
            assert_eq!(a.starts_with(b), b.iter().eq(a.iter().take(b.len())), "{a} and {b}");
        }
    }

    #[test]
    fn extending_labels_replace_labels_of_the_same_name() {
        let series = labels(&[("a", "1"), ("cluster", "liar"), ("z", "9")]);
        let external = labels(&[("cluster", "eu-1"), ("replica", "0")]);
        let expected = labels(&[("a", "1"), ("cluster", "eu-1"), ("replica", "0"), ("z", "9")]);
        assert_eq!(series.extended(&external), expected);
        assert_eq!(series.without(|n| n == "cluster"), labels(&[("a", "1"), ("z", "9")]));
    }

    #[test]
    fn empty_values_are_dropped_and_duplicates_are_rejected() {
        assert_eq!(labels(&[("a", ""), ("b", "1")]), labels(&[("b", "1")]));
        assert_eq!(Labels::from_pairs([("a", "1"), ("a", "2")]), Err(LabelsError::Duplicate("a".to_owned())));
        assert!(Labels::from_pairs([("", "1")]).is_err());
        assert_eq!(labels(&[("a", "1")]).to_builder().set("a", "").build(), Labels::empty());
    }

    #[test]
    fn shard_hash_is_the_hash_of_the_store_api() {
        let set = labels(&[("a", "1"), ("b", "2"), ("c", "3")]);
        let expected = xxhash_rust::xxh64::xxh64(b"a\xff1\xffb\xff2\xff", 0);
        assert_eq!(set.shard_hash(|n| n != "c"), expected);
    }

    #[test]
    fn legacy_names_are_ascii_letters_digits_and_underscores() {
        for (name, expected) in [
            ("__name__", true),
            ("a1", true),
            ("1a", false),
            ("a.b", false),
            ("ä", false),
            ("a:b", false),
            ("", false),
        ] {
            assert_eq!(is_legacy_label_name(name), expected, "{name:?}");
        }
    }

    #[test]
    fn names_that_need_quotes_are_quoted() {
        assert_eq!(labels(&[("__name__", "a.b"), ("x.y", "1")]).to_string(), r#"{"a.b", "x.y"="1"}"#);
        assert_eq!(labels(&[]).to_string(), "{}");
        assert_eq!(labels(&[("__name__", "up")]).to_string(), "up");
    }
}
