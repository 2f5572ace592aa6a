//! Exchanges a credential for access tokens.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::http::header::{AUTHORIZATION, CONTENT_TYPE};
use ::http::{Method, Request, StatusCode};
use async_trait::async_trait;
use http_body_util::{BodyExt, Limited};
use object_store::CredentialProvider;
use object_store::client::{HttpClient, HttpRequest};
use object_store::gcp::GcpCredential;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::io::AsyncReadExt;

use crate::config::gcs::token::{Grant, SubjectPlace, SubjectSource, TokenSource};
use crate::error::TOKEN_OF_GOOGLE;

/// The right that is requested, as by the library for other credentials.
const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";
/// A token is replaced this long before it expires.
const EARLY: Duration = Duration::from_secs(300);
/// How long a token is valid if the answer does not say so.
const DEFAULT_LIFETIME: Duration = Duration::from_secs(3600);
/// Largest subject token, and largest answer of a token service, in bytes. Real ones have a few kilobytes.
const MAX_TEXT_BYTES: usize = 1 << 20;

/// Gives access tokens. A token is used until shortly before it expires; all requests wait while a new one is fetched.
#[derive(Debug)]
pub(in crate::config::gcs) struct Tokens {
    source: TokenSource,
    client: HttpClient,
    current: tokio::sync::Mutex<Option<IssuedToken>>,
}

#[derive(Clone)]
struct IssuedToken {
    credential: Arc<GcpCredential>,
    /// When a new one is fetched.
    until: Instant,
}

impl fmt::Debug for IssuedToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IssuedToken")
    }
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
#[error("{TOKEN_OF_GOOGLE}: {what}")]
struct TokenError {
    what: String,
    /// Whether the credential was refused.
    is_refused: bool,
}

impl TokenError {
    fn failed(what: String) -> Self {
        Self { what, is_refused: false }
    }
}

impl From<TokenError> for object_store::Error {
    fn from(error: TokenError) -> Self {
        match error.is_refused {
            true => Self::Unauthenticated { path: String::new(), source: error.into() },
            false => Self::Generic { store: "GCS", source: error.into() },
        }
    }
}

#[async_trait]
impl CredentialProvider for Tokens {
    type Credential = GcpCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<GcpCredential>> {
        let mut current = self.current.lock().await;
        if let Some(token) = current.as_ref().filter(|token| Instant::now() < token.until) {
            return Ok(Arc::clone(&token.credential));
        }
        let (bearer, lifetime) = self.fetch().await?;
        let credential = Arc::new(GcpCredential { bearer });
        let until = Instant::now() + lifetime.saturating_sub(EARLY.min(lifetime / 2));
        *current = Some(IssuedToken { credential: Arc::clone(&credential), until });
        Ok(credential)
    }
}

impl Tokens {
    /// No token yet.
    pub(super) fn new(source: TokenSource, client: HttpClient) -> Self {
        Self { source, client, current: tokio::sync::Mutex::new(None) }
    }

    /// A new token, and how long it is valid.
    async fn fetch(&self) -> Result<(String, Duration), TokenError> {
        let (url, form) = match &self.source.grant {
            Grant::Federation { token_url, audience, subject_type, subject } => {
                let token = self.subject(subject).await?;
                let form = form(&[
                    ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
                    ("audience", audience),
                    ("scope", SCOPE),
                    ("requested_token_type", "urn:ietf:params:oauth:token-type:access_token"),
                    ("subject_token_type", subject_type),
                    ("subject_token", &token),
                ]);
                (token_url, form)
            }
            Grant::Refresh { token_url, client_id, client_secret, refresh_token } => {
                let form = form(&[
                    ("grant_type", "refresh_token"),
                    ("client_id", client_id),
                    ("client_secret", client_secret),
                    ("refresh_token", refresh_token),
                ]);
                (token_url, form)
            }
        };
        let request = Request::builder()
            .method(Method::POST)
            .uri(url)
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded");
        let answer = self.json(url, request, form).await?;
        let token = text(url, &answer, "access_token")?;
        let lifetime = answer["expires_in"].as_u64().map_or(DEFAULT_LIFETIME, Duration::from_secs);
        match &self.source.impersonation_url {
            Some(url) => self.impersonate(url, &token).await,
            None => Ok((token, lifetime)),
        }
    }

