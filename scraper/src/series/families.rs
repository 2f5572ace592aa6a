//! What a target says about its metrics.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use head::Metadata;
use model::MetricKind;

/// Metadata of a metric are kept for so many scrapes after it was there last, as in Prometheus.
const KEPT_SCRAPES: u64 = 10;

/// Type, help and unit of the metrics of a target, for its loop to write and for others to read. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct TargetMetadata(Arc<Mutex<HashMap<Box<str>, Family>>>);

#[derive(Debug, Default)]
struct Family {
    metadata: Metadata,
    /// The scrape in which it was there last, and the one in which it was different from the one before.
    seen: u64,
    changed: u64,
}

/// The metric that a line of an exposition is about.
#[derive(Clone, Debug, Default)]
pub(super) struct CurrentFamily {
    pub(super) name: Box<str>,
    pub(super) metadata: Metadata,
    /// Whether it is different from the scrape before.
    pub(super) is_changed: bool,
}

impl TargetMetadata {
    /// The metrics with their metadata, sorted by their names.
    pub fn list(&self) -> Vec<(String, Metadata)> {
        let families = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut listed: Vec<(String, Metadata)> =
            families.iter().map(|(name, family)| (name.to_string(), family.metadata.clone())).collect();
        listed.sort();
        listed
    }

    /// Notes what a line says about a metric, and makes it the current one.
    pub(super) fn note(
        &self,
        scrape: u64,
        name: &str,
        current: &mut CurrentFamily,
        set: impl FnOnce(&mut Metadata),
    ) {
        let mut families = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !families.contains_key(name) {
            families.insert(name.into(), Family { changed: scrape, ..Family::default() });
        }
        let Some(family) = families.get_mut(name) else { return };
        family.seen = scrape;
        let before = family.metadata.clone();
        set(&mut family.metadata);
        if family.metadata != before {
            family.changed = scrape;
        }
        if *current.name != *name {
            current.name = name.into();
        }
        current.metadata = family.metadata.clone();
        current.is_changed = family.changed == scrape;
    }

    /// Forgets metrics that have not been there for long.
    pub(super) fn forget_old(&self, scrape: u64) {
        let mut families = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        families.retain(|_, family| family.seen + KEPT_SCRAPES >= scrape);
    }
}

impl CurrentFamily {
    /// Whether a series with this name belongs to the metric.
    pub(super) fn has(&self, name: &str) -> bool {
        let ends: &[&str] = match self.metadata.kind {
            MetricKind::Counter => &["_total"],
            MetricKind::Histogram => &["_bucket", "_sum", "_count"],
            MetricKind::GaugeHistogram => &["_bucket", "_gsum", "_gcount"],
            MetricKind::Summary => &["_sum", "_count"],
            MetricKind::Info => &["_info"],
            _ => &[],
        };
        let family = match self.metadata.kind {
            // Some name the metric with its end.
            MetricKind::Counter => self.name.strip_suffix("_total").unwrap_or(&self.name),
            MetricKind::Info => self.name.strip_suffix("_info").unwrap_or(&self.name),
            _ => &self.name,
        };
        name.strip_prefix(family).is_some_and(|end| end.is_empty() || ends.contains(&end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_belong_to_the_metric_whose_name_they_have() {
        let check = |kind: MetricKind, family: &str, name: &str, expected: bool| {
            let metadata = Metadata { kind, ..Metadata::default() };
            let current = CurrentFamily { name: family.into(), metadata, is_changed: false };
            assert_eq!(current.has(name), expected, "{kind:?} {family} {name}");
        };
        check(MetricKind::Counter, "a", "a_total", true);
        check(MetricKind::Counter, "a_total", "a_total", true);
        check(MetricKind::Counter, "a", "a", true);
        check(MetricKind::Counter, "a", "a_sum", false);
        check(MetricKind::Counter, "a", "ab", false);
        check(MetricKind::Histogram, "a", "a_bucket", true);
        check(MetricKind::Histogram, "a", "a_bucket_sum", false);
        check(MetricKind::Summary, "a", "a_count", true);
        check(MetricKind::Summary, "a", "a_bucket", false);
        check(MetricKind::GaugeHistogram, "a", "a_gsum", true);
        check(MetricKind::Info, "a", "a_info", true);
        check(MetricKind::Gauge, "a", "a", true);
        check(MetricKind::Gauge, "a", "b", false);
        check(MetricKind::Gauge, "", "b", false);
    }

    #[test]
    fn metadata_are_kept_for_ten_scrapes_and_changes_are_known() {
        let (metadata, mut current) = (TargetMetadata::default(), CurrentFamily::default());
        let help = |text: &'static str| move |metadata: &mut Metadata| metadata.help = text.into();
        metadata.note(1, "a", &mut current, help("one"));
        assert!(current.is_changed);
        metadata.note(2, "a", &mut current, help("one"));
        assert!(!current.is_changed);
        metadata.note(3, "a", &mut current, help("two"));
        assert!(current.is_changed && &*current.metadata.help == "two");
        metadata.forget_old(13);
        assert_eq!(metadata.list().len(), 1);
        metadata.forget_old(14);
        assert!(metadata.list().is_empty());
    }
}
