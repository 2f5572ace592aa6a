//! Fetches what a target exposes.

mod content;

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use http_body_util::BodyExt;
use httpclient::{HttpClient, HttpResponse};

use crate::config::{NameEscaping, ScrapeConfig, ScrapeProtocol};
use crate::failure::ScrapeFailure;

pub(crate) use content::Fetched;

/// Longest exposition where `body_size_limit` is not set, in bytes: 256 MiB, which is more than two million series.
const DEFAULT_BODY_LIMIT: u64 = 256 << 20;
/// Memory that is reserved for a body whose length the target announces.
const MAX_RESERVED: u64 = 16 << 20;

/// Fetches from the targets of one scrape configuration.
#[derive(Clone, Debug)]
pub(crate) struct Fetcher {
    client: HttpClient,
    headers: HeaderMap,
    body_limit: u64,
    is_default_limit: bool,
    fallback: Option<ScrapeProtocol>,
}

impl Fetcher {
    /// # Errors
    /// A file of the TLS settings, or a proxy of the environment, cannot be used.
    pub(crate) fn new(config: &ScrapeConfig) -> Result<Self, String> {
        let client =
            HttpClient::new(&format!("scrape configuration {}", config.job_name), config.http.clone())?;
        let mut headers = HeaderMap::new();
        let accept = HeaderValue::try_from(accept(&config.protocols, config.escaping));
        headers.insert(header::ACCEPT, accept.map_err(|why| why.to_string())?);
        let encoding = if config.enable_compression { "gzip" } else { "identity" };
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(encoding));
        headers.insert(header::USER_AGENT, HeaderValue::from_static(crate::user_agent::USER_AGENT));
        let limit = config.limits.body_bytes;
        Ok(Self {
            client,
            headers,
            body_limit: if limit == 0 { DEFAULT_BODY_LIMIT } else { limit },
            is_default_limit: limit == 0,
            fallback: config.fallback_protocol,
        })
    }

    /// Fetches an exposition in at most `limit`. It is not decompressed yet.
    ///
    /// # Errors
    /// The target does not answer completely with status 200, or its answer is too long.
    pub(crate) async fn fetch(&self, url: &str, limit: Duration) -> Result<Fetched, ScrapeFailure> {
        let mut headers = self.headers.clone();
        if let Ok(seconds) = HeaderValue::try_from(limit.as_secs_f64().to_string()) {
            headers.insert("x-prometheus-scrape-timeout-seconds", seconds);
        }
        let fetching = async {
            let sent = self.client.send(Method::GET, url, headers, Bytes::new()).await;
            let response = sent.map_err(|error| ScrapeFailure::Fetch(error.to_string()))?;
            if response.status() != StatusCode::OK {
                return Err(ScrapeFailure::Fetch(format!(
                    "server returned HTTP status {}",
                    response.status()
                )));
            }
            self.read(response).await
        };
        match tokio::time::timeout(limit, fetching).await {
            Ok(fetched) => fetched,
            Err(_) => Err(ScrapeFailure::Fetch(format!("the answer was not complete after {limit:?}"))),
        }
    }

    async fn read(&self, response: HttpResponse) -> Result<Fetched, ScrapeFailure> {
        let (head, mut incoming) = response.into_parts();
        let text = |name| head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let is_gzip = text(header::CONTENT_ENCODING) == "gzip";
        let content_type = text(header::CONTENT_TYPE).to_owned();
        let announced: u64 = text(header::CONTENT_LENGTH).parse().unwrap_or(0);
        let reserved = announced.min(MAX_RESERVED).min(self.body_limit);
        let mut body = Vec::with_capacity(usize::try_from(reserved).unwrap_or(0));
        while let Some(frame) = incoming.frame().await {
            let frame = frame.map_err(|error| {
                ScrapeFailure::Fetch(format!("the answer is not complete: {}", promapi::http_cause(&error)))
            })?;
            let Some(data) = frame.data_ref() else { continue };
            body.extend_from_slice(data);
            // What is compressed is not longer than what it becomes, except for the frame of gzip.
            if body.len() as u64 >= self.body_limit {
                return Err(self.too_long());
            }
        }
        Ok(Fetched {
            body,
            is_gzip,
            content_type,
            limit: self.body_limit,
            fallback: self.fallback,
            too_long: self.too_long(),
        })
    }

    fn too_long(&self) -> ScrapeFailure {
        let remedy = if self.is_default_limit { "; set body_size_limit to accept more" } else { "" };
        ScrapeFailure::BodyLimit(format!("body size limit exceeded ({} bytes{remedy})", self.body_limit))
    }
}

/// The header that says which formats are wanted, the preferred first.
fn accept(protocols: &[ScrapeProtocol], escaping: NameEscaping) -> String {
    let mut weight = 6;
    let mut accepted = String::new();
    for protocol in protocols {
        accepted.push_str(protocol.media_type());
        // Only newer versions know how names are escaped.
        if matches!(protocol, ScrapeProtocol::PrometheusText100 | ScrapeProtocol::OpenMetricsText100) {
            accepted.push_str(";escaping=");
            accepted.push_str(escaping.as_str());
        }
        accepted.push_str(&format!(";q=0.{weight},"));
        weight -= 1;
    }
    accepted.push_str(&format!("*/*;q=0.{weight}"));
    accepted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_accept_header_is_that_of_prometheus() {
        assert_eq!(
            accept(&ScrapeProtocol::DEFAULT, NameEscaping::AllowUtf8),
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5,\
             text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
        );
        assert_eq!(
            accept(&[ScrapeProtocol::PrometheusProto], NameEscaping::Dots),
            "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.6,*/*;q=0.5"
        );
    }
}
