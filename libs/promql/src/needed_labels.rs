//! Which labels of the series of a select can matter to the answer, and how a driver leaves out the rest.

use std::collections::BTreeSet;
use std::fmt;

use model::Labels;

use crate::functions::label::is_reserved;

/// The labels of a select's series whose values can matter to the answer. The number and the order of series always matter.
///
/// A driver may leave out all other labels, series by series, with a [trimmer](Self::trimmer). It must still offer each
/// series by itself, although several may have equal labels then, and in the order of their complete labels. Answers and
/// annotations are the same. Only the text of an error about a damaged chunk names a series by fewer labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NeededLabels {
    /// Only these.
    Only(BTreeSet<String>),
    /// All but these.
    AllBut(BTreeSet<String>),
}

/// Most labels that are listed.
const MAX_NAMES: usize = 100;

impl Default for NeededLabels {
    /// All.
    fn default() -> Self {
        Self::AllBut(BTreeSet::new())
    }
}

impl NeededLabels {
    /// None at all, as for `count(m)`.
    pub(crate) fn none() -> Self {
        Self::Only(BTreeSet::new())
    }

    /// Whether a label is needed.
    pub fn contains(&self, name: &str) -> bool {
        match self {
            Self::Only(names) => names.contains(name),
            Self::AllBut(names) => !names.contains(name),
        }
    }

    /// Whether nothing may be left out.
    pub fn is_all(&self) -> bool {
        matches!(self, Self::AllBut(names) if names.is_empty())
    }

    /// The same without name, type and unit, for display.
    pub(crate) fn unreserved(&self) -> Self {
        let mut shown = self.clone();
        let (Self::Only(names) | Self::AllBut(names)) = &mut shown;
        names.retain(|name| !is_reserved(name));
        shown
    }

    /// These and `names`.
    pub(crate) fn and<'a>(self, names: impl IntoIterator<Item = &'a str>) -> Self {
        let names = names.into_iter().map(str::to_owned).collect();
        self.union(Self::Only(names))
    }

    /// The labels that either of them needs. All labels if that is a long list: an expression may have thousands of operators.
    pub(crate) fn union(self, other: Self) -> Self {
        use NeededLabels::{AllBut, Only};
        let union = match (self, other) {
            (Only(mut a), Only(b)) => {
                a.extend(b);
                Only(a)
            }
            (AllBut(a), AllBut(b)) => AllBut(a.intersection(&b).cloned().collect()),
            (AllBut(mut a), Only(b)) | (Only(b), AllBut(mut a)) => {
                a.retain(|name| !b.contains(name));
                AllBut(a)
            }
        };
        match &union {
            Only(names) | AllBut(names) if names.len() > MAX_NAMES => Self::default(),
            _ => union,
        }
    }

    /// A trimmer for the series of one select. It must be given these in the order in which they are offered.
    ///
    /// ```
    /// use model::Labels;
    /// use promql::{EngineOptions, Query, QueryParams};
    ///
    /// let params = QueryParams::instant(model::Timestamp::EPOCH);
    /// let query = Query::plan("sum by (job) (up)", &params, &EngineOptions::default())?;
    /// let mut trimmer = query.selects()[0].hints.labels.trimmer();
    /// let whole = Labels::from_pairs([("__name__", "up"), ("instance", "a:1"), ("job", "api")]).unwrap();
    /// assert_eq!(trimmer.trim(whole).to_string(), r#"up{job="api"}"#);
    /// # Ok::<(), promql::QueryError>(())
    /// ```
    pub fn trimmer(&self) -> Trimmer<'_> {
        Trimmer { needed: self, stopped: self.is_all() }
    }
}

impl fmt::Display for NeededLabels {
    /// As `instance, job`, `all but pod` or `none`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (word, names) = match self {
            Self::Only(names) if names.is_empty() => ("none", names),
            Self::Only(names) => ("", names),
            Self::AllBut(names) if names.is_empty() => ("all", names),
            Self::AllBut(names) => ("all but ", names),
        };
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        write!(f, "{word}{}", names.join(", "))
    }
}

/// Removes labels that are not needed from the series of one select.
///
/// Two series of one metric can become equal when the name of the metric is dropped, if one of them has a type or unit and
/// the other does not. Only all of their labels together show whether they do. Of two such series, the one with a type or unit
/// comes first, as long as labels that sort before `__unit__` are kept. So the trimmer removes nothing any more once a series
/// with a type or unit has come.
#[derive(Clone, Debug)]
pub struct Trimmer<'a> {
    needed: &'a NeededLabels,
    stopped: bool,
}

impl Trimmer<'_> {
    /// The labels of the next series, without those that are not needed.
    pub fn trim(&mut self, labels: Labels) -> Labels {
        let typed = |name: &str| is_reserved(name) && name != model::METRIC_NAME;
        self.stopped = self.stopped || labels.iter().any(|label| typed(label.name));
        let removed = |name: &str| name > "__unit__" && !self.needed.contains(name);
        if self.stopped || !labels.iter().any(|label| removed(label.name)) {
            return labels;
        }
        labels.without(removed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn only(names: &[&str]) -> NeededLabels {
        NeededLabels::none().and(names.iter().copied())
    }

    fn all_but(names: &[&str]) -> NeededLabels {
        NeededLabels::AllBut(names.iter().map(|name| (*name).to_owned()).collect())
    }

    #[test]
    fn a_union_needs_the_labels_of_both() {
        assert_eq!(only(&["a"]).union(only(&["b"])), only(&["a", "b"]));
        assert_eq!(only(&["a"]).union(all_but(&["a", "b"])), all_but(&["b"]));
        assert_eq!(all_but(&["a", "b"]).union(only(&["b", "c"])), all_but(&["a"]));
        assert_eq!(all_but(&["a", "b"]).union(all_but(&["b", "c"])), all_but(&["b"]));
        assert!(all_but(&["a"]).union(only(&["a"])).is_all());
        assert!(all_but(&["a"]).contains("b") && !all_but(&["a"]).contains("a"));
        let many: Vec<String> = (0..101).map(|n| n.to_string()).collect();
        assert!(!only(&[]).and(many[1..].iter().map(String::as_str)).is_all());
        assert!(only(&[]).and(many.iter().map(String::as_str)).is_all());
        let texts = [only(&[]), only(&["b", "a"]), all_but(&["a"]), all_but(&[])].map(|set| set.to_string());
        assert_eq!(texts, ["none", "a, b", "all but a", "all"]);
    }

    #[test]
    fn labels_are_removed_until_a_series_has_a_type_or_unit() {
        let needed = only(&["job"]);
        let mut trimmer = needed.trimmer();
        let mut trim = |pairs: &[(&str, &str)]| {
            trimmer.trim(Labels::from_pairs(pairs.iter().copied()).unwrap()).to_string()
        };
        assert_eq!(trim(&[("__name__", "m"), ("instance", "a"), ("job", "x")]), r#"m{job="x"}"#);
        assert_eq!(trim(&[("Zone", "z"), ("__name__", "m"), ("pod", "p")]), r#"m{Zone="z"}"#);
        let typed = [("__name__", "m"), ("__type__", "gauge"), ("instance", "b")];
        assert_eq!(trim(&typed), r#"m{__type__="gauge", instance="b"}"#);
        assert_eq!(trim(&[("__name__", "m"), ("instance", "c")]), r#"m{instance="c"}"#);
    }
}
