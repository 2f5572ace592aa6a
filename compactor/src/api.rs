//! `/api/v1/compactor/progress` and `/api/v1/compactor/history`.

use axum::Router;
use axum::extract::State;
use axum::response::Json;
use axum::routing::get;
use serde_json::{Value, json};

use crate::history::History;
use crate::progress::Progress;

/// What the endpoints show.
#[derive(Clone)]
pub(crate) struct CompactorApi {
    pub(crate) progress: Progress,
    pub(crate) history: History,
}

/// The routes of the compactor.
pub(crate) fn routes(api: CompactorApi) -> Router {
    Router::new()
        .route("/api/v1/compactor/progress", get(progress))
        .route("/api/v1/compactor/history", get(history))
        .with_state(api)
}

/// What is left to do in each group, how long it takes, and which blocks a person should look at.
async fn progress(State(api): State<CompactorApi>) -> Json<Value> {
    let (groups, troubled, backlog, left) = api.progress.all();
    Json(json!({
        "status": "success",
        "data": {
            "jobs": backlog.jobs,
            "blocks": backlog.blocks,
            "bytes": backlog.bytes,
            "downsampleBlocks": backlog.downsample,
            "markedBlocks": backlog.marked,
            "secondsLeft": left.map(|left| left.as_secs()),
            "groups": groups,
            "troubledBlocks": troubled,
        }
    }))
}

/// The last decisions, the newest first.
async fn history(State(api): State<CompactorApi>) -> Json<Value> {
    Json(json!({ "status": "success", "data": api.history.last() }))
}
