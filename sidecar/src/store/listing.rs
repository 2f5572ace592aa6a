//! Rules, targets, exemplars and TSDB statistics of Prometheus, with its external labels.

use std::sync::Arc;

use model::Labels;
use promapi::{ExemplarSeries, RuleGroup, TargetDiscovery};
use storeapi::{
    AnswerMemory, ExemplarsRequest, Kept, Listed, ListingStore, RuleKind, RulesRequest, StoreError,
    TargetState, TargetsRequest, TenantTsdbStatus, TsdbStatusRequest,
};

use crate::store::{PrometheusStore, without_utf8_names};

/// Entries of each list of statistics if the request does not limit them, as in Prometheus.
const DEFAULT_STATISTICS: usize = 10;

impl PrometheusStore {
    /// The external labels, and the permission to ask Prometheus for a list. It is kept until the list is sent, because the
    /// list is in memory until then.
    async fn begin_list(&self) -> Result<(Labels, Kept), StoreError> {
        let external = self.facts()?.external;
        // The semaphore is never closed.
        Ok((external, Kept::new(Arc::clone(&self.lists).acquire_owned().await.ok())))
    }
}

/// Prometheus attaches its external labels to the alerts that it sends, so they are attached to alerts here, too.
#[tonic::async_trait]
impl ListingStore<RuleGroup> for PrometheusStore {
    async fn list(&self, request: RulesRequest, _: AnswerMemory) -> Result<Listed<RuleGroup>, StoreError> {
        let (external, kept) = self.begin_list().await?;
        let kind = request.kind.map(|kind| match kind {
            RuleKind::Alerting => "alert",
            RuleKind::Recording => "record",
        });
        let mut answer = self.answered(self.client.rules(kind).await).await?;
        for rule in answer.data.iter_mut().flat_map(|group| &mut group.rules) {
            *rule.labels_mut() = rule.labels().extended(&external);
            for alert in rule.alerts_mut() {
                alert.labels = alert.labels.extended(&external);
            }
        }
        Ok(Listed { items: answer.data, warnings: answer.warnings, kept })
    }
}

#[tonic::async_trait]
impl ListingStore<TargetDiscovery> for PrometheusStore {
    async fn list(
        &self,
        request: TargetsRequest,
        _: AnswerMemory,
    ) -> Result<Listed<TargetDiscovery>, StoreError> {
        let (external, kept) = self.begin_list().await?;
        if request.alertmanagers {
            let answer = self.answered(self.client.alertmanagers().await).await?;
            let item = TargetDiscovery { alertmanagers: Some(answer.data), ..TargetDiscovery::default() };
            return Ok(Listed { items: vec![item], warnings: answer.warnings, kept });
        }
        let state = request.state.map(|state| match state {
            TargetState::Active => "active",
            TargetState::Dropped => "dropped",
        });
        let mut answer = self.answered(self.client.targets(state).await).await?;
        for target in &mut answer.data.active_targets {
            target.labels = target.labels.extended(&external);
            target.discovered_labels = target.discovered_labels.extended(&external);
        }
        for target in &mut answer.data.dropped_targets {
            target.discovered_labels = target.discovered_labels.extended(&external);
        }
        Ok(Listed { items: vec![answer.data], warnings: answer.warnings, kept })
    }
}

/// The query for a Prometheus that rejects UTF-8 names of labels. Such a label is empty there. `None` if no selector is left.
async fn legacy_query(query: String) -> Result<Option<String>, StoreError> {
    let narrow = move || {
        let expr = promql::parse(&query, &promql::ParseOptions::ALL)
            .map_err(|mistake| StoreError::invalid(mistake.to_string()))?;
        let known = promql::selectors(&expr).into_iter().filter_map(without_utf8_names);
        let texts: Vec<String> = known.map(|matchers| promql::selector_text(&matchers)).collect();
        Ok((!texts.is_empty()).then(|| texts.join(" + ")))
    };
    // The time that this takes depends on the text.
    let narrowed = tokio::task::spawn_blocking(narrow).await;
    narrowed.unwrap_or_else(|error| Err(StoreError::internal(format!("parse the query: {error}"))))
}

/// The client removes matchers on external labels from the query, as Thanos does.
#[tonic::async_trait]
impl ListingStore<ExemplarSeries> for PrometheusStore {
    async fn list(
        &self,
        request: ExemplarsRequest,
        _: AnswerMemory,
    ) -> Result<Listed<ExemplarSeries>, StoreError> {
        let (external, kept) = self.begin_list().await?;
        let query = match self.facts()?.utf8_names {
            true => Some(request.query),
            false => legacy_query(request.query).await?,
        };
        let Some(query) = query else { return Ok(Listed::default()) };
        let answer = self.client.exemplars(&query, request.range).await;
        let mut answer = self.answered(answer).await?;
        for series in &mut answer.data {
            series.series_labels = series.series_labels.extended(&external);
        }
        Ok(Listed { items: answer.data, warnings: answer.warnings, kept })
    }
}

#[tonic::async_trait]
impl ListingStore<TenantTsdbStatus> for PrometheusStore {
    async fn list(
        &self,
        request: TsdbStatusRequest,
        _: AnswerMemory,
    ) -> Result<Listed<TenantTsdbStatus>, StoreError> {
        let (external, kept) = self.begin_list().await?;
        let selects = request.matchers.iter().all(|matcher| matcher.matches_labels(&external));
        // Only TSDBs of receivers have tenants.
        if !selects || !request.tenant.is_empty() {
            return Ok(Listed::default());
        }
        let limit = request.limit.unwrap_or(DEFAULT_STATISTICS);
        let answer = self.answered(self.client.tsdb_status(limit).await).await?;
        let mut status = answer.data;
        for list in [
            &mut status.series_count_by_metric_name,
            &mut status.label_value_count_by_label_name,
            &mut status.memory_in_bytes_by_label_name,
            &mut status.series_count_by_label_value_pair,
        ] {
            list.truncate(limit);
        }
        let items = vec![TenantTsdbStatus { tenant: String::new(), status }];
        Ok(Listed { items, warnings: answer.warnings, kept })
    }
}
