//! Metadata, exemplars, statistics, and the lists of who appends to the data folder.

use std::sync::Arc;

use head::{Database, HeadStatistics, SeriesExemplars};
use model::ExternalMatch;
use promapi::{Exemplar, ExemplarSeries, HeadStats, RuleGroup, TargetDiscovery, TsdbStat, TsdbStatus};
use storeapi::{
    AnswerMemory, ExemplarsRequest, Kept, Listed, ListingStore, MetadataAnswer, MetadataRequest,
    MetadataStore, MetricMetadata, RulesRequest, StoreError, TargetState, TargetsRequest, TenantTsdbStatus,
    TsdbStatusRequest,
};

use crate::store::LocalStore;
use crate::thread::off_thread;

/// Entries of each list of statistics if the request does not limit them, as in Prometheus.
const DEFAULT_STATISTICS: usize = 10;

impl LocalStore {
    /// Reads a list of the database on a thread of its own. Few are read at the same time.
    async fn read_list<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Database) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<(T, Kept), StoreError> {
        let database = Arc::clone(self.data().database()?);
        // The semaphore is never closed.
        let kept = Kept::new(Arc::clone(&self.permits).acquire_owned().await.ok());
        Ok((off_thread(move || read(&database)).await?, kept))
    }
}

#[tonic::async_trait]
impl MetadataStore for LocalStore {
    async fn metric_metadata(&self, request: MetadataRequest) -> Result<MetadataAnswer, StoreError> {
        let read = move |database: &Database| {
            let found = database.head().metadata(request.metric.as_deref());
            let entry = |entry: &Arc<head::Metadata>| MetricMetadata {
                kind: entry.kind.name().to_owned(),
                help: entry.help.to_string(),
                unit: entry.unit.to_string(),
            };
            let metrics = found.into_iter().take(request.limit.unwrap_or(usize::MAX));
            Ok(metrics.map(|(name, entries)| (name, entries.iter().map(entry).collect())).collect())
        };
        let (metadata, kept) = self.read_list(read).await?;
        Ok(MetadataAnswer { metadata, kept, ..MetadataAnswer::default() })
    }
}

#[tonic::async_trait]
impl ListingStore<ExemplarSeries> for LocalStore {
    async fn list(
        &self,
        request: ExemplarsRequest,
        _: AnswerMemory,
    ) -> Result<Listed<ExemplarSeries>, StoreError> {
        let external = self.external();
        let read = move |database: &Database| {
            let expr = promql::parse(&request.query, &promql::ParseOptions::ALL)
                .map_err(|mistake| StoreError::invalid(mistake.to_string()))?;
            let mut selectors = Vec::new();
            for matchers in promql::selectors(&expr) {
                if let ExternalMatch::Rest(rest) = ExternalMatch::split(&matchers, &external) {
                    selectors.push(rest);
                }
            }
            let found = database.head().exemplars(&selectors, request.range);
            Ok(found
                .into_iter()
                .map(|SeriesExemplars { labels, exemplars }| ExemplarSeries {
                    series_labels: labels.extended(&external),
                    exemplars: exemplars
                        .into_iter()
                        .map(|e| Exemplar { labels: e.labels, value: e.value, timestamp: e.time })
                        .collect(),
                })
                .collect())
        };
        let (items, kept) = self.read_list(read).await?;
        Ok(Listed { items, warnings: Vec::new(), kept })
    }
}

#[tonic::async_trait]
impl ListingStore<TenantTsdbStatus> for LocalStore {
    async fn list(
        &self,
        request: TsdbStatusRequest,
        _: AnswerMemory,
    ) -> Result<Listed<TenantTsdbStatus>, StoreError> {
        let external = self.external();
        let selects = request.matchers.iter().all(|matcher| matcher.matches_labels(&external));
        // Only TSDBs of receivers have tenants.
        if !selects || !request.tenant.is_empty() {
            return Ok(Listed::default());
        }
        let limit = request.limit.unwrap_or(DEFAULT_STATISTICS);
        let read = move |database: &Database| {
            let head = database.head();
            Ok(status(&head.stats(), head.statistics(limit)))
        };
        let (status, kept) = self.read_list(read).await?;
        let items = vec![TenantTsdbStatus { tenant: String::new(), status }];
        Ok(Listed { items, warnings: Vec::new(), kept })
    }
}

fn status(stats: &head::HeadStats, lists: HeadStatistics) -> TsdbStatus {
    let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
    let times = stats.times;
    let list = |list: Vec<(String, u64)>| {
        list.into_iter().map(|(name, value)| TsdbStat { name, value }).collect::<Vec<_>>()
    };
    TsdbStatus {
        head_stats: HeadStats {
            num_series: stats.series as u64,
            num_label_pairs: i64::try_from(lists.label_pairs).unwrap_or(i64::MAX),
            chunk_count: count(stats.chunks),
            min_time: times.map_or(i64::MAX, |times| times.min.as_millis()),
            max_time: times.map_or(i64::MIN, |times| times.max.as_millis()),
        },
        series_count_by_metric_name: list(lists.series_by_metric),
        label_value_count_by_label_name: list(lists.values_by_label),
        memory_in_bytes_by_label_name: list(lists.bytes_by_label),
        series_count_by_label_value_pair: list(lists.series_by_pair),
    }
}

#[tonic::async_trait]
impl ListingStore<TargetDiscovery> for LocalStore {
    async fn list(
        &self,
        request: TargetsRequest,
        _: AnswerMemory,
    ) -> Result<Listed<TargetDiscovery>, StoreError> {
        let external = self.external();
        let mut found = self.lists.targets();
        if request.alertmanagers {
            found.active_targets.clear();
            found.dropped_targets.clear();
            found.alertmanagers.get_or_insert_default();
            return Ok(Listed { items: vec![found], ..Listed::default() });
        }
        found.alertmanagers = None;
        if request.state == Some(TargetState::Dropped) {
            found.active_targets.clear();
        }
        if request.state == Some(TargetState::Active) {
            found.dropped_targets.clear();
        }
        for target in &mut found.active_targets {
            target.labels = target.labels.extended(&external);
            target.discovered_labels = target.discovered_labels.extended(&external);
        }
        for target in &mut found.dropped_targets {
            target.discovered_labels = target.discovered_labels.extended(&external);
        }
        Ok(Listed { items: vec![found], ..Listed::default() })
    }
}

#[tonic::async_trait]
impl ListingStore<RuleGroup> for LocalStore {
    async fn list(&self, request: RulesRequest, _: AnswerMemory) -> Result<Listed<RuleGroup>, StoreError> {
        let external = self.external();
        let mut items = self.lists.rules();
        for group in &mut items {
            group.rules.retain(|rule| request.kind.is_none_or(|kind| kind_of(rule) == kind));
            for rule in &mut group.rules {
                *rule.labels_mut() = rule.labels().extended(&external);
                // A label that an alert has is kept, as when it is sent.
                for alert in rule.alerts_mut() {
                    alert.labels = external.extended(&alert.labels);
                }
            }
        }
        Ok(Listed { items, ..Listed::default() })
    }
}

fn kind_of(rule: &promapi::Rule) -> storeapi::RuleKind {
    match rule {
        promapi::Rule::Alerting(_) => storeapi::RuleKind::Alerting,
        promapi::Rule::Recording(_) => storeapi::RuleKind::Recording,
    }
}
