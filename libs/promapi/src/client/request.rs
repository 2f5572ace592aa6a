//! One request to Prometheus and what can go wrong with it.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use model::{MatchOp, Matcher, root_cause};
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use crate::client::answers::{Answer, Reply};
use crate::client::{Client, ReadError};

/// How the client introduces itself.
const USER_AGENT: &str = concat!("isthmus/", env!("CARGO_PKG_VERSION"));

/// Most bytes of an error page that are read, and shown.
const MAX_ERROR_BYTES: usize = 64 << 10;
const MAX_SHOWN_CHARS: usize = 512;

/// A request to Prometheus that failed. Every variant names the URL.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No request can be made of this, for example because it is too long.
    #[error("request to {url}: {cause}")]
    Request {
        /// What was asked, without parameters.
        url: String,
        /// What is wrong.
        cause: http::Error,
    },
    /// Nobody answers there, or the connection broke.
    #[error("{url}: {cause}")]
    Transport {
        /// What was asked, without parameters.
        url: String,
        /// The innermost cause.
        cause: String,
    },
    /// No answer in time.
    #[error("{url}: no answer within {limit:?}")]
    Timeout {
        /// What was asked, without parameters.
        url: String,
        /// The time that was given.
        limit: Duration,
    },
    /// An answer that is no success.
    #[error("{url} answered {status}: {message}")]
    Status {
        /// What was asked, without parameters.
        url: String,
        /// The status.
        status: StatusCode,
        /// What the server said, shortened.
        message: String,
    },
    /// An answer that cannot be read, or is too large.
    #[error("answer of {url}: {cause}")]
    Unreadable {
        /// What was asked, without parameters.
        url: String,
        /// What is wrong with it.
        cause: String,
    },
    /// Remote read gave no stream.
    #[error("{url}: {cause}")]
    Read {
        /// What was asked.
        url: String,
        /// Why.
        cause: ReadError,
    },
}

impl ClientError {
    /// The status that Prometheus answered with, if that is what went wrong.
    pub fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Status { status, .. } => Some(*status),
            _ => None,
        }
    }
}

/// Parameters of a URL in the making.
pub(super) struct Query {
    text: String,
}

impl Query {
    pub(super) fn new() -> Self {
        Self { text: String::new() }
    }

    pub(super) fn add(&mut self, name: &str, value: &str) {
        self.text.push(if self.text.is_empty() { '?' } else { '&' });
        self.text.push_str(&escape(name));
        self.text.push('=');
        self.text.push_str(&escape(value));
    }
}

/// Percent-encodes everything but what is safe in any part of a URL.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            byte => {
                let digit = |nibble: u8| char::from(b"0123456789ABCDEF"[usize::from(nibble & 0xf)]);
                out.extend(['%', digit(byte >> 4), digit(byte)]);
            }
        }
    }
    out
}

/// Matchers as a selector of PromQL. Names that older versions cannot write are quoted.
pub(super) fn selector(matchers: &[Matcher]) -> String {
    let mut out = String::from("{");
    for (i, matcher) in matchers.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        let name = matcher.name();
        let bare = !name.starts_with(|c: char| c.is_ascii_digit())
            && !name.is_empty()
            && name.bytes().all(|b| b == b'_' || b.is_ascii_alphanumeric());
        if bare {
            out.push_str(name);
        } else {
            quote(&mut out, name);
        }
        out.push_str(match matcher.op() {
            MatchOp::Equal => "=",
            MatchOp::NotEqual => "!=",
            MatchOp::Regex => "=~",
            MatchOp::NotRegex => "!~",
        });
        quote(&mut out, matcher.value());
    }
    out.push('}');
    out
}

/// Writes a string of PromQL, whose escapes are Go's.
fn quote(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            c if c.is_ascii_control() => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
}

