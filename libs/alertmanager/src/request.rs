//! One request to an Alertmanager, and what its answer means.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use httpclient::{HttpClient, HttpResponse};

/// What of an answer is read.
const MOST_ANSWER_BYTES: usize = 64 << 10;
/// What of an answer is shown.
const MOST_SHOWN: usize = 256;
/// The path of the only API that Alertmanager has since version 0.27.
pub(crate) const PATH: &str = "/api/v2/alerts";

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// All alerts were taken.
    Taken,
    /// An alert is not valid for Alertmanager. A repetition does not help.
    Refused(String),
    /// It can be repeated.
    Retry(String),
}

/// Where requests are sent.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    client: HttpClient,
    url: String,
    timeout: Duration,
}

impl Endpoint {
    /// `base` has no `/` at its end.
    pub(crate) fn new(client: HttpClient, base: &str, timeout: Duration) -> Self {
        Self { client, url: format!("{base}{PATH}"), timeout }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Sends a message.
    pub(crate) async fn send(&self, body: Bytes) -> Outcome {
        let headers: HeaderMap = [
            (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
            (header::USER_AGENT, HeaderValue::from_static(crate::USER_AGENT)),
        ]
        .into_iter()
        .collect();
        let sending = async {
            match self.client.send(Method::POST, &self.url, headers, body).await {
                Ok(response) => self.outcome(response).await,
                Err(error) => Outcome::Retry(error.to_string()),
            }
        };
        match tokio::time::timeout(self.timeout, sending).await {
            Ok(outcome) => outcome,
            Err(_) => Outcome::Retry(format!("{}: no answer after {:?}", self.url, self.timeout)),
        }
    }

    async fn outcome(&self, response: HttpResponse) -> Outcome {
        let (status, headers) = (response.status(), response.headers().clone());
        // Read also if it is not needed, so that the connection can be used again.
        match HttpClient::body(response, MOST_ANSWER_BYTES).await {
            Ok(body) => outcome_of(&self.url, status, &headers, &body),
            Err(error) => Outcome::Retry(format!("{}: status {status}, but the answer: {error}", self.url)),
        }
    }
}

/// What an answer means.
pub(crate) fn outcome_of(url: &str, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Outcome {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let is_html = text(header::CONTENT_TYPE).is_some_and(|kind| kind.starts_with("text/html"))
        || body.trim_ascii_start().starts_with(b"<");
    if is_html {
        let why = "an HTML page instead of an answer of Alertmanager; check the URL, and whether a proxy asks for a login";
        return Outcome::Retry(format!("{url}: status {status} with {why}"));
    }
    if status.is_success() {
        let is_text = std::str::from_utf8(body)
            .is_ok_and(|text| !text.contains(|c: char| c.is_control() && !c.is_whitespace()));
        return match is_text {
            true => Outcome::Taken,
            false => {
                Outcome::Retry(format!("{url}: status {status} with bytes that are not text; check the URL"))
            }
        };
    }
    let shown = String::from_utf8_lossy(body);
    let shown: String = shown.trim().chars().filter(|c| !c.is_control()).take(MOST_SHOWN).collect();
    let why = format!("{url}: status {status}: {shown}");
    match status {
        StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE | StatusCode::UNPROCESSABLE_ENTITY => {
            Outcome::Refused(why)
        }
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            Outcome::Retry(format!("{url}: status {status}: the credentials were refused; check http_config"))
        }
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::GONE => {
            Outcome::Retry(format!("{why} (no Alertmanager with API v2 is at this path; check path_prefix)"))
        }
        status if status.is_redirection() => {
            let target = text(header::LOCATION).unwrap_or("no address");
            Outcome::Retry(format!(
                "{url}: status {status}: redirects to {target}; give the URL that it redirects to"
            ))
        }
        _ => Outcome::Retry(why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_named() {
        let check = |status: u16, headers: &[(&'static str, &str)], body: &[u8], expected: Outcome| {
            let headers = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(outcome_of("U", status, &headers.collect(), body), expected);
        };
        let retry = |text: &str| Outcome::Retry(text.to_owned());
        let html = "an HTML page instead of an answer of Alertmanager; check the URL, and whether a proxy asks for a login";
        check(200, &[], b"", Outcome::Taken);
        check(202, &[], b"{\"status\": \"success\"}\n", Outcome::Taken);
        check(
            200,
            &[("content-type", "text/html; charset=utf-8")],
            b"x",
            retry(&format!("U: status 200 OK with {html}")),
        );
        check(200, &[], b"\n <!DOCTYPE html>", retry(&format!("U: status 200 OK with {html}")));
        check(502, &[], b"<html>", retry(&format!("U: status 502 Bad Gateway with {html}")));
        check(200, &[], b"a\0b", retry("U: status 200 OK with bytes that are not text; check the URL"));
        check(200, &[], b"\xff", retry("U: status 200 OK with bytes that are not text; check the URL"));
        check(
            400,
            &[],
            b"\"bad label\"\n",
            Outcome::Refused("U: status 400 Bad Request: \"bad label\"".into()),
        );
        check(500, &[], b"no\0\n", retry("U: status 500 Internal Server Error: no"));
        check(
            401,
            &[],
            b"secret",
            retry("U: status 401 Unauthorized: the credentials were refused; check http_config"),
        );
        check(
            404,
            &[],
            b"page",
            retry(
                "U: status 404 Not Found: page (no Alertmanager with API v2 is at this path; check path_prefix)",
            ),
        );
        check(
            302,
            &[("location", "/login")],
            b"",
            retry("U: status 302 Found: redirects to /login; give the URL that it redirects to"),
        );
    }
}
