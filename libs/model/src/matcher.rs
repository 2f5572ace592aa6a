//! Label matchers and how they meet external labels.

use std::fmt;

use crate::{Labels, Regex, RegexError};

/// How a matcher compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MatchOp {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `=~`, anchored at both ends
    Regex,
    /// `!~`, anchored at both ends
    NotRegex,
}

impl MatchOp {
    /// The operator as PromQL writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Regex => "=~",
            Self::NotRegex => "!~",
        }
    }
}

/// A matcher that cannot be built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("matcher {name}{}{value:?}: {cause}", op.as_str())]
pub struct MatcherError {
    name: String,
    op: MatchOp,
    value: String,
    cause: RegexError,
}

impl MatcherError {
    /// What is wrong with the expression, without the matcher around it.
    pub fn cause(&self) -> &RegexError {
        &self.cause
    }
}

/// One condition on a series' labels. A label that is absent has the empty value.
#[derive(Clone, Debug)]
pub struct Matcher {
    name: Box<str>,
    op: MatchOp,
    value: Box<str>,
    regex: Option<Regex>,
}

impl Matcher {
    /// Builds a matcher and compiles its expression, if it has one.
    ///
    /// # Errors
    /// When `op` is a regular expression that RE2 would refuse.
    pub fn new(op: MatchOp, name: &str, value: &str) -> Result<Self, MatcherError> {
        let regex =
            match op {
                MatchOp::Equal | MatchOp::NotEqual => None,
                MatchOp::Regex | MatchOp::NotRegex => Some(Regex::new(value).map_err(|cause| {
                    MatcherError { name: name.to_owned(), op, value: value.to_owned(), cause }
                })?),
            };
        Ok(Self { name: name.into(), op, value: value.into(), regex })
    }

    /// `name="value"`, which cannot fail.
    pub fn equal(name: &str, value: &str) -> Self {
        Self { name: name.into(), op: MatchOp::Equal, value: value.into(), regex: None }
    }

    /// Which label it looks at.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How it compares.
    pub fn op(&self) -> MatchOp {
        self.op
    }

    /// What it compares with: a value or an expression.
    pub fn value(&self) -> &str {
        &self.value
    }

    /// Memory of its compiled expression in bytes; 0 where it has none or needs none.
    pub fn regex_bytes(&self) -> usize {
        self.regex.as_ref().map_or(0, Regex::size_bytes)
    }

    /// The compiled expression of `=~` and `!~`; an index looks at what it begins with.
    pub fn regex(&self) -> Option<&Regex> {
        self.regex.as_ref()
    }

    /// Whether a label with this value (empty when absent) satisfies it.
    pub fn matches(&self, value: &str) -> bool {
        match (self.op, &self.regex) {
            (MatchOp::Equal, _) => *self.value == *value,
            (MatchOp::NotEqual, _) => *self.value != *value,
            (MatchOp::Regex, Some(regex)) => regex.is_match(value),
            (MatchOp::NotRegex, Some(regex)) => !regex.is_match(value),
            (MatchOp::Regex | MatchOp::NotRegex, None) => false,
        }
    }

    /// Whether `labels` satisfy it.
    pub fn matches_labels(&self, labels: &Labels) -> bool {
        self.matches(labels.value(&self.name))
    }

    /// Whether a series without the label satisfies it.
    pub fn matches_empty(&self) -> bool {
        self.matches("")
    }
}

impl PartialEq for Matcher {
    fn eq(&self, other: &Self) -> bool {
        (&self.name, self.op, &self.value) == (&other.name, other.op, &other.value)
    }
}

impl Eq for Matcher {}

impl std::hash::Hash for Matcher {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        (&self.name, self.op, &self.value).hash(state);
    }
}

impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}{:?}", self.name, self.op.as_str(), self.value)
    }
}

/// What is left of a request's matchers once a producer's external labels have answered theirs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExternalMatch {
    /// No series of this producer can match: the answer is empty, not an error.
    Nothing,
    /// These matchers are still to be applied to the producer's own series.
    Rest(Vec<Matcher>),
}

impl ExternalMatch {
    /// Splits `matchers` against `external`: satisfied ones are dropped, one that fails ends it.
    ///
    /// A matcher on a label that `external` lacks is kept. Because external labels override a series' own,
    /// a matcher that they answer must not reach the producer's storage.
    pub fn split(matchers: &[Matcher], external: &Labels) -> Self {
        let mut rest = Vec::with_capacity(matchers.len());
        for matcher in matchers {
            match external.get(matcher.name()) {
                None => rest.push(matcher.clone()),
                Some(value) if matcher.matches(value) => {}
                Some(_) => return Self::Nothing,
            }
        }
        Self::Rest(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matcher(op: MatchOp, value: &str) -> Matcher {
        Matcher::new(op, "job", value).unwrap()
    }

    #[test]
    fn expressions_are_anchored_at_both_ends_and_dot_matches_newline() {
        assert!(!matcher(MatchOp::Regex, "a").matches("ab"));
        assert!(!matcher(MatchOp::Regex, "a|b").matches("ab"));
        assert!(matcher(MatchOp::Regex, "a.b").matches("a\nb"));
        assert!(matcher(MatchOp::NotRegex, "a|b").matches("c"));
        assert!(matcher(MatchOp::Regex, "").matches(""));
    }

    #[test]
    fn a_bad_expression_names_the_matcher() {
        let error = Matcher::new(MatchOp::Regex, "job", "a(").unwrap_err().to_string();
        assert!(error.contains(r#"job=~"a(""#), "{error}");
    }

    #[test]
    fn external_labels_answer_their_matchers() {
        let external = Labels::from_pairs([("cluster", "eu-1")]).unwrap();
        let cluster = |op, value| Matcher::new(op, "cluster", value).unwrap();
        let job = Matcher::equal("job", "api");
        let split = |m: Matcher| ExternalMatch::split(&[m, job.clone()], &external);
        assert_eq!(split(cluster(MatchOp::Regex, "eu-.*")), ExternalMatch::Rest(vec![job.clone()]));
        assert_eq!(split(cluster(MatchOp::NotEqual, "us-1")), ExternalMatch::Rest(vec![job.clone()]));
        assert_eq!(split(cluster(MatchOp::Equal, "")), ExternalMatch::Nothing);
    }
}
