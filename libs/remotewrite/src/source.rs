//! Reads the log, and makes of it what is sent.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::sync::Arc;

use head::{Head, LogEntries, LogFollower, LogPosition, LogSample, LogValue, Metadata};
use model::{Labels, MetricKind, Relabeling, Timestamp};

use crate::item::{Content, Counts, Item, Kind, SentSeries};

/// What is sent of the log, and with which labels.
#[derive(Clone, Debug)]
pub(crate) struct SentRules {
    pub(crate) external: Labels,
    pub(crate) relabeling: Relabeling,
    pub(crate) exemplars: bool,
    pub(crate) histograms: bool,
}

/// A series of the log.
struct Known {
    /// None if it is dropped.
    sent: Option<Arc<SentSeries>>,
    /// The segment that names it.
    segment: u32,
}

/// Reads the log from a place on.
pub(crate) struct Source {
    follower: LogFollower,
    rules: SentRules,
    series: HashMap<u64, Known>,
    metadata: HashSet<Arc<Metadata>>,
    /// The segment at which old series were forgotten last.
    cleaned: u32,
}

/// What was read.
#[derive(Debug)]
pub(crate) struct Window {
    pub(crate) items: Vec<Item>,
    /// Where it ends.
    pub(crate) end: LogPosition,
    /// Whether the log has more.
    pub(crate) has_more: bool,
    /// Dropped by relabelling.
    pub(crate) dropped: Counts,
    /// Dropped because the log does not name their series.
    pub(crate) unknown: Counts,
    /// The newest sample.
    pub(crate) newest: Option<Timestamp>,
}

impl Window {
    /// An empty one that begins here.
    pub(crate) fn new(begin: LogPosition) -> Self {
        let (dropped, unknown) = Default::default();
        Self { items: Vec::new(), end: begin, has_more: false, dropped, unknown, newest: None }
    }
}

