//! Access tokens of Google for credentials that the library does not support: federated identities (`external_account`), the
//! login of a person (`authorized_user`), and a service account that one of them impersonates.
//!
//! ```text
//! external_account    subject token from a file or URL ──► token_url (RFC 8693) ──► token
//! authorized_user     refresh token ─────────────────────► token_uri (RFC 6749) ──► token
//! impersonation       token ──► generateAccessToken of the service account ───────► token
//! ```
//! Formats: <https://google.aip.dev/auth/4117> and <https://google.aip.dev/auth/4113>. Subject tokens of AWS and of programs
//! are not supported. `fetch.rs` does the exchanges.

mod fetch;

use std::fmt;
use std::path::PathBuf;

use object_store::client::HttpClient;
use serde::Deserialize;
use serde_json::Value;

use crate::config::gcs::token::fetch::Tokens;

const REFRESH_URL: &str = "https://oauth2.googleapis.com/token";

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
        Tokens::new(self, client)
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
