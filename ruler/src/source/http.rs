//! Queriers over HTTP: one of them answers.
//!
//! Which one is asked first depends on the instant, so that the rules of a group ask the same one, which then reads series that they share
//! once. Those that failed a short time ago are asked last. One that does not answer gets only its share of the time, so
//! that the next one can still be asked.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, header};
use httpclient::{DnsCounters, HttpClient, HttpEndpoints, HttpEndpointsConfig, HttpError};
use model::Timestamp;
use promapi::{AnswerError, WithWarnings, parse_instant_answer};
use promql::{SampleValue, VectorSample};
use rules::PartialResponse;
use runtime::Shutdown;
use tokio::time::{Instant, timeout_at};

use crate::source::parameters::form;
use crate::source::{RuleQuery, SourceAnswer};

/// Longest answer, in bytes: some 500,000 series.
const MAX_ANSWER_BYTES: usize = 128 << 20;
/// Longest page of an error that is read.
const MAX_ERROR_BYTES: usize = 64 << 10;
/// Characters of an error that are shown.
const MAX_SHOWN_CHARS: usize = 512;
/// A querier that failed is asked last for this time.
const AVOIDED_FOR: Duration = Duration::from_secs(30);
/// Longer queries are sent with POST, whatever the settings say: servers limit the length of a URL.
const MAX_GET_BYTES: usize = 8 << 10;

/// The HTTP method of queries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum HttpMethod {
    #[value(name = "GET")]
    Get,
    #[value(name = "POST")]
    Post,
}

/// How queriers are asked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HttpQueriersOptions {
    pub(crate) method: HttpMethod,
    /// Whether the parameters of Thanos are left out.
    pub(crate) is_plain: bool,
    pub(crate) dns_interval: Duration,
}

/// Queriers over HTTP. Clones share them.
#[derive(Clone)]
pub(crate) struct HttpQueriers {
    groups: Arc<Vec<HttpEndpoints>>,
    options: HttpQueriersOptions,
    /// When a querier last failed, by its URL.
    failed: Arc<Mutex<HashMap<String, Instant>>>,
}

impl HttpQueriers {
    /// # Errors
    /// A file of TLS settings, or a proxy of the environment, cannot be used.
    pub(crate) fn new(
        configs: Vec<HttpEndpointsConfig>,
        options: HttpQueriersOptions,
        lookups: &DnsCounters,
    ) -> Result<Self, String> {
        let groups = configs
            .into_iter()
            .map(|config| HttpEndpoints::new("querier", config).map(|group| group.counting(lookups.clone())));
        let groups: Vec<HttpEndpoints> = groups.collect::<Result<_, _>>()?;
        Ok(Self { groups: Arc::new(groups), options, failed: Arc::default() })
    }

    /// Keeps the list of queriers up to date until shutdown.
    pub(crate) async fn run(&self, shutdown: Shutdown) {
        let runs = self.groups.iter().map(|group| group.run(self.options.dns_interval, shutdown.clone()));
        futures::future::join_all(runs).await;
    }

    /// The queriers, in the order in which they are asked at an instant.
    fn order(&self, at: Timestamp) -> Vec<(String, HttpClient)> {
        let mut all: Vec<(String, HttpClient)> = Vec::new();
        for group in self.groups.iter() {
            all.extend(group.urls().iter().map(|url| (url.clone(), group.client().clone())));
        }
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.retain(|_, at| at.elapsed() < AVOIDED_FOR);
        let mut seen = std::collections::HashSet::new();
        all.retain(|(url, _)| seen.insert(url.clone()));
        // Groups have different instants, so that all queriers are asked equally often.
        all.sort_by_cached_key(|(url, _)| (failed.contains_key(url), order_hash(url, at)));
        all
    }