impl Source {
    /// Reads the series of the log, and what comes after `from`. Returns the place where it begins: the log may no longer have `from`.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub(crate) fn open(head: &Head, rules: SentRules, from: LogPosition) -> io::Result<(Self, LogPosition)> {
        let follower = head.follow_log()?;
        let begin = follower.position();
        let end = head.log_end();
        // A place after the end is one of another log.
        let from = if from > end { begin } else { from.max(begin) };
        let (series, metadata) = Default::default();
        let mut source = Self { follower, rules, series, metadata, cleaned: begin.segment };
        while let Some(entries) = source.follower.next_record(from)? {
            // Samples before were sent.
            source.learn(entries);
        }
        let from = source.follower.position().max(from);
        Ok((source, from))
    }

    /// Parts of the log that could not be read.
    pub(crate) fn damaged(&self) -> u64 {
        self.follower.damaged()
    }

    /// Reads on until there are `most` items, and one record more at most; or up to `end`.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub(crate) fn read(&mut self, window: &mut Window, most: usize, end: LogPosition) -> io::Result<()> {
        self.forget_old()?;
        while window.items.len() < most {
            let Some(entries) = self.follower.next_record(end)? else { break };
            match entries {
                LogEntries::Samples(samples) => samples.into_iter().for_each(|sample| {
                    if matches!(sample.value, LogValue::Float(_)) || self.rules.histograms {
                        window.newest = window.newest.max(Some(sample.time));
                        self.add(window, sample.series, Content::Sample(sample));
                    }
                }),
                LogEntries::Exemplars(exemplars) if self.rules.exemplars => {
                    for (series, exemplar) in exemplars {
                        self.add(window, series, Content::Exemplar(exemplar));
                    }
                }
                LogEntries::Exemplars(_) => {}
                entries => self.learn(entries),
            }
        }
        window.end = self.follower.position();
        window.has_more = window.end < end;
        Ok(())
    }

    fn add(&self, window: &mut Window, number: u64, content: Content) {
        let kind = match &content {
            Content::Sample(LogSample { value: LogValue::Float(_), .. }) => Kind::Sample,
            Content::Sample(_) => Kind::Histogram,
            Content::Exemplar(_) => Kind::Exemplar,
        };
        match self.series.get(&number) {
            Some(Known { sent: Some(series), .. }) => {
                window.items.push(Item { number, series: Arc::clone(series), content });
            }
            Some(_) => window.dropped.add(kind),
            None => window.unknown.add(kind),
        }
    }

    fn learn(&mut self, entries: LogEntries) {
        match entries {
            LogEntries::Series(series) => {
                let segment = match self.follower.is_in_checkpoint() {
                    true => self.follower.replaced().unwrap_or_default(),
                    false => self.follower.position().segment,
                };
                for (number, labels) in series {
                    let metadata =
                        self.series.get(&number).and_then(|known| known.sent.as_ref()?.metadata.clone());
                    let sent = self.sent(&labels).map(|labels| {
                        let hash = labels.shard_hash(|_| true);
                        Arc::new(SentSeries { labels, hash, metadata })
                    });
                    self.series.insert(number, Known { sent, segment });
                }
            }
            LogEntries::Metadata(all) => {
                for (number, metadata) in all {
                    let Some(series) = self.series.get_mut(&number).and_then(|known| known.sent.as_mut())
                    else {
                        continue;
                    };
                    let shared = match self.metadata.get(&metadata) {
                        Some(shared) => Arc::clone(shared),
                        None => {
                            let shared = Arc::new(metadata);
                            self.metadata.insert(Arc::clone(&shared));
                            shared
                        }
                    };
                    let (labels, hash) = (series.labels.clone(), series.hash);
                    *series = Arc::new(SentSeries { labels, hash, metadata: Some(shared) });
                }
            }
            LogEntries::Samples(_) | LogEntries::Exemplars(_) => {}
        }
    }

    /// The labels that a series is sent with: its own are stronger than the external ones. None if it is dropped.
    fn sent(&self, labels: &Labels) -> Option<Labels> {
        let labels = self.rules.external.extended(labels);
        let sent =
            if self.rules.relabeling.is_empty() { labels } else { self.rules.relabeling.apply(&labels)? };
        Some(sent).filter(|labels| !labels.is_empty())
    }

    /// Forgets series that the log no longer needs.
    fn forget_old(&mut self) -> io::Result<()> {
        let segment = self.follower.position().segment;
        if segment == self.cleaned {
            return Ok(());
        }
        let Some(needed) = self.follower.newer_checkpoint()? else { return Ok(()) };
        let needed: HashSet<u64> = needed.into_iter().collect();
        let replaced = self.follower.replaced().unwrap_or_default();
        self.series.retain(|number, known| known.segment > replaced || needed.contains(number));
        self.series.shrink_to_fit();
        self.metadata.retain(|metadata| Arc::strong_count(metadata) > 1);
        self.cleaned = segment;
        Ok(())
    }

    /// The metadata of metrics by the names of their families.
    pub(crate) fn families(&self) -> BTreeMap<String, Arc<Metadata>> {
        let series = self.series.values().filter_map(|known| known.sent.as_ref());
        let family = |series: &Arc<SentSeries>| {
            let metadata = series.metadata.as_ref()?;
            let name = family_name(series.labels.metric_name(), metadata.kind);
            (!name.is_empty()).then(|| (name.to_owned(), Arc::clone(metadata)))
        };
        series.filter_map(family).collect()
    }
}

/// The name of a metric without what the series of its kind add to it.
fn family_name(name: &str, kind: MetricKind) -> &str {
    let suffixes: &[&str] = match kind {
        MetricKind::Histogram => &["_bucket", "_count", "_sum"],
        MetricKind::GaugeHistogram => &["_bucket", "_gcount", "_gsum"],
        MetricKind::Summary => &["_count", "_sum"],
        _ => &[],
    };
    suffixes.iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_have_no_suffixes() {
        assert_eq!(family_name("a_bucket", MetricKind::Histogram), "a");
        assert_eq!(family_name("a_gsum", MetricKind::GaugeHistogram), "a");
        assert_eq!(family_name("a_sum", MetricKind::Summary), "a");
        assert_eq!(family_name("a_sum", MetricKind::Counter), "a_sum");
        assert_eq!(family_name("a", MetricKind::Histogram), "a");
    }
}
