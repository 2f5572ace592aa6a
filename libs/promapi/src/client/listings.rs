//! Requests for rules, targets, exemplars and statistics.

use model::{TimeRange, Timestamp};
use serde::Deserialize;

use crate::alertmanagers::AlertmanagerDiscovery;
use crate::client::PrometheusClient;
use crate::client::answers::WithWarnings;
use crate::client::query_string::QueryString;
use crate::client::request::ClientError;
use crate::exemplars::ExemplarSeries;
use crate::float::write_timestamp;
use crate::rules::RuleGroup;
use crate::targets::TargetDiscovery;
use crate::tsdb_status::TsdbStatus;

#[derive(Default, Deserialize)]
#[serde(default)]
struct RuleGroups {
    groups: Vec<RuleGroup>,
}

impl PrometheusClient {
    /// The groups of rules; only rules of type `kind`, `alert` or `record`, if given.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn rules(&self, kind: Option<&str>) -> Result<WithWarnings<Vec<RuleGroup>>, ClientError> {
        let mut query = QueryString::new();
        if let Some(kind) = kind {
            query.add("type", kind);
        }
        let answer = self.transport.get_json("/api/v1/rules", query).await?;
        Ok(answer.map(|groups: RuleGroups| groups.groups))
    }

    /// The scrape targets; only those in `state`, `active` or `dropped`, if given.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn targets(&self, state: Option<&str>) -> Result<WithWarnings<TargetDiscovery>, ClientError> {
        let mut query = QueryString::new();
        if let Some(state) = state {
            query.add("state", state);
        }
        self.transport.get_json("/api/v1/targets", query).await
    }

    /// The Alertmanagers to which alerts are sent.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn alertmanagers(&self) -> Result<WithWarnings<AlertmanagerDiscovery>, ClientError> {
        self.transport.get_json("/api/v1/alertmanagers", QueryString::new()).await
    }

    /// The exemplars of the series that the selectors of the expression `query` select, in a range that
    /// includes both ends.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn exemplars(
        &self,
        query: &str,
        range: TimeRange,
    ) -> Result<WithWarnings<Vec<ExemplarSeries>>, ClientError> {
        let mut parameters = QueryString::new();
        parameters.add("query", query);
        for (name, at) in [("start", range.min), ("end", range.max)] {
            parameters.add(name, &seconds(at.clamp(crate::MIN_TIME, crate::MAX_TIME)));
        }
        self.transport.ask_json("/api/v1/query_exemplars", parameters).await
    }

    /// Statistics of the TSDB, with at most `limit` entries in each list. Older versions always return 10.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn tsdb_status(&self, limit: usize) -> Result<WithWarnings<TsdbStatus>, ClientError> {
        let mut query = QueryString::new();
        query.add("limit", &limit.to_string());
        self.transport.get_json("/api/v1/status/tsdb", query).await
    }
}

fn seconds(at: Timestamp) -> String {
    let mut text = Vec::new();
    write_timestamp(&mut text, at);
    String::from_utf8_lossy(&text).into_owned()
}
