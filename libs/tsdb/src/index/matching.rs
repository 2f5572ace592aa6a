//! Finds the series that satisfy matchers.
//!
//! ```text
//! a matcher that a series without the label ...
//!   ... does not satisfy     the union of the lists of all values that match
//!   ... satisfies            all series but those of the lists of values that do not match
//! ```
//!
//! When the matcher lists its values, or a prefix of them, only these values are looked up; otherwise all values are tried.
//!
//! Lists may be larger than the entries of the series that they exclude: `pod!=""` has a list for each pod. Where reading is
//! expensive, [`Index::matching_lazily`] leaves such matchers to the caller, who compares the labels of the series.

use std::ops::ControlFlow;

use model::{MatchOp, Matcher};

use crate::error::BlockError;
use crate::index::{Index, ListPlace};
use crate::postings::Postings;

/// Lists of at most this many bytes are always read: one request more would not be cheaper.
const SMALL_BYTES: u64 = 16 << 10;

/// The lists that a matcher needs.
struct MatcherLists<'a> {
    matcher: &'a Matcher,
    /// Whether the lists have the series that satisfy the matcher; otherwise those that do not.
    wanted: bool,
    lists: Vec<ListPlace>,
    /// Bytes of the lists.
    bytes: u64,
    /// Most series in the lists.
    series: u64,
}

impl<'a> MatcherLists<'a> {
    fn new(matcher: &'a Matcher, wanted: bool, lists: Vec<ListPlace>) -> Self {
        let bytes = lists.iter().map(|list| list.limit - list.offset).sum::<u64>();
        let series = (bytes / 4).saturating_sub(3 * lists.len() as u64);
        Self { matcher, wanted, lists, bytes, series }
    }
}

impl Index {
    /// The series that satisfy all of `matchers`; all series without matchers.
    ///
    /// # Errors
    /// When a list that is needed, or the table of them, is damaged or cannot be read.
    pub fn matching(&self, matchers: &[Matcher]) -> Result<Postings, BlockError> {
        // Matchers that need one list come first: if it is empty, nothing else is read.
        let mut matchers: Vec<&Matcher> = matchers.iter().filter(|m| !is_any(m)).collect();
        matchers.sort_by_key(|m| (m.matches_empty(), m.op() != MatchOp::Equal));
        let mut found: Option<Postings> = None;
        for matcher in matchers {
            if found.as_ref().is_some_and(Postings::is_empty) {
                break;
            }
            let wanted = !matcher.matches_empty();
            let lists = self.lists_of_values(matcher, wanted)?;
            let listed = self.read_union(lists)?;
            found = Some(match found {
                None if wanted => listed,
                None => self.all_postings()?.difference(&listed),
                Some(found) if wanted => found.intersect(&listed),
                Some(found) => found.difference(&listed),
            });
        }
        found.map_or_else(|| self.all_postings(), Ok)
    }

