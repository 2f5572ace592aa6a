//! A small HTTP client for requests to the child processes on loopback.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::Request;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

/// Largest response body.
const ANSWER_BYTES: usize = 64 << 20;

/// An HTTP client with a time limit for each request.
#[derive(Clone)]
pub(super) struct Http {
    client: Client<HttpConnector, Full<Bytes>>,
    timeout: Duration,
}

impl Http {
    pub(super) fn new(timeout: Duration) -> Self {
        Self { client: Client::builder(TokioExecutor::new()).build_http(), timeout }
    }

    /// Sends a request and reads the whole response. Every HTTP status is a success.
    pub(super) async fn send(&self, method: &str, url: &str, body: impl Into<Bytes>) -> Result<(u16, Bytes)> {
        let request = Request::builder().method(method).uri(url).body(Full::new(body.into()))?;
        let exchange = async {
            let answer = self.client.request(request).await?;
            let status = answer.status().as_u16();
            let body = Limited::new(answer.into_body(), ANSWER_BYTES).collect().await;
            let body = body.map_err(|e| anyhow::anyhow!("read the response: {e}"))?;
            anyhow::Ok((status, body.to_bytes()))
        };
        tokio::time::timeout(self.timeout, exchange)
            .await
            .with_context(|| format!("{url}: no response within {:?}", self.timeout))?
            .with_context(|| url.to_owned())
    }

    /// Sends GET to `url` and expects status 200 and JSON.
    pub(super) async fn json(&self, url: &str) -> Result<Value> {
        let (status, body) = self.send("GET", url, "").await?;
        if status != 200 {
            bail!("{url}: status {status}: {}", String::from_utf8_lossy(&body).trim());
        }
        serde_json::from_slice(&body).with_context(|| format!("{url}: the response is not JSON"))
    }
}

/// Percent-encodes all characters except the unreserved ones (RFC 3986).
pub(super) fn percent_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(char::from(byte));
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}
