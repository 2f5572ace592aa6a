//! Queries to the observability cluster, once and all the time.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;
use tests::{World, percent_encode};

/// The wait between two queries.
const PAUSE: Duration = Duration::from_millis(100);

/// An answer to a query.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    /// The clusters that have series in it.
    pub(crate) clusters: BTreeSet<String>,
    pub(crate) warnings: Vec<String>,
}

/// Asks for the targets of every cluster.
///
/// # Errors
/// If the query fails.
pub(crate) fn ask(world: &World, at: SocketAddr) -> Result<Answer, String> {
    let (series, warnings) = query(world, at, "count by (cluster) (up == 1)", "true")?;
    Ok(Answer { clusters: series.iter().filter_map(|labels| text(&labels["cluster"])).collect(), warnings })
}

/// The number of replicas that have samples of targets.
///
/// # Errors
/// If the query fails.
pub(crate) fn replicas(world: &World, at: SocketAddr) -> Result<usize, String> {
    query(world, at, "count by (cluster, replica) (up == 1)", "false").map(|(series, _)| series.len())
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

/// The label sets and the warnings of an answer.
fn query(
    world: &World,
    at: SocketAddr,
    query: &str,
    dedup: &str,
) -> Result<(Vec<Value>, Vec<String>), String> {
    let path = format!("/api/v1/query?dedup={dedup}&query={}", percent_encode(query));
    let (status, body) = world.get("observability", at, &path)?;
    let mut answer: Value =
        serde_json::from_str(&body).map_err(|cause| format!("{status}: {cause}: {body}"))?;
    let warnings = answer["warnings"].as_array().into_iter().flatten().filter_map(text).collect();
    match answer["data"]["result"].take() {
        Value::Array(series) if status == 200 => {
            Ok((series.into_iter().map(|mut one| one["metric"].take()).collect(), warnings))
        }
        _ => Err(format!("{status}: {body}")),
    }
}

/// Asks again and again until `is_over`. Returns all answers and errors.
pub(crate) fn ask_until(world: &World, at: SocketAddr, is_over: &AtomicBool) -> Vec<Result<Answer, String>> {
    let mut all = Vec::new();
    while !is_over.load(Ordering::Relaxed) {
        all.push(ask(world, at));
        std::thread::sleep(PAUSE);
    }
    all
}
