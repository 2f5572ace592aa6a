//! Finds the series that satisfy matchers.
//!
//! ```text
//! a matcher that a series without the label ...
//!   ... does not satisfy     the union of the lists of all values that match
//!   ... satisfies            all series but those of the lists of values that do not match
//! ```
//!
//! When the matcher lists its values, or a prefix of them, only these values are looked up; otherwise all values are tried.

use std::ops::ControlFlow;

use model::{MatchOp, Matcher};

use crate::error::BlockError;
use crate::index::{Index, ListPlace};
use crate::postings::Postings;

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
