//! Finds series that become equal because external labels override their labels.

use std::collections::{BTreeSet, HashSet};

use model::Labels;

use crate::upstream::PrometheusFacts;

/// Finds the series of one answer that become equal. Their samples are then mixed, which only the configuration of Prometheus
/// can prevent.
#[derive(Debug)]
pub(crate) struct EqualSeries {
    external: Labels,
    /// Hashes of the label sets up to now.
    seen: HashSet<u64>,
    /// Names of overridden labels.
    overridden: BTreeSet<String>,
    count: u64,
    example: Option<Labels>,
}

impl EqualSeries {
    /// `None` if no series has a label with the name of an external label.
    pub(crate) fn of(facts: &PrometheusFacts) -> Option<Self> {
        facts.external.iter().any(|label| facts.stored_names.contains(label.name)).then(|| Self {
            external: facts.external.clone(),
            seen: HashSet::new(),
            overridden: BTreeSet::new(),
            count: 0,
            example: None,
        })
    }

    /// Adds a series with the labels that Prometheus sent. Each series must be added once.
    pub(crate) fn add(&mut self, received: &Labels) {
        let labels = received.extended(&self.external);
        if labels != *received {
            let differs = self
                .external
                .iter()
                .filter(|label| received.get(label.name).is_some_and(|stored| stored != label.value));
            self.overridden.extend(differs.map(|label| label.name.to_owned()));
        }
        if !self.seen.insert(labels.shard_hash(|_| true)) {
            self.count += 1;
            self.example.get_or_insert(labels);
        }
    }

    /// Number of series that are equal to an earlier one.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// The warning for the answer of the Prometheus at `url`; `None` if all series differ.
    pub(crate) fn warning(&self, url: &str) -> Option<String> {
        let example = self.example.as_ref()?;
        let names = Vec::from_iter(self.overridden.iter().map(String::as_str)).join(", ");
        Some(format!(
            "{url}: {} series became equal to others because external labels override their labels {names}, for example \
             {example}; their samples are mixed; rename these labels in Prometheus with metric_relabel_configs",
            self.count
        ))
    }
}
