//! Label matchers, and their evaluation against external labels.

use std::fmt;

use crate::{Labels, METRIC_NAME, Regex, RegexError};

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

/// An error in a matcher: its expression cannot be compiled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("matcher {name}{}{value:?}: {cause}", op.as_str())]
pub struct MatcherError {
    name: String,
    op: MatchOp,
    value: String,
    cause: RegexError,
}

impl MatcherError {
    /// The error in the expression, without the matcher around it.
    pub fn cause(&self) -> &RegexError {
        &self.cause
    }
}

/// One condition on the labels of a series. An absent label has the empty value.
#[derive(Clone, Debug)]
pub struct Matcher {
    name: Box<str>,
    op: MatchOp,
    value: Box<str>,
    regex: Option<Regex>,
}

impl Matcher {
    /// Builds a matcher. Compiles its expression if `op` is `=~` or `!~`.
    ///
    /// # Errors
    /// If RE2 rejects the expression.
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

    /// The name of the label.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The comparison.
    pub fn op(&self) -> MatchOp {
        self.op
    }

    /// The value or expression to compare with.
    pub fn value(&self) -> &str {
        &self.value
    }

    /// Memory of the compiled expression in bytes. 0 if there is none, or if string comparisons replace it.
    pub fn regex_bytes(&self) -> usize {
        self.regex.as_ref().map_or(0, Regex::size_bytes)
    }

    /// The compiled expression of `=~` and `!~`. An index uses its literals and its prefix.
    pub fn regex(&self) -> Option<&Regex> {
        self.regex.as_ref()
    }

    /// Whether a label with this value satisfies the matcher. The value of an absent label is empty.
    pub fn matches(&self, value: &str) -> bool {
        match (self.op, &self.regex) {
            (MatchOp::Equal, _) => *self.value == *value,
            (MatchOp::NotEqual, _) => *self.value != *value,
            (MatchOp::Regex, Some(regex)) => regex.is_match(value),
            (MatchOp::NotRegex, Some(regex)) => !regex.is_match(value),
            (MatchOp::Regex | MatchOp::NotRegex, None) => false,
        }
    }

    /// Whether `labels` satisfy the matcher.
    pub fn matches_labels(&self, labels: &Labels) -> bool {
        self.matches(labels.value(&self.name))
    }

    /// Whether a series without the label satisfies the matcher.
    pub fn matches_empty(&self) -> bool {
        self.matches("")
    }

    /// Adds `__name__!=""` to `matchers` if each of them matches the empty string.
    ///
    /// Prometheus and Thanos reject such a list, because it may select everything. Each series that is scraped or recorded
    /// has a metric name, so the additional matcher does not change the result.
    pub fn require_name(matchers: &mut Vec<Self>) {
        if matchers.iter().all(Self::matches_empty) {
            matchers.push(Self {
                name: METRIC_NAME.into(),
                op: MatchOp::NotEqual,
                value: "".into(),
                regex: None,
            });
        }
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

/// The matchers of a request that remain after those on a producer's external labels were evaluated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExternalMatch {
    /// No series of this producer can match. The result is empty; this is not an error.
    Nothing,
    /// These matchers remain to be applied to the producer's own series.
    Rest(Vec<Matcher>),
}

impl ExternalMatch {
    /// Evaluates the `matchers` that concern `external`. Satisfied matchers are dropped. If one is not
    /// satisfied, the result is [`Nothing`](Self::Nothing).
    ///
    /// A matcher on a label that `external` lacks is kept. A matcher on an external label must not reach the
    /// producer's storage, because external labels override the labels of the series.
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
    fn a_list_that_matches_everything_gets_a_matcher_for_the_name() {
        let required = |mut matchers: Vec<Matcher>| {
            Matcher::require_name(&mut matchers);
            matchers.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let name = r#"__name__!="""#;
        assert_eq!(required(vec![]), [name]);
        assert_eq!(required(vec![matcher(MatchOp::NotEqual, "web")]), [r#"job!="web""#, name]);
        let both = vec![matcher(MatchOp::Regex, ".*"), matcher(MatchOp::Equal, "web")];
        assert_eq!(required(both), [r#"job=~".*""#, r#"job="web""#]);
    }

    #[test]
    fn matchers_on_external_labels_are_evaluated_and_dropped() {
        let external = Labels::from_pairs([("cluster", "eu-1")]).unwrap();
        let cluster = |op, value| Matcher::new(op, "cluster", value).unwrap();
        let job = Matcher::equal("job", "api");
        let split = |m: Matcher| ExternalMatch::split(&[m, job.clone()], &external);
        assert_eq!(split(cluster(MatchOp::Regex, "eu-.*")), ExternalMatch::Rest(vec![job.clone()]));
        assert_eq!(split(cluster(MatchOp::NotEqual, "us-1")), ExternalMatch::Rest(vec![job.clone()]));
        assert_eq!(split(cluster(MatchOp::Equal, "")), ExternalMatch::Nothing);
    }
}
