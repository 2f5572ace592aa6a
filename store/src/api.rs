//! `/api/v1/blocks`: the blocks that are served, and those that are not, with the reason.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::Json;
use axum::routing::get;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::blocks::Blocks;
use crate::sync::CatalogHandle;

/// What the endpoint shows.
#[derive(Clone)]
pub(crate) struct BlocksApi {
    pub(crate) catalog: CatalogHandle,
    pub(crate) blocks: Arc<Blocks>,
    /// The names of the buckets.
    pub(crate) buckets: Arc<[String]>,
}

/// The routes of the store.
pub(crate) fn routes(api: BlocksApi) -> Router {
    Router::new().route("/api/v1/blocks", get(blocks)).with_state(api)
}

/// In the format of Thanos (`blocks` has the `meta.json` of each block), with what is not served in addition.
async fn blocks(State(api): State<BlocksApi>) -> Json<Value> {
    let catalog = api.catalog.current();
    let served: Vec<Value> =
        catalog.blocks().map(|block| serde_json::to_value(&*block.meta).unwrap_or_default()).collect();
    let bucket = |number: u16| api.buckets.get(usize::from(number)).cloned().unwrap_or_default();
    let unserved = |key: crate::cache::BlockKey, state: &str, reason: &str| json!({ "ulid": key.block.to_string(), "bucket": bucket(key.bucket), "state": state, "reason": reason });
    let quarantine = api.blocks.quarantine();
    let quarantined = quarantine.iter().map(|failure| unserved(failure.key, "quarantined", &failure.reason));
    let unreadable = catalog.unreadable.iter().map(|block| unserved(block.key, "unreadable", &block.reason));
    let refused = catalog.refused.iter().map(|(key, reason)| unserved(*key, "refused", reason));
    let unserved: Vec<Value> = quarantined.chain(unreadable).chain(refused).collect();
    let refreshed = OffsetDateTime::from(catalog.fetched_at);
    Json(json!({
        "status": "success",
        "data": {
            "label": "",
            "blocks": served,
            "notServed": unserved,
            "refreshedAt": refreshed.format(&Rfc3339).unwrap_or_default(),
            "err": Value::Null,
        }
    }))
}