    /// # Errors
    /// Why each querier has no answer.
    pub(crate) async fn query(&self, query: &RuleQuery) -> Result<SourceAnswer, String> {
        let deadline = Instant::now() + query.timeout;
        let order = self.order(query.at);
        let count = order.len();
        let mut causes = Vec::new();
        for (at, (url, client)) in order.into_iter().enumerate() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let share = left / u32::try_from(count - at).unwrap_or(u32::MAX);
            let own = RuleQuery { timeout: share, ..query.clone() };
            let asked = timeout_at(Instant::now() + share, self.ask(&client, &url, &own)).await;
            let outcome =
                asked.unwrap_or_else(|_| Err(Failure::of_server(format!("no answer within {share:?}"))));
            match outcome {
                Ok(answer) => return Ok(answer),
                Err(failure) => {
                    if failure.is_of_server {
                        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
                        failed.insert(url.clone(), Instant::now());
                    }
                    causes.push(format!("querier {url}: {}", failure.text));
                }
            }
        }
        if causes.is_empty() {
            return Err("no querier is known; check --query and DNS".to_owned());
        }
        Err(causes.join("; "))
    }

    async fn ask(&self, client: &HttpClient, url: &str, query: &RuleQuery) -> Result<SourceAnswer, Failure> {
        let form = form(query, self.options.is_plain);
        let mut headers = HeaderMap::new();
        headers.insert(
            header::USER_AGENT,
            HeaderValue::from_static(concat!("isthmus/", env!("CARGO_PKG_VERSION"))),
        );
        let is_get = self.options.method == HttpMethod::Get && form.len() <= MAX_GET_BYTES;
        let response = if is_get {
            client.send(Method::GET, &format!("{url}/api/v1/query?{form}"), headers, Bytes::new()).await
        } else {
            let kind = HeaderValue::from_static("application/x-www-form-urlencoded");
            headers.insert(header::CONTENT_TYPE, kind);
            client.send(Method::POST, &format!("{url}/api/v1/query"), headers, Bytes::from(form)).await
        };
        let response = response.map_err(Failure::transport)?;
        let status = response.status();
        if !status.is_success() {
            let page = HttpClient::body(response, MAX_ERROR_BYTES).await.unwrap_or_default();
            let text = match parse_instant_answer(&page) {
                Err(AnswerError::Reported { text, .. }) if !text.is_empty() => text,
                _ => shortened(&String::from_utf8_lossy(&page)),
            };
            return Err(Failure {
                text: format!("{status}: {text}"),
                is_of_server: status.is_server_error(),
            });
        }
        let body = HttpClient::body(response, MAX_ANSWER_BYTES).await.map_err(Failure::transport)?;
        let parsed = tokio::task::spawn_blocking(move || parse_instant_answer(&body)).await;
        let parsed = parsed.map_err(|_| Failure::of_server("the answer could not be read".to_owned()))?;
        accept(parsed.map_err(|why| Failure::of_server(why.to_string()))?, query.partial_response)
    }
}

/// A number that orders queriers differently at each instant.
fn order_hash(url: &str, at: Timestamp) -> u64 {
    let mut hasher = DefaultHasher::new();
    (url, at.as_millis()).hash(&mut hasher);
    hasher.finish()
}

/// An answer that is good enough for the rule.
fn accept(
    answer: WithWarnings<Vec<promapi::AnsweredSample>>,
    partial_response: PartialResponse,
) -> Result<SourceAnswer, Failure> {
    // Annotations of PromQL are about the expression, and no data is missing.
    let warnings: Vec<String> =
        answer.warnings.into_iter().filter(|warning| !warning.starts_with("PromQL ")).collect();
    if partial_response == PartialResponse::Abort && !warnings.is_empty() {
        return Err(Failure {
            text: format!("the answer is partial: {}", warnings.join("; ")),
            is_of_server: false,
        });
    }
    let samples = answer.data.into_iter().map(|sample| match sample.value {
        Some(value) => {
            Ok(VectorSample { labels: sample.labels, timestamp: sample.at, value: SampleValue::Float(value) })
        }
        None => Err(Failure {
            text: "the result has native histograms, which the HTTP API does not carry exactly; use --endpoint or --gateway"
                .to_owned(),
            is_of_server: false,
        }),
    });
    Ok(SourceAnswer { samples: samples.collect::<Result<_, _>>()?, warnings })
}

/// Why a querier has no answer.
struct Failure {
    text: String,
    /// Whether others queries will fail, too.
    is_of_server: bool,
}

impl Failure {
    fn of_server(text: String) -> Self {
        Self { text, is_of_server: true }
    }

    fn transport(error: HttpError) -> Self {
        let text = match error {
            // The URL is in the message already.
            HttpError::Transport { cause, .. } => cause,
            other => other.to_string(),
        };
        Self::of_server(text)
    }
}

fn shortened(text: &str) -> String {
    let text = text.trim();
    match text.char_indices().nth(MAX_SHOWN_CHARS) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}
