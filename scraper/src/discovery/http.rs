//! Targets that a server lists.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use httpclient::HttpClient;
use prometheus_client::metrics::counter::Counter;

use crate::config::{HttpDiscoveryConfig, TargetGroup};
use crate::discovery::found::Found;
use crate::discovery::group_json::parse_json;

/// Longest list, in bytes: far longer than real ones.
const MAX_BYTES: usize = 64 << 20;

/// Asks for the list again and again; forever. Without a new list, the last one stays.
pub(super) async fn follow(config: HttpDiscoveryConfig, found: Arc<Found>, failures: Counter) {
    let mut client = None;
    let mut is_failing = false;
    loop {
        if client.is_none() {
            client = HttpClient::new("http_sd_configs", config.http.clone())
                .inspect_err(|error| {
                    tracing::warn!(url = config.url, error, "the list of targets cannot be asked for")
                })
                .ok();
        }
        let asked = match &client {
            Some(client) => ask(client, &config).await,
            None => Err("the client cannot be used".to_owned()),
        };
        match asked {
            Ok(groups) => {
                if std::mem::take(&mut is_failing) {
                    tracing::info!(url = config.url, "the list of targets is there again");
                }
                found.publish(groups);
            }
            Err(error) => {
                failures.inc();
                if !std::mem::replace(&mut is_failing, true) {
                    tracing::warn!(
                        url = config.url,
                        error,
                        "there is no new list of targets, keeping those that are known"
                    );
                }
            }
        }
        tokio::time::sleep(config.refresh_interval).await;
    }
}

async fn ask(client: &HttpClient, config: &HttpDiscoveryConfig) -> Result<Vec<TargetGroup>, String> {
    let mut headers = HeaderMap::new();
    headers.insert(header::USER_AGENT, HeaderValue::from_static(crate::user_agent::USER_AGENT));
    headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
    if let Ok(interval) = HeaderValue::try_from(config.refresh_interval.as_secs_f64().to_string()) {
        headers.insert("x-prometheus-refresh-interval-seconds", interval);
    }
    let asked = async {
        let response = client.send(Method::GET, &config.url, headers, Bytes::new()).await;
        let response = response.map_err(|error| error.to_string())?;
        if response.status() != StatusCode::OK {
            return Err(format!("the server answered with status {}", response.status()));
        }
        let kind = response.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let kind = kind.unwrap_or_default().trim().to_owned();
        if !kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json")) {
            return Err(format!("the content type {kind:?} is not application/json"));
        }
        HttpClient::body(response, MAX_BYTES).await.map_err(|error| error.to_string())
    };
    let limit = config.refresh_interval.max(Duration::from_secs(1));
    let body =
        tokio::time::timeout(limit, asked).await.map_err(|_| format!("no answer within {limit:?}"))??;
    let mut groups = parse_json(&body)?;
    for group in &mut groups {
        let mut builder = group.labels.to_builder();
        builder.set("__meta_url", &config.url);
        group.labels = builder.build();
    }
    Ok(groups)
}