    /// The series that satisfy those of `matchers` whose postings lists are worth reading, and the other matchers. The series
    /// that satisfy all of `matchers` are those of the result whose labels satisfy the other matchers.
    ///
    /// A matcher is left to the caller when its lists have more bytes than the entries of the series that they exclude are
    /// expected to have. All lists are read at once, so that an index in a bucket answers after one round trip.
    ///
    /// # Errors
    /// As [`Index::matching`].
    pub fn matching_lazily<'a>(
        &self,
        matchers: &'a [Matcher],
    ) -> Result<(Postings, Vec<&'a Matcher>), BlockError> {
        let mut groups = Vec::new();
        for matcher in matchers.iter().filter(|matcher| !is_any(matcher)) {
            let wanted = !matcher.matches_empty();
            let lists = self.lists_of_values(matcher, wanted)?;
            if lists.is_empty() && wanted {
                return Ok((Postings::empty(), Vec::new()));
            }
            if !lists.is_empty() {
                groups.push(MatcherLists::new(matcher, wanted, lists));
            }
        }
        let (worthy, left) = self.split_by_cost(groups)?;
        let matchers_left = left.iter().map(|group| group.matcher).collect();
        let wanted: Vec<bool> = worthy.iter().map(|group| group.wanted).collect();
        let has_base = wanted.contains(&true);
        let mut lists: Vec<Vec<ListPlace>> = worthy.into_iter().map(|group| group.lists).collect();
        if !has_base {
            lists.push(self.table.lookup("", "")?.into_iter().collect());
        }
        let read = self.read_unions(lists)?;
        let mut bases: Vec<&Postings> = Vec::new();
        let mut excluded: Vec<&Postings> = Vec::new();
        for (index, series) in read.iter().enumerate() {
            match wanted.get(index) {
                Some(false) => excluded.push(series),
                Some(true) | None => bases.push(series),
            }
        }
        bases.sort_by_key(|series| series.len());
        let Some((first, more)) = bases.split_first() else { return Ok((Postings::empty(), Vec::new())) };
        let found = more.iter().fold((*first).clone(), |found, more| found.intersect(more));
        let found = excluded.iter().fold(found, |found, excluded| found.difference(excluded));
        Ok((found, matchers_left))
    }

    /// Splits `groups` into those whose lists cost less than the entries that they exclude, and the others.
    fn split_by_cost<'a>(
        &self,
        mut groups: Vec<MatcherLists<'a>>,
    ) -> Result<(Vec<MatcherLists<'a>>, Vec<MatcherLists<'a>>), BlockError> {
        let all = self.series_count()?.max(1);
        let bounds = self.series_bounds();
        let entry_bytes = (bounds.end - bounds.start) / all;
        // What the cheapest matcher leaves is what further lists can exclude from.
        groups.sort_by_key(|group| (!group.wanted, group.series));
        let (mut worthy, mut left) = (Vec::new(), Vec::new());
        let mut candidates = all;
        for group in groups {
            let kept = if group.wanted { group.series.min(all) } else { all - group.series.min(all) };
            let excluded = (u128::from(candidates) * u128::from(all - kept) / u128::from(all)) as u64;
            // Without another list, all series must be read instead: four bytes each.
            let instead = if candidates == all { 4 * all } else { 0 };
            if group.bytes <= SMALL_BYTES.max(excluded.saturating_mul(entry_bytes) + instead) {
                candidates =
                    candidates.min((u128::from(candidates) * u128::from(kept) / u128::from(all)) as u64 + 1);
                worthy.push(group);
            } else {
                left.push(group);
            }
        }
        Ok((worthy, left))
    }

    /// The lists of all values of the matcher's label that match, or of all that do not.
    fn lists_of_values(&self, matcher: &Matcher, wanted: bool) -> Result<Vec<ListPlace>, BlockError> {
        let name = matcher.name();
        let mut lists = Vec::new();
        if name.is_empty() {
            return Ok(lists);
        }
        // Whether the values to find are those that `=` or `=~` matches, also when the matcher is `!=` or `!~`.
        let positive = matches!(matcher.op(), MatchOp::Equal | MatchOp::Regex) == wanted;
        let mut prefix = "";
        if positive {
            match matcher.regex() {
                None => return Ok(self.table.lookup(name, matcher.value())?.into_iter().collect()),
                Some(regex) => {
                    if let Some(literals) = regex.literals() {
                        for value in literals {
                            lists.extend(self.table.lookup(name, value)?);
                        }
                        return Ok(lists);
                    }
                    prefix = regex.prefix();
                }
            }
        }
        self.table.for_each(name, prefix, &mut |value, place| {
            if !value.starts_with(prefix) {
                return ControlFlow::Break(());
            }
            if matcher.matches(value) == wanted {
                lists.push(place);
            }
            ControlFlow::Continue(())
        })?;
        Ok(lists)
    }
}

/// Whether the matcher is one that every series satisfies.
fn is_any(matcher: &Matcher) -> bool {
    matcher.op() == MatchOp::Regex && matcher.value() == ".*"
}
