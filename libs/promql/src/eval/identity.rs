//! Which info series a query needs: those of the instances and jobs of the series of a vector.
//!
//! Behaviour: `fetchInfoSeries` in Prometheus 3.14's `promql/info.go`.

use std::collections::BTreeSet;

use model::{Labels, MatchOp, Matcher};

/// The labels by which series and info series match.
pub(crate) const IDENTIFYING: [&str; 2] = ["instance", "job"];

/// Longest list of values that is sent to stores, in bytes of the regular expression: about 10,000 instances. Instead of a longer
/// list, all series that have the label are requested, and those that are not needed are dropped on arrival. Stores accept
/// longer lists, but each store parses and compiles the list, and a gRPC message has at most 4 MiB by default.
const MAX_LIST_BYTES: usize = 256 << 10;

/// The identities of series, each label by itself. So an info series with the instance of one series and the job of another is
/// fetched too, as in Prometheus.
#[derive(Debug, Default)]
pub(crate) struct Identities {
    /// The values of each identifying label; empty if no series has it.
    values: [BTreeSet<Box<str>>; 2],
}

impl Identities {
    /// Adds the identity of a series. Returns by how many bytes `self` has grown.
    pub(crate) fn add(&mut self, labels: &Labels) -> u64 {
        let mut bytes = 0;
        for (values, name) in self.values.iter_mut().zip(IDENTIFYING) {
            let value = labels.value(name);
            if !value.is_empty() && !values.contains(value) {
                values.insert(value.into());
                bytes += value.len() + size_of::<Box<str>>();
            }
        }
        bytes as u64
    }

    /// Whether there is no identity, so that no info series is needed.
    pub(crate) fn is_empty(&self) -> bool {
        self.values.iter().all(BTreeSet::is_empty)
    }

    /// Whether an info series may match a series.
    pub(crate) fn fits(&self, labels: &Labels) -> bool {
        let known = self.values.iter().zip(IDENTIFYING).filter(|(values, _)| !values.is_empty());
        known.into_iter().all(|(values, name)| values.contains(labels.value(name)))
    }

    /// The matchers for stores. They select all info series that [`fit`](Self::fits), and more if a list would be too long.
    pub(crate) fn matchers(&self) -> Vec<Matcher> {
        let known = self.values.iter().zip(IDENTIFYING).filter(|(values, _)| !values.is_empty());
        known.filter_map(|(values, name)| Matcher::new(MatchOp::Regex, name, &list(values)).ok()).collect()
    }
}

/// A regular expression for these values, which are not empty.
fn list(values: &BTreeSet<Box<str>>) -> String {
    let mut list = String::new();
    for value in values {
        if !list.is_empty() {
            list.push('|');
        }
        for letter in value.chars() {
            if r"\.+*?()|[]{}^$".contains(letter) {
                list.push('\\');
            }
            list.push(letter);
        }
        if list.len() > MAX_LIST_BYTES {
            return ".+".to_owned();
        }
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identities(series: &[&[(&str, &str)]]) -> Identities {
        let mut identities = Identities::default();
        for pairs in series {
            identities.add(&Labels::from_pairs(pairs.iter().copied()).unwrap());
        }
        identities
    }

    fn texts(identities: &Identities) -> Vec<String> {
        identities.matchers().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn each_value_is_requested_once_and_literally() {
        let found = identities(&[
            &[("instance", "b:1"), ("job", "x")],
            &[("instance", "a.c[1]|$^\\")],
            &[("instance", "b:1"), ("job", "ü{2}")],
        ]);
        assert_eq!(texts(&found), [r#"instance=~"a\\.c\\[1\\]\\|\\$\\^\\\\|b:1""#, r#"job=~"x|ü\\{2\\}""#]);
        let matchers = found.matchers();
        assert!(matchers[0].matches("a.c[1]|$^\\") && !matchers[0].matches("abc[1]|$^\\"));
        assert!(matchers[1].matches("ü{2}") && !matchers[1].matches("üü") && !matchers[1].matches(""));
    }

    #[test]
    fn a_label_that_no_series_has_is_not_requested() {
        assert!(identities(&[&[("pod", "p")], &[("job", "")]]).is_empty());
        let found = identities(&[&[("job", "x")], &[("pod", "p")]]);
        assert_eq!(texts(&found), [r#"job=~"x""#]);
        let fits = |pairs: &[(&str, &str)]| found.fits(&Labels::from_pairs(pairs.iter().copied()).unwrap());
        assert!(fits(&[("job", "x")]) && fits(&[("job", "x"), ("instance", "i")]));
        assert!(!fits(&[("job", "y")]) && !fits(&[("instance", "i")]));
    }

    #[test]
    fn a_list_that_is_too_long_is_replaced_by_any_value() {
        let many = |count: usize| {
            let mut identities = Identities::default();
            for n in 0..count {
                let labels = [("instance", format!("10.0.0.1-{n:07}:9090")), ("job", "node".to_owned())];
                identities.add(&Labels::from_pairs(labels).unwrap());
            }
            identities
        };
        let few = many(9_000);
        let [instance, job] = &few.matchers()[..] else { panic!("two labels are known") };
        assert!(instance.matches("10.0.0.1-0008999:9090") && !instance.matches("10.0.0.1-0009000:9090"));
        assert_eq!(job.value(), "node");
        let found = many(100_000);
        assert_eq!(texts(&found), [r#"instance=~".+""#, r#"job=~"node""#]);
        let fits = |instance: &str| {
            found.fits(&Labels::from_pairs([("instance", instance), ("job", "node")]).unwrap())
        };
        assert!(fits("10.0.0.1-0099999:9090") && !fits("10.0.0.1-0100000:9090"));
    }
}
