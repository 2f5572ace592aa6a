//! The series of a block that matchers select, from the cache or from its index.

use std::fmt::Write;
use std::sync::Arc;

use model::Matcher;
use tsdb::BlockError;

use crate::blocks::OpenBlock;
use crate::cache::{Cache, Expanded};

/// The series of `open` that satisfy `matchers`. It blocks the thread while the bucket answers.
///
/// # Errors
/// When the index cannot be read.
pub(crate) fn expand(
    open: &OpenBlock,
    matchers: &[Matcher],
    cache: &Cache,
) -> Result<Arc<Expanded>, BlockError> {
    let text = text_of(matchers);
    if let Some(expanded) = cache.postings(open.known.key, &text) {
        return Ok(expanded);
    }
    let (postings, left) = open.block.index().matching_lazily(matchers)?;
    // A copy: the list of a single matcher is a slice, which would keep the memory of all that was read with it.
    let postings = postings.iter().collect();
    let expanded = Arc::new(Expanded { postings, left: left.into_iter().cloned().collect() });
    cache.put_postings(open.known.key, &text, Arc::clone(&expanded));
    Ok(expanded)
}

/// A text that is different for different matchers.
fn text_of(matchers: &[Matcher]) -> String {
    let mut text = String::new();
    for matcher in matchers {
        let (name, op, value) = (matcher.name(), matcher.op().as_str(), matcher.value());
        // Writing to a `String` cannot fail.
        let _ = write!(text, "{}{name}{op}{}{value}", name.len(), value.len());
    }
    text
}

#[cfg(test)]
mod tests {
    use model::MatchOp;

    use super::*;

    #[test]
    fn different_matchers_have_different_texts() {
        let matcher = |op, name: &str, value: &str| Matcher::new(op, name, value).unwrap();
        let sets = [
            vec![],
            vec![matcher(MatchOp::Equal, "a", "b")],
            vec![matcher(MatchOp::Equal, "a", "b1c=1d")],
            vec![matcher(MatchOp::Equal, "a", "b"), matcher(MatchOp::Equal, "c", "d")],
            vec![matcher(MatchOp::NotEqual, "a", "b")],
            vec![matcher(MatchOp::Regex, "a", "b")],
        ];
        let texts: std::collections::BTreeSet<String> = sets.iter().map(|set| text_of(set)).collect();
        assert_eq!(texts.len(), sets.len());
    }
}