impl Client {
    /// Sends a request and waits for the head of a successful answer.
    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        query: Query,
        body: Bytes,
        headers: &[(HeaderName, &'static str)],
        limit: Duration,
    ) -> Result<Response<Incoming>, ClientError> {
        let url = format!("{}{path}", self.base);
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{url}{}", query.text))
            .header(header::USER_AGENT, USER_AGENT);
        for (name, value) in headers {
            request = request.header(name, *value);
        }
        let request = request
            .body(Full::new(body))
            .map_err(|cause| ClientError::Request { url: url.clone(), cause })?;
        let response = match timeout(limit, self.http.request(request)).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => {
                return Err(ClientError::Transport { url, cause: root_cause(&error).to_string() });
            }
            Err(_) => return Err(ClientError::Timeout { url, limit }),
        };
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let page = Limited::new(response.into_body(), MAX_ERROR_BYTES).collect();
        let page = match timeout(self.options.timeout, page).await {
            Ok(Ok(page)) => page.to_bytes(),
            // The status alone is answer enough.
            _ => Bytes::new(),
        };
        Err(ClientError::Status { url, status, message: error_message(&page) })
    }

    /// Asks and reads the whole answer.
    pub(super) async fn get_bytes(&self, path: &str, query: Query) -> Result<Bytes, ClientError> {
        let limit = self.options.timeout;
        let asking = async {
            let response = self.send(Method::GET, path, query, Bytes::new(), &[], limit).await?;
            let body = Limited::new(response.into_body(), self.options.max_body_bytes).collect().await;
            body.map(|body| body.to_bytes()).map_err(|cause| self.unreadable(path, cause))
        };
        match timeout(limit, asking).await {
            Ok(answer) => answer,
            Err(_) => Err(ClientError::Timeout { url: format!("{}{path}", self.base), limit }),
        }
    }

    /// Asks and reads a JSON answer out of its envelope.
    pub(super) async fn get_json<T: DeserializeOwned>(
        &self,
        path: &str,
        query: Query,
    ) -> Result<Answer<T>, ClientError> {
        let body = self.get_bytes(path, query).await?;
        let reply: Reply<T> = serde_json::from_slice(&body).map_err(|cause| self.unreadable(path, cause))?;
        if reply.status != "success" {
            return Err(self.unreadable(path, format!("{}: {}", reply.error_type, reply.error)));
        }
        let data = reply.data.ok_or_else(|| self.unreadable(path, "it has no data"))?;
        Ok(Answer { data, warnings: reply.warnings })
    }

    pub(super) fn unreadable(&self, path: &str, cause: impl ToString) -> ClientError {
        ClientError::Unreadable { url: format!("{}{path}", self.base), cause: cause.to_string() }
    }
}

/// What an error page says: the `error` of an envelope, or the text itself, shortened.
fn error_message(page: &[u8]) -> String {
    let text = match serde_json::from_slice::<Reply<serde_json::Value>>(page) {
        Ok(reply) if !reply.error.is_empty() => reply.error,
        _ => String::from_utf8_lossy(page).trim().to_owned(),
    };
    match text.char_indices().nth(MAX_SHOWN_CHARS) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matchers_become_a_selector_that_prometheus_reads() {
        let matchers = [
            Matcher::equal("__name__", "up"),
            Matcher::new(MatchOp::NotRegex, "job", "a\\.b|\"c\"\n\u{1}é").unwrap(),
            Matcher::equal("with.dot", ""),
        ];
        let expected = "{__name__=\"up\",job!~\"a\\\\.b|\\\"c\\\"\\n\\x01é\",\"with.dot\"=\"\"}";
        assert_eq!(selector(&matchers), expected);
    }

    #[test]
    fn parameters_are_escaped() {
        let mut query = Query::new();
        query.add("match[]", "{a=\"b c\"}");
        query.add("é", "&");
        assert_eq!(query.text, "?match%5B%5D=%7Ba%3D%22b%20c%22%7D&%C3%A9=%26");
    }

    #[test]
    fn error_pages_are_reduced_to_what_they_say() {
        let page = br#"{"status":"error","errorType":"bad_data","error":"parse error"}"#;
        assert_eq!(error_message(page), "parse error");
        assert_eq!(error_message(b"Service Unavailable\n"), "Service Unavailable");
        assert_eq!(error_message("é".repeat(1000).as_bytes()).chars().count(), 515);
    }
}
