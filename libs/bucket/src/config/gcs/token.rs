//! Access tokens of Google for credentials that the library does not support: federated identities (`external_account`), the
//! login of a person (`authorized_user`), and a service account that one of them impersonates.
//!
//! ```text
//! external_account    subject token from a file or URL ──► token_url (RFC 8693) ──► token
//! authorized_user     refresh token ─────────────────────► token_uri (RFC 6749) ──► token
//! impersonation       token ──► generateAccessToken of the service account ───────► token
//! ```
//! Formats: <https://google.aip.dev/auth/4117> and <https://google.aip.dev/auth/4113>. Subject tokens of AWS and of programs
//! are not supported.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::http::header::{AUTHORIZATION, CONTENT_TYPE};
use ::http::{Method, Request, StatusCode};
use async_trait::async_trait;
use object_store::CredentialProvider;
use object_store::client::{HttpClient, HttpRequest};
use object_store::gcp::GcpCredential;
use serde::Deserialize;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::error::TOKEN_OF_GOOGLE;

/// The right that is requested, as by the library for other credentials.
const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";
const REFRESH_URL: &str = "https://oauth2.googleapis.com/token";
/// A token is replaced this long before it expires.
const EARLY: Duration = Duration::from_secs(300);
/// How long a token is valid if the answer does not say so.
const DEFAULT_LIFETIME: Duration = Duration::from_secs(3600);

/// A checked credential.
#[derive(Clone, Debug)]
pub(super) struct TokenSource {
    grant: Grant,
    /// `service_account_impersonation_url`.
    impersonation_url: Option<String>,
}

#[derive(Clone)]
enum Grant {
    Federation { token_url: String, audience: String, subject_type: String, subject: SubjectSource },
    Refresh { token_url: String, client_id: String, client_secret: String, refresh_token: String },
}

/// Where the subject token of a federation comes from.
#[derive(Clone, Debug)]
struct SubjectSource {
    place: SubjectPlace,
    /// The field of a JSON document that has the token; `None` for plain text.
    field: Option<String>,
}

#[derive(Clone, Debug)]
enum SubjectPlace {
    File(PathBuf),
    Url { url: String, headers: Vec<(String, String)> },
}

/// Secrets are left out.
impl fmt::Debug for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Federation { audience, subject, .. } => write!(f, "Federation({audience}, {subject:?})"),
            Self::Refresh { client_id, .. } => write!(f, "Refresh({client_id})"),
        }
    }
}

#[derive(Deserialize)]
struct CredentialJson {
    #[serde(rename = "type")]
    kind: String,
    audience: Option<String>,
    subject_token_type: Option<String>,
    token_url: Option<String>,
    token_uri: Option<String>,
    credential_source: Option<SourceJson>,
    service_account_impersonation_url: Option<String>,
    client_id: Option<String>,
    client_secret: Option<String>,
    refresh_token: Option<String>,
    source_credentials: Option<Box<Self>>,
}

#[derive(Deserialize)]
struct SourceJson {
    file: Option<PathBuf>,
    url: Option<String>,
    #[serde(default)]
    headers: std::collections::BTreeMap<String, String>,
    format: Option<FormatJson>,
    environment_id: Option<String>,
    executable: Option<Value>,
}

#[derive(Deserialize)]
struct FormatJson {
    #[serde(rename = "type")]
    kind: Option<String>,
    subject_token_field_name: Option<String>,
}

impl TokenSource {
    /// Reads a credential of one of the types above; `None` if it is of another type.
    ///
    /// # Errors
    /// What is wrong, as a clause after the name of the field or file.
    pub(super) fn parse(json: &str) -> Option<Result<Self, String>> {
        let kind = serde_json::from_str::<Value>(json).ok()?;
        let kind = kind.get("type")?.as_str()?;
        if !matches!(kind, "external_account" | "authorized_user" | "impersonated_service_account") {
            return None;
        }
        let parsed = serde_json::from_str(json).map_err(|error| format!("is a damaged credential: {error}"));
        Some(parsed.and_then(Self::check))
    }

    fn check(json: CredentialJson) -> Result<Self, String> {
        let impersonation_url = json.service_account_impersonation_url.clone();
        if let Some(url) = &impersonation_url {
            check_url("service_account_impersonation_url", url)?;
        }
        let grant = match json.kind.as_str() {
            "external_account" => federation(json)?,
            "authorized_user" => {
                let token_url = json.token_uri.unwrap_or_else(|| REFRESH_URL.to_owned());
                check_url("token_uri", &token_url)?;
                Grant::Refresh {
                    token_url,
                    client_id: required("client_id", json.client_id)?,
                    client_secret: required("client_secret", json.client_secret)?,
                    refresh_token: required("refresh_token", json.refresh_token)?,
                }
            }
            "impersonated_service_account" => {
                required("service_account_impersonation_url", impersonation_url.clone())?;
                let source = json.source_credentials.ok_or("has no source_credentials")?;
                Self::check(*source).map_err(|why| format!("{why} (in source_credentials)"))?.grant
            }
            other => return Err(format!("is of type {other}, expected external_account or authorized_user")),
        };
        Ok(Self { grant, impersonation_url })
    }

    /// Asks for tokens with `client` when they are needed.
    pub(super) fn provider(self, client: HttpClient) -> Tokens {
        Tokens { source: self, client, current: tokio::sync::Mutex::new(None) }
    }
}

fn required(name: &str, value: Option<String>) -> Result<String, String> {
    value.filter(|value| !value.is_empty()).ok_or_else(|| format!("has no {name}"))
}

/// A URL to which secrets are sent: with TLS, or on this machine.
fn check_url(name: &str, url: &str) -> Result<(), String> {
    let parsed: ::http::Uri =
        url.parse().map_err(|error| format!("has {name} {url:?}, which is not a URL: {error}"))?;
    let is_local = matches!(parsed.host(), Some("127.0.0.1" | "localhost" | "[::1]"));
    match parsed.scheme_str() == Some("https") || is_local {
        true => Ok(()),
        false => Err(format!("has {name} {url:?}, expected https")),
    }
}

fn federation(json: CredentialJson) -> Result<Grant, String> {
    let source = json.credential_source.ok_or("has no credential_source")?;
    if source.environment_id.is_some() || source.executable.is_some() {
        return Err("has a credential_source of AWS or of a program, expected file or url".to_owned());
    }
    let place = match (source.file, source.url) {
        (Some(file), None) => SubjectPlace::File(file),
        (None, Some(url)) => SubjectPlace::Url { url, headers: source.headers.into_iter().collect() },
        _ => return Err("has a credential_source without file and url, expected one of them".to_owned()),
    };
    let field = match source.format {
        None => None,
        Some(format) => match format.kind.as_deref() {
            None | Some("text") => None,
            Some("json") => Some(required("subject_token_field_name", format.subject_token_field_name)?),
            Some(other) => {
                return Err(format!("has credential_source.format {other:?}, expected text or json"));
            }
        },
    };
    let token_url = required("token_url", json.token_url)?;
    check_url("token_url", &token_url)?;
    Ok(Grant::Federation {
        token_url,
        audience: required("audience", json.audience)?,
        subject_type: required("subject_token_type", json.subject_token_type)?,
        subject: SubjectSource { place, field },
    })
}

/// Gives access tokens. A token is used until shortly before it expires; all requests wait while a new one is fetched.
#[derive(Debug)]
pub(super) struct Tokens {
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
                let read = tokio::fs::read_to_string(file).await;
                let place = file.display().to_string();
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
        let body = response.into_body().bytes().await.map_err(|error| failed(&error))?;
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
