//! Applies the file to each request.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use tls::Watched;
use tokio::time::Instant;

use crate::web_config::WebConfig;
use crate::web_config::passwords::PasswordCheck;

/// In the extensions of a request whose password was checked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KnownUser;

/// Guards the HTTP server; clones are the same.
#[derive(Clone)]
pub(crate) struct WebGuard {
    config: Arc<Watched<WebConfig>>,
    passwords: Arc<PasswordCheck>,
}

impl std::fmt::Debug for WebGuard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "WebGuard({:?})", self.config)
    }
}

impl WebGuard {
    /// A guard that follows the file.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub(crate) fn new(config: Arc<Watched<WebConfig>>) -> Result<Self, String> {
        Ok(Self { config, passwords: Arc::new(PasswordCheck::new()?) })
    }

    /// Whether clients need a password now.
    pub(crate) fn asks_for_password(&self) -> bool {
        !self.config.current().users.is_empty()
    }

    /// Answers a request that is not allowed, and adds the headers to all answers.
    pub(crate) async fn apply(State(guard): State<Self>, mut request: Request, next: Next) -> Response {
        let config = guard.config.current();
        let mut answer = match guard.refuse(&config, request.headers()).await {
            Some(refusal) => refusal,
            None => {
                if !config.users.is_empty() {
                    request.extensions_mut().insert(KnownUser);
                }
                next.run(request).await
            }
        };
        for (name, value) in &config.headers {
            answer.headers_mut().insert(name, value.clone());
        }
        answer
    }

    async fn refuse(&self, config: &WebConfig, headers: &HeaderMap) -> Option<Response> {
        if config.rate_limit.as_ref().is_some_and(|limit| !limit.admit(Instant::now())) {
            return Some((StatusCode::TOO_MANY_REQUESTS, "Too Many Requests\n").into_response());
        }
        if config.users.is_empty() {
            return None;
        }
        if let Some((name, password)) = credentials(headers)
            && self.passwords.is_valid(&config.users, &name, &password).await
        {
            return None;
        }
        let mut refusal = (StatusCode::UNAUTHORIZED, Body::from("Unauthorized\n")).into_response();
        refusal
            .headers_mut()
            .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"isthmus\""));
        Some(refusal)
    }
}

/// User and password in the form of basic authentication (RFC 7617).
fn credentials(headers: &HeaderMap) -> Option<(String, String)> {
    let text = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, encoded) = text.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (name, password) = decoded.split_once(':')?;
    Some((name.to_owned(), password.to_owned()))
}

/// Admits one request per interval, and some at once after a pause.
#[derive(Debug)]
pub(super) struct RateLimit {
    interval: Duration,
    burst: u32,
    state: Mutex<Option<Bucket>>,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl RateLimit {
    pub(super) fn new(interval: Duration, burst: u32) -> Self {
        Self { interval, burst, state: Mutex::default() }
    }

    fn admit(&self, now: Instant) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let full = f64::from(self.burst);
        let Bucket { tokens, at } = state.unwrap_or(Bucket { tokens: full, at: now });
        let fresh = now.duration_since(at).as_secs_f64() / self.interval.as_secs_f64();
        let tokens = (tokens + fresh).min(full);
        let admitted = tokens >= 1.0;
        *state = Some(Bucket { tokens: if admitted { tokens - 1.0 } else { tokens }, at: now });
        admitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn requests_above_the_rate_are_rejected_until_time_has_passed() {
        let limit = RateLimit::new(Duration::from_secs(1), 2);
        let start = Instant::now();
        let admitted = |seconds: f64| limit.admit(start + Duration::from_secs_f64(seconds));
        assert!(admitted(0.0) && admitted(0.0) && !admitted(0.5));
        assert!(admitted(1.0) && !admitted(1.1));
        assert!(admitted(100.0) && admitted(100.0) && !admitted(100.0));
    }

    #[test]
    fn credentials_are_read_as_clients_write_them() {
        let read = |text: &str| {
            let value = HeaderValue::from_str(text).unwrap();
            credentials(&HeaderMap::from_iter([(header::AUTHORIZATION, value)]))
        };
        let expected = Some(("Aladdin".to_owned(), "open:sesame".to_owned()));
        assert_eq!(read("Basic QWxhZGRpbjpvcGVuOnNlc2FtZQ=="), expected);
        assert_eq!(read("basic QWxhZGRpbjpvcGVuOnNlc2FtZQ=="), expected);
        for wrong in ["Basic", "Basic !", "Bearer QWxhZGRpbjpvcGVuOnNlc2FtZQ==", "Basic QWxhZGRpbg=="] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