    /// Exchanges a token for one of a service account.
    async fn impersonate(&self, url: &str, token: &str) -> Result<(String, Duration), TokenError> {
        let request = Request::builder()
            .method(Method::POST)
            .uri(url)
            .header(CONTENT_TYPE, "application/json")
            .header(AUTHORIZATION, format!("Bearer {token}"));
        let lifetime = format!("{}s", DEFAULT_LIFETIME.as_secs());
        let body = serde_json::json!({ "scope": [SCOPE], "lifetime": lifetime }).to_string();
        let answer = self.json(url, request, body).await?;
        let expires = answer["expireTime"].as_str().and_then(|at| OffsetDateTime::parse(at, &Rfc3339).ok());
        let left = expires.and_then(|at| Duration::try_from(at - OffsetDateTime::now_utc()).ok());
        Ok((text(url, &answer, "accessToken")?, left.unwrap_or(DEFAULT_LIFETIME)))
    }

    /// The token that is exchanged.
    async fn subject(&self, source: &SubjectSource) -> Result<String, TokenError> {
        let (place, content) = match &source.place {
            SubjectPlace::File(file) => {
                let place = file.display().to_string();
                let read = read_bounded(file).await;
                (place.clone(), read.map_err(|error| TokenError::failed(format!("read {place}: {error}")))?)
            }
            SubjectPlace::Url { url, headers } => {
                let mut request = Request::builder().method(Method::GET).uri(url);
                for (name, value) in headers {
                    request = request.header(name, value);
                }
                (url.clone(), self.send(url, request, String::new()).await?)
            }
        };
        let token = match &source.field {
            None => content.trim().to_owned(),
            Some(field) => {
                let answer = serde_json::from_str(&content).map_err(|_| {
                    TokenError::failed(format!("{place}: expected JSON with the field {field}"))
                })?;
                text(&place, &answer, field)?
            }
        };
        match token.is_empty() {
            true => Err(TokenError::failed(format!("{place}: has no subject token"))),
            false => Ok(token),
        }
    }

    async fn json(
        &self,
        url: &str,
        request: ::http::request::Builder,
        body: String,
    ) -> Result<Value, TokenError> {
        let answer = self.send(url, request, body).await?;
        serde_json::from_str(&answer).map_err(|_| TokenError::failed(format!("{url}: answered without JSON")))
    }

    async fn send(
        &self,
        url: &str,
        request: ::http::request::Builder,
        body: String,
    ) -> Result<String, TokenError> {
        let failed = |error: &dyn fmt::Display| TokenError::failed(format!("{url}: {error}"));
        let request: HttpRequest = request.body(body.into()).map_err(|error| failed(&error))?;
        let response = self.client.execute(request).await.map_err(|error| failed(&error))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_TEXT_BYTES).collect().await;
        let body = body.map_err(|error| failed(&error))?.to_bytes();
        let text = String::from_utf8_lossy(&body).into_owned();
        if status.is_success() {
            return Ok(text);
        }
        // The answer says why; a token is never in it.
        let reason: String =
            text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(300).collect();
        let refused =
            [StatusCode::BAD_REQUEST, StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN].contains(&status);
        Err(TokenError { what: format!("{url}: answered {status}: {reason}"), is_refused: refused })
    }
}

fn text(place: &str, answer: &Value, field: &str) -> Result<String, TokenError> {
    let value = answer[field].as_str().filter(|value| !value.is_empty());
    value.map(str::to_owned).ok_or_else(|| TokenError::failed(format!("{place}: the answer has no {field}")))
}

/// The body of a form.
fn form(fields: &[(&str, &str)]) -> String {
    let encode = |text: &str| -> String {
        let byte = |byte: u8| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        };
        text.bytes().map(byte).collect()
    };
    let fields: Vec<String> =
        fields.iter().map(|(name, value)| format!("{name}={}", encode(value))).collect();
    fields.join("&")
}

/// The text of a small file.
async fn read_bounded(file: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    let open = tokio::fs::File::open(file).await?;
    open.take(MAX_TEXT_BYTES as u64 + 1).read_to_end(&mut bytes).await?;
    let limit = || io::Error::other(format!("it is larger than {MAX_TEXT_BYTES} bytes"));
    if bytes.len() > MAX_TEXT_BYTES {
        Err(limit())
    } else {
        String::from_utf8(bytes).map_err(io::Error::other)
    }
}
