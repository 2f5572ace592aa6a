//! One request to a receiver, and what its answer means.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use httpclient::{HttpClient, HttpResponse};
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

use crate::config::{RemoteWriteConfig, RemoteWriteMessage};

/// What of an answer is read, for the log.
const MOST_ANSWER_BYTES: usize = 64 << 10;
/// What of an answer is logged.
const MOST_SHOWN: usize = 256;
/// The longest wait that a receiver may ask for.
const MOST_RETRY_AFTER: Duration = Duration::from_secs(3_600);

const VERSION: HeaderName = HeaderName::from_static("x-prometheus-remote-write-version");
const WRITTEN: HeaderName = HeaderName::from_static("x-prometheus-remote-write-samples-written");
const ATTEMPT: HeaderName = HeaderName::from_static("retry-attempt");

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// All was taken.
    Written,
    /// It was refused for good.
    Refused(String),
    /// The receiver does not know version 2.0.
    NotUnderstood(String),
    /// It can be repeated, after this time if the receiver says so.
    Retry(String, Option<Duration>),
}

/// Where requests are sent.
#[derive(Clone, Debug)]
pub(crate) struct Receiver {
    client: HttpClient,
    url: String,
    headers: HeaderMap,
    timeout: Duration,
    retry_on_http_429: bool,
}

impl Receiver {
    /// # Errors
    /// A file of the TLS settings, or a proxy of the environment, cannot be used.
    pub(crate) fn new(name: &str, config: &RemoteWriteConfig) -> Result<Self, String> {
        let client = HttpClient::new(&format!("remote write {name}"), config.http.clone())?;
        let mut headers: HeaderMap = config.headers.iter().cloned().collect();
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("snappy"));
        headers.insert(header::USER_AGENT, HeaderValue::from_static(crate::USER_AGENT));
        Ok(Self {
            client,
            url: config.url.clone(),
            headers,
            timeout: config.remote_timeout,
            retry_on_http_429: config.queue.retry_on_http_429,
        })
    }

    /// Sends a message. `attempt` is 0 for the first time.
    pub(crate) async fn send(&self, message: RemoteWriteMessage, body: Bytes, attempt: u32) -> Outcome {
        let (content_type, version) = match message {
            RemoteWriteMessage::V1 => ("application/x-protobuf", "0.1.0"),
            RemoteWriteMessage::V2 => {
                ("application/x-protobuf;proto=io.prometheus.write.v2.Request", "2.0.0")
            }
        };
        let mut headers = self.headers.clone();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        headers.insert(VERSION, HeaderValue::from_static(version));
        if attempt > 0 {
            headers.insert(ATTEMPT, HeaderValue::from(attempt));
        }
        let sending = async {
            match self.client.send(Method::POST, &self.url, headers, body).await {
                Ok(response) => self.outcome(message, response).await,
                Err(error) => Outcome::Retry(error.to_string(), None),
            }
        };
        match tokio::time::timeout(self.timeout, sending).await {
            Ok(outcome) => outcome,
            Err(_) => Outcome::Retry(format!("{}: no answer after {:?}", self.url, self.timeout), None),
        }
    }

    async fn outcome(&self, message: RemoteWriteMessage, response: HttpResponse) -> Outcome {
        let status = response.status();
        let has_written = response.headers().contains_key(WRITTEN);
        let after = response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
        let after = after.and_then(|text| retry_after(text, SystemTime::now()));
        // Read also if it is not needed, so that the connection can be used again.
        let body = HttpClient::body(response, MOST_ANSWER_BYTES).await.unwrap_or_default();
        let is_v2 = message == RemoteWriteMessage::V2;
        if status.is_success() {
            // A receiver of 1.0 reads an empty message where it does not look at the type.
            return match is_v2 && !has_written {
                true => Outcome::NotUnderstood(format!("its answer has no {WRITTEN}")),
                false => Outcome::Written,
            };
        }
        let text = String::from_utf8_lossy(&body);
        let text: String = text.trim().chars().take(MOST_SHOWN).collect();
        let why = format!("{}: status {status}: {text}", self.url);
        match status {
            StatusCode::UNSUPPORTED_MEDIA_TYPE if is_v2 => Outcome::NotUnderstood(why),
            StatusCode::TOO_MANY_REQUESTS if self.retry_on_http_429 => Outcome::Retry(why, after),
            status if status.is_server_error() => Outcome::Retry(why, after),
            _ => Outcome::Refused(why),
        }
    }
}

const HTTP_DATE: &[BorrowedFormatItem<'static>] =
    format_description!("[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT");

/// The wait that a receiver asks for: seconds, or a date.
fn retry_after(text: &str, now: SystemTime) -> Option<Duration> {
    let text = text.trim();
    let wait = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let date = time::PrimitiveDateTime::parse(text, HTTP_DATE).ok()?.assume_utc();
            Duration::try_from(date - OffsetDateTime::from(now)).ok()?
        }
    };
    Some(wait.min(MOST_RETRY_AFTER)).filter(|wait| !wait.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777 - 90);
        let check = |text: &str, seconds: Option<u64>| {
            assert_eq!(retry_after(text, now), seconds.map(Duration::from_secs), "{text:?}");
        };
        check("7", Some(7));
        check(" 7 ", Some(7));
        check("Sun, 06 Nov 1994 08:49:37 GMT", Some(90));
        check("Sun, 06 Nov 1993 08:49:37 GMT", None);
        check("99999999999", Some(3_600));
        for text in ["0", "", "-1", "soon", "1.5", "Sun, 06 Nov 1994", "99999999999999999999999"] {
            check(text, None);
        }
    }
}
