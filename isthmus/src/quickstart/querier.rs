//! A client of the querier's HTTP API.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;

use crate::quickstart::http::{Http, percent_encode};

/// The result of a query, its warnings and its infos.
pub(super) struct QueryResponse {
    pub(super) result: Vec<Value>,
    pub(super) warnings: Vec<String>,
    pub(super) infos: Vec<String>,
}

impl QueryResponse {
    /// The value of each series of an instant vector, by one of its labels. If a label value repeats, the
    /// last series wins.
    pub(super) fn by_label(&self, label: &str) -> BTreeMap<String, f64> {
        let pairs = self.result.iter().filter_map(|series| {
            let name = series["metric"][label].as_str()?.to_owned();
            Some((name, series["value"][1].as_str()?.parse().ok()?))
        });
        pairs.collect()
    }

    /// The value of the first series of an instant vector; `None` if the vector is empty.
    pub(super) fn number(&self) -> Option<f64> {
        self.result.first()?["value"][1].as_str()?.parse().ok()
    }
}

/// One store in the response of `/api/v1/stores`.
#[derive(Debug)]
pub(super) struct StoreStatus {
    pub(super) name: String,
    /// `sidecar`, `scraper` or `store`.
    pub(super) component: String,
    pub(super) cluster: String,
    pub(super) transport: String,
    pub(super) last_error: Option<String>,
}

/// A client of the HTTP API of the querier.
#[derive(Clone)]
pub(super) struct QuerierClient {
    http: Http,
    base: String,
}

impl QuerierClient {
    pub(super) fn new(at: SocketAddr) -> Self {
        Self { http: Http::new(Duration::from_secs(30)), base: format!("http://{at}/api/v1") }
    }

    /// The URL of an instant query.
    pub(super) fn query_url(&self, expression: &str, parameters: &str) -> String {
        format!("{}/query?query={}{parameters}", self.base, percent_encode(expression))
    }

    /// Evaluates `expression` now; `parameters` are appended to the URL, each with a leading `&`.
    pub(super) async fn query(&self, expression: &str, parameters: &str) -> Result<QueryResponse> {
        self.answer(&self.query_url(expression, parameters)).await
    }

    /// Evaluates `expression` over the last `range_seconds` with a step of one second.
    pub(super) async fn query_range(&self, expression: &str, range_seconds: f64) -> Result<QueryResponse> {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs_f64();
        let query = percent_encode(expression);
        let start = now - range_seconds;
        self.answer(&format!("{}/query_range?query={query}&start={start:.3}&end={now:.3}&step=1", self.base))
            .await
    }

    async fn answer(&self, url: &str) -> Result<QueryResponse> {
        let (status, body) = self.http.send("GET", url, "").await?;
        let body: Value =
            serde_json::from_slice(&body).with_context(|| format!("{url}: the response is not JSON"))?;
        if status != 200 {
            bail!("status {status}: {}", body["error"].as_str().unwrap_or("no error text"));
        }
        let strings = |value: &Value| -> Vec<String> {
            value.as_array().into_iter().flatten().filter_map(|w| Some(w.as_str()?.to_owned())).collect()
        };
        let result = body["data"]["result"]
            .as_array()
            .cloned()
            .ok_or_else(|| anyhow!("{url}: the response has no result"))?;
        Ok(QueryResponse { result, warnings: strings(&body["warnings"]), infos: strings(&body["infos"]) })
    }

    /// All stores of the querier.
    pub(super) async fn stores(&self) -> Result<Vec<StoreStatus>> {
        let body = self.http.json(&format!("{}/stores", self.base)).await?;
        let groups = body["data"].as_object().context("/api/v1/stores: the response has no data")?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let of_group = |(component, group): (&String, &Value)| -> Vec<StoreStatus> {
            let stores = group.as_array().into_iter().flatten().map(|s| StoreStatus {
                name: text(&s["name"]),
                component: component.clone(),
                cluster: text(&s["labelSets"][0]["cluster"]),
                transport: text(&s["transport"]),
                last_error: s["lastError"].as_str().map(str::to_owned),
            });
            stores.collect()
        };
        Ok(groups.iter().flat_map(of_group).collect())
    }

    /// Name and expression of each rule that a ruler has.
    ///
    /// # Errors
    /// A rule has failed, or there is none.
    pub(super) async fn rules(&self) -> Result<Vec<(String, String)>> {
        let body = self.http.json(&format!("{}/rules", self.base)).await?;
        let groups = body["data"]["groups"].as_array().context("/api/v1/rules: no groups")?;
        let mut rules = Vec::new();
        for rule in groups.iter().filter_map(|group| group["rules"].as_array()).flatten() {
            let [name, query, error] =
                ["name", "query", "lastError"].map(|field| rule[field].as_str().unwrap_or_default());
            anyhow::ensure!(error.is_empty(), "rule {name} fails: {error}");
            rules.push((name.to_owned(), query.to_owned()));
        }
        anyhow::ensure!(!rules.is_empty(), "the rulers have no rules");
        Ok(rules)
    }

    /// The sidecars or scrapers of a cluster.
    pub(super) async fn sidecars(&self, cluster: &str) -> Result<Vec<StoreStatus>> {
        let mut stores = self.stores().await?;
        stores.retain(|store| store.cluster == cluster && matches!(&*store.component, "sidecar" | "scraper"));
        Ok(stores)
    }

    /// Evaluates `expression` at `start` and `end`, in seconds, and nowhere else.
    pub(super) async fn query_at_both(
        &self,
        expression: &str,
        start: f64,
        end: f64,
    ) -> Result<QueryResponse> {
        self.query_between(expression, start, end, end - start, "").await
    }

    /// Evaluates `expression` from `start` to `end` with a step, all in seconds; `parameters` are appended to the URL, each with a
    /// leading `&`.
    pub(super) async fn query_between(
        &self,
        expression: &str,
        start: f64,
        end: f64,
        step: f64,
        parameters: &str,
    ) -> Result<QueryResponse> {
        let query = percent_encode(expression);
        self.answer(&format!(
            "{}/query_range?query={query}&start={start:.3}&end={end:.3}&step={step:.3}{parameters}",
            self.base
        ))
        .await
    }
}

/// Stores with their states, for an error.
pub(super) fn list(stores: &[StoreStatus]) -> String {
    let state = |store: &StoreStatus| match &store.last_error {
        Some(error) => format!("{} is not healthy ({error})", store.name),
        None if store.transport.is_empty() => format!("{} is healthy", store.name),
        None => format!("{} is healthy over {}", store.name, store.transport),
    };
    stores.iter().map(state).collect::<Vec<_>>().join(", ")
}

/// Calls `probe` until it returns a value, for at most `limit`.
///
/// # Errors
/// After the time limit, with `what` and the error of the last attempt.
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
