//! Asking the demonstration's querier, as any user of its HTTP API would.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;

use crate::quickstart::http::{Http, percent_encode};

/// A PromQL answer with what the querier said about it.
pub(super) struct Answer {
    pub(super) result: Vec<Value>,
    pub(super) warnings: Vec<String>,
}

impl Answer {
    /// Value of each series of an instant vector by one of its labels; the last one wins.
    pub(super) fn by_label(&self, label: &str) -> BTreeMap<String, f64> {
        let pairs = self.result.iter().filter_map(|series| {
            let name = series["metric"][label].as_str()?.to_owned();
            Some((name, series["value"][1].as_str()?.parse().ok()?))
        });
        pairs.collect()
    }

    /// The one number of an instant vector of one series; none where the vector is empty.
    pub(super) fn number(&self) -> Option<f64> {
        self.result.first()?["value"][1].as_str()?.parse().ok()
    }
}

/// One store as `/api/v1/stores` lists it.
#[derive(Debug)]
pub(super) struct Store {
    pub(super) name: String,
    pub(super) cluster: String,
    pub(super) transport: String,
    pub(super) last_error: Option<String>,
}

/// The querier's HTTP API.
#[derive(Clone)]
pub(super) struct Querier {
    http: Http,
    base: String,
}

impl Querier {
    pub(super) fn new(at: SocketAddr) -> Self {
        Self { http: Http::new(Duration::from_secs(30)), base: format!("http://{at}/api/v1") }
    }

    /// The URL of an instant query, to be opened or pasted.
    pub(super) fn query_url(&self, expression: &str, parameters: &str) -> String {
        format!("{}/query?query={}{parameters}", self.base, percent_encode(expression))
    }

    /// Evaluates `expression` now; `parameters` are appended to the URL, each with a leading `&`.
    pub(super) async fn query(&self, expression: &str, parameters: &str) -> Result<Answer> {
        self.answer(&self.query_url(expression, parameters)).await
    }

    /// Evaluates `expression` over the last `range_seconds`, one point a second.
    pub(super) async fn query_range(&self, expression: &str, range_seconds: f64) -> Result<Answer> {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs_f64();
        let query = percent_encode(expression);
        let start = now - range_seconds;
        self.answer(&format!("{}/query_range?query={query}&start={start:.3}&end={now:.3}&step=1", self.base))
            .await
    }

    async fn answer(&self, url: &str) -> Result<Answer> {
        let (status, body) = self.http.send("GET", url, "").await?;
        let body: Value = serde_json::from_slice(&body).with_context(|| format!("{url}: not JSON"))?;
        if status != 200 {
            bail!("status {status}: {}", body["error"].as_str().unwrap_or("no error text"));
        }
        let strings = |value: &Value| -> Vec<String> {
            value.as_array().into_iter().flatten().filter_map(|w| Some(w.as_str()?.to_owned())).collect()
        };
        let result = body["data"]["result"].as_array().cloned().ok_or_else(|| anyhow!("{url}: no result"))?;
        Ok(Answer { result, warnings: strings(&body["warnings"]) })
    }

    /// All stores that the querier knows.
    pub(super) async fn stores(&self) -> Result<Vec<Store>> {
        let body = self.http.json(&format!("{}/stores", self.base)).await?;
        let groups = body["data"].as_object().context("/api/v1/stores: no data")?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let stores =
            groups.values().flat_map(|group| group.as_array().into_iter().flatten()).map(|s| Store {
                name: text(&s["name"]),
                cluster: text(&s["labelSets"][0]["cluster"]),
                transport: text(&s["transport"]),
                last_error: s["lastError"].as_str().map(str::to_owned),
            });
        Ok(stores.collect())
    }
}

/// Asks `probe` again and again until it gives a value, for at most `limit`.
///
/// # Errors
/// When the time is over: what was waited for, and what the last attempt said.
pub(super) async fn wait_for<T, F>(what: &str, limit: Duration, mut probe: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    let begun = Instant::now();
    loop {
        match probe().await {
            Ok(value) => return Ok(value),
            Err(error) if begun.elapsed() > limit => {
                return Err(error.context(format!("waited {} s for {what}", limit.as_secs())));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
}
