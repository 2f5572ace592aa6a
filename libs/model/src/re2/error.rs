//! Why an expression is rejected.

/// A regular expression that RE2 rejects. The message is the one that Go prints.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("error parsing regexp: {why}: `{part}`")]
pub struct RegexError {
    why: &'static str,
    /// The part of the expression that is wrong, or the whole expression.
    part: String,
}

impl RegexError {
    pub(super) fn new(why: &'static str, part: &str) -> Self {
        Self { why, part: part.to_owned() }
    }
}
