//! `stores`: the known stores.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use axum::extract::State;
use axum::response::Response;
use model::{Labels, TimeRange};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::api::Api;
use crate::api::exchange::{ApiReply, respond};
use crate::endpoints::{Endpoint, EndpointSet};

/// All endpoints by component, in the format of Thanos with a few more fields.
pub(super) async fn stores(State(api): State<Arc<Api>>) -> Response {
    let mut components: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for (endpoint, away) in api.endpoints.iter().flat_map(EndpointSet::listed) {
        let component = endpoint.state().info.as_ref().map(|info| info.component.clone());
        let component = component.filter(|name| !name.is_empty()).unwrap_or("unknown-store-api".to_owned());
        components.entry(component).or_default().push(show(&endpoint, away));
    }
    respond(ApiReply::of(&components, &[]))
}

/// One endpoint. `away` is the error of its source, if the source is unavailable.
fn show(endpoint: &Endpoint, away: Option<String>) -> Value {
    let state = endpoint.state();
    let last_error = state.last_error.or(away);
    let sets = state.info.as_ref().map_or(&[][..], |info| &info.label_sets);
    let set = |labels: &Labels| -> BTreeMap<String, String> {
        labels.iter().map(|l| (l.name.to_owned(), l.value.to_owned())).collect()
    };
    let range = state.info.as_ref().map_or(TimeRange::ALL, |info| info.range);
    json!({
        "name": endpoint.name(),
        "lastCheck": rfc3339(state.last_check.unwrap_or(SystemTime::UNIX_EPOCH)),
        "lastError": last_error,
        "labelSets": sets.iter().map(set).collect::<Vec<_>>(),
        "minTime": range.min.as_millis(),
        "maxTime": range.max.as_millis(),
        "healthy": last_error.is_none(),
        "warnings": state.info.as_ref().map_or(&[][..], |info| &info.warnings),
        "transport": state.transport,
        "roundTripSeconds": state.round_trip.map(|length| length.as_secs_f64()),
    })
}

/// A wall-clock time as Prometheus prints it.
pub(super) fn rfc3339(at: SystemTime) -> String {
    OffsetDateTime::from(at).format(&Rfc3339).unwrap_or_default()
}
