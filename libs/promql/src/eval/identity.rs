//! Which info series a query needs: those of the instances and jobs that the series of a vector come from.
//!
//! Behaviour: `fetchInfoSeries` in Prometheus 3.14's `promql/info.go`.

use std::collections::BTreeSet;

use model::{Labels, MatchOp, Matcher};

/// The labels by which a series finds its info series.
pub(crate) const IDENTIFYING: [&str; 2] = ["instance", "job"];

/// Longest list of values that stores are asked for, in bytes of the regular expression: some 10,000 instances. Beyond
/// it they are asked for all series that have the label, and what is not needed is dropped on arrival. Stores take more,
/// but each of them reads and compiles the list, and a gRPC message has 4 MiB by default.
const MAX_LIST_BYTES: usize = 256 << 10;

/// The identities of series, each label by itself: where both are known, an info series of the instance of one and the
/// job of another is fetched too, as in Prometheus.
#[derive(Debug, Default)]
pub(crate) struct Identities {
    /// For each identifying label its values; none where no series has it.
    values: [BTreeSet<Box<str>>; 2],
}

impl Identities {
    /// Adds that of a series, and tells by how many bytes this has grown.
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

    /// Whether there is none, so that no info series is needed.
    pub(crate) fn is_empty(&self) -> bool {
        self.values.iter().all(BTreeSet::is_empty)
    }

    /// Whether an info series may belong to some series.
    pub(crate) fn fits(&self, labels: &Labels) -> bool {
        let known = self.values.iter().zip(IDENTIFYING).filter(|(values, _)| !values.is_empty());
        known.into_iter().all(|(values, name)| values.contains(labels.value(name)))
    }

    /// What stores are asked for. It lets all through that [`fits`](Self::fits), and more where lists would be too long.
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
    fn values_are_asked_for_as_they_are_and_once() {
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
    fn a_label_that_no_series_has_is_not_asked_for() {
        assert!(identities(&[&[("pod", "p")], &[("job", "")]]).is_empty());
        let found = identities(&[&[("job", "x")], &[("pod", "p")]]);
        assert_eq!(texts(&found), [r#"job=~"x""#]);
        let fits = |pairs: &[(&str, &str)]| found.fits(&Labels::from_pairs(pairs.iter().copied()).unwrap());
        assert!(fits(&[("job", "x")]) && fits(&[("job", "x"), ("instance", "i")]));
        assert!(!fits(&[("job", "y")]) && !fits(&[("instance", "i")]));
    }

    #[test]
    fn a_list_that_is_too_long_becomes_any_value() {
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
