//! Tokens of OAuth 2.0 for the grant of client credentials (RFC 6749, section 4.4).

use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use serde::Deserialize;
use tokio::sync::Mutex;
use url::form_urlencoded;

use crate::config::OAuth2Config;
use crate::transport::{HttpError, Transport, parse, read_body};

/// Longest answer of a token server, in bytes.
const MAX_ANSWER: usize = 1 << 20;
/// A token is renewed before it expires.
const EARLY: Duration = Duration::from_secs(10);
/// Longest text of a server that an error quotes.
const MAX_QUOTE: usize = 200;

/// Gets tokens, and keeps the last one while it is valid.
pub(crate) struct TokenSource {
    config: OAuth2Config,
    transport: Transport,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    token: Option<Token>,
    /// The secret for which the token was given.
    secret: String,
    /// Whether the server wants the credentials in the form, and not in the header. It is found out by the first request.
    in_form: Option<bool>,
}

struct Token {
    value: HeaderValue,
    /// None for never.
    expires: Option<Instant>,
}

/// What a token server answers.
#[derive(Deserialize)]
struct Answer {
    access_token: String,
    #[serde(default)]
    token_type: String,
    /// Seconds, as a number or as a text.
    #[serde(default)]
    expires_in: Option<serde_json::Value>,
}

impl TokenSource {
    /// # Errors
    /// A file of the TLS settings, or a proxy of the environment, cannot be used.
    pub(crate) fn new(what: &str, config: OAuth2Config) -> Result<Arc<Self>, String> {
        let transport = Transport::new(what, &config.tls, &config.proxy)?;
        Ok(Arc::new(Self { config, transport, state: Mutex::default() }))
    }

    /// The value of the header `Authorization`. Requests wait for one that is asking for a token.
    ///
    /// # Errors
    /// The server gives no token.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the next caller to ask.
    pub(crate) async fn authorization(&self) -> Result<HeaderValue, HttpError> {
        let secret = match &self.config.client_secret {
            Some(secret) => secret.text().map_err(HttpError::Credential)?,
            None => String::new(),
        };
        let mut state = self.state.lock().await;
        let now = Instant::now();
        if let Some(token) = &state.token
            && state.secret == secret
            && token.expires.is_none_or(|expires| now < expires)
        {
            return Ok(token.value.clone());
        }
        let token = match state.in_form {
            Some(in_form) => self.ask(&secret, in_form).await.map_err(|refused| refused.error)?,
            // Servers differ in where they accept credentials, as the library of Prometheus finds out, too.
            None => match self.ask(&secret, false).await {
                Ok(token) => {
                    state.in_form = Some(false);
                    token
                }
                Err(refused) if refused.is_answer => match self.ask(&secret, true).await {
                    Ok(token) => {
                        state.in_form = Some(true);
                        token
                    }
                    Err(_) => return Err(refused.error),
                },
                Err(refused) => return Err(refused.error),
            },
        };
        let value = token.value.clone();
        (state.token, state.secret) = (Some(token), secret);
        Ok(value)
    }

    async fn ask(&self, secret: &str, in_form: bool) -> Result<Token, Refused> {
        let mut headers = HeaderMap::new();
        let form_type = HeaderValue::from_static("application/x-www-form-urlencoded");
        headers.insert(header::CONTENT_TYPE, form_type);
        if !in_form {
            let encoded = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
            let pair = format!("{}:{}", encoded(&self.config.client_id), encoded(secret));
            headers.insert(header::AUTHORIZATION, sensitive(&format!("Basic {}", STANDARD.encode(pair)))?);
        }
        let body = Bytes::from(self.form(in_form.then_some(secret)));
        let url = parse(&self.config.token_url)?;
        let sent = self.transport.send_one(Method::POST, &url, headers, HeaderMap::new(), body).await;
        let response = sent.map_err(|failed| failed.error)?;
        let status = response.status();
        let body = read_body(response, MAX_ANSWER).await?;
        self.token(status, &body)
    }

    /// The form of a request, with the credentials if there is a secret.
    fn form(&self, secret: Option<&str>) -> String {
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("grant_type", "client_credentials");
        if !self.config.scopes.is_empty() {
            form.append_pair("scope", &self.config.scopes.join(" "));
        }
        for (name, value) in &self.config.endpoint_params {
            form.append_pair(name, value);
        }
        if let Some(secret) = secret {
            form.append_pair("client_id", &self.config.client_id);
            form.append_pair("client_secret", secret);
        }
        form.finish()
    }

    fn token(&self, status: StatusCode, body: &[u8]) -> Result<Token, Refused> {
        let url = &self.config.token_url;
        let refused = |why: String| Refused {
            is_answer: true,
            error: HttpError::Credential(format!("oauth2: {url}: {why}")),
        };
        if !status.is_success() {
            let text: String = String::from_utf8_lossy(body).trim().chars().take(MAX_QUOTE).collect();
            return Err(refused(format!("the server gives no token: {status}: {text}")));
        }
        // The answer is not quoted: it may contain a token.
        let answer: Answer = serde_json::from_slice(body)
            .map_err(|_| refused("the answer is not JSON with access_token".to_owned()))?;
        if answer.access_token.is_empty() {
            return Err(refused("the access_token of the answer is empty".to_owned()));
        }
        let seconds = match &answer.expires_in {
            Some(serde_json::Value::Number(seconds)) => seconds.as_u64(),
            Some(serde_json::Value::String(seconds)) => seconds.parse().ok(),
            _ => None,
        };
        let lifetime = seconds.filter(|seconds| *seconds > 0).map(Duration::from_secs);
        let expires =
            lifetime.and_then(|lifetime| Instant::now().checked_add(lifetime.saturating_sub(EARLY)));
        let kind = match answer.token_type.as_str() {
            kind if kind.is_empty() || kind.eq_ignore_ascii_case("bearer") => "Bearer",
            kind => kind,
        };
        Ok(Token { value: sensitive(&format!("{kind} {}", answer.access_token))?, expires })
    }
}

/// Why there is no token, and whether that is the answer of the server.
struct Refused {
    is_answer: bool,
    error: HttpError,
}

impl From<HttpError> for Refused {
    fn from(error: HttpError) -> Self {
        Self { is_answer: false, error }
    }
}

fn sensitive(text: &str) -> Result<HeaderValue, HttpError> {
    let mut value = HeaderValue::try_from(text).map_err(|_| {
        HttpError::Credential("oauth2: the token has characters that are not allowed in a header".to_owned())
    })?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex as StdMutex;

    use axum::Router;
    use axum::extract::State as Shared;
    use axum::routing::{get, post};

    use super::*;
    use crate::client::HttpClient;
    use crate::config::{AuthorizationConfig, HttpClientConfig};
    use crate::proxy::ProxyConfig;
    use crate::secret::Secret;

    /// A token server and a target.
    #[derive(Clone, Default)]
    struct Server(Arc<StdMutex<Seen>>);

    #[derive(Default)]
    struct Seen {
        /// Authorization and body of each request for a token.
        asked: Vec<(String, String)>,
        /// What the target was shown.
        shown: Vec<String>,
        refuses_header: bool,
        answer: Option<(u16, String)>,
    }

    fn authorization(headers: &HeaderMap) -> String {
        headers.get(header::AUTHORIZATION).map_or(String::new(), |value| value.to_str().unwrap().to_owned())
    }

    async fn give(Shared(server): Shared<Server>, headers: HeaderMap, body: String) -> (StatusCode, String) {
        let mut seen = server.0.lock().unwrap();
        seen.asked.push((authorization(&headers), body));
        if seen.refuses_header && headers.contains_key(header::AUTHORIZATION) {
            return (StatusCode::UNAUTHORIZED, r#"{"error":"invalid_client"}"#.to_owned());
        }
        if let Some((status, text)) = &seen.answer {
            return (StatusCode::from_u16(*status).unwrap(), text.clone());
        }
        let number = seen.asked.len();
        let lifetime = if number == 1 { "\"3600\"" } else { "5" };
        let text = format!(r#"{{"access_token":"t{number}","token_type":"bearer","expires_in":{lifetime}}}"#);
        (StatusCode::OK, text)
    }

    async fn target(Shared(server): Shared<Server>, headers: HeaderMap) -> &'static str {
        server.0.lock().unwrap().shown.push(authorization(&headers));
        "up 1\n"
    }

    async fn start() -> (Server, String) {
        let server = Server::default();
        let routes = Router::new()
            .route("/token", post(give))
            .route("/metrics", get(target))
            .with_state(server.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        (server, base)
    }

    fn client(base: &str, secret: Secret) -> HttpClient {
        let oauth2 = OAuth2Config {
            client_id: "me & you".to_owned(),
            client_secret: Some(secret),
            scopes: vec!["a".to_owned(), "b".to_owned()],
            token_url: format!("{base}/token"),
            endpoint_params: vec![("audience".to_owned(), "x/y".to_owned())],
            tls: HttpClientConfig::default().tls,
            proxy: ProxyConfig::None,
        };
        let authorization = Some(AuthorizationConfig::OAuth2(Box::new(oauth2)));
        HttpClient::new("test", HttpClientConfig { authorization, ..HttpClientConfig::default() }).unwrap()
    }

    async fn scrape(client: &HttpClient, base: &str) -> Result<(), HttpError> {
        let url = format!("{base}/metrics");
        client.send(Method::GET, &url, HeaderMap::new(), Bytes::new()).await.map(|_| ())
    }

    #[tokio::test]
    async fn a_token_is_used_until_it_expires_or_the_secret_changes() {
        let (server, base) = start().await;
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "s3:cret\n").unwrap();
        let client = client(&base, Secret::File(file.path().to_owned()));
        for _ in 0..3 {
            scrape(&client, &base).await.unwrap();
        }
        std::fs::write(file.path(), "other").unwrap();
        // The second token expires at once, as it is renewed ten seconds early.
        for _ in 0..2 {
            scrape(&client, &base).await.unwrap();
        }
        let seen = server.0.lock().unwrap();
        assert_eq!(seen.shown, ["Bearer t1", "Bearer t1", "Bearer t1", "Bearer t2", "Bearer t3"]);
        let header = format!("Basic {}", STANDARD.encode("me+%26+you:s3%3Acret"));
        let form = "grant_type=client_credentials&scope=a+b&audience=x%2Fy";
        assert_eq!(seen.asked[0], (header, form.to_owned()));
        assert_eq!(seen.asked.len(), 3);
    }

    #[tokio::test]
    async fn credentials_are_sent_in_the_form_if_the_header_is_refused() {
        let (server, base) = start().await;
        server.0.lock().unwrap().refuses_header = true;
        let client = client(&base, Secret::Text("s3cret".to_owned()));
        scrape(&client, &base).await.unwrap();
        let seen = server.0.lock().unwrap();
        assert_eq!(seen.shown, ["Bearer t2"]);
        let (header, form) = &seen.asked[1];
        assert!(header.is_empty() && form.ends_with("&client_id=me+%26+you&client_secret=s3cret"), "{form}");
    }

    #[tokio::test]
    async fn without_a_token_nothing_is_sent_and_the_error_has_no_secret() {
        let (server, base) = start().await;
        for (status, text, expected) in [
            (403, "no such client", "403 Forbidden: no such client"),
            (200, "{\"token\":\"geheim\"}", "is not JSON with access_token"),
            (200, "{\"access_token\":\"\"}", "is empty"),
            (200, "{\"access_token\":\"a\\nb\"}", "not allowed in a header"),
        ] {
            server.0.lock().unwrap().answer = Some((status, text.to_owned()));
            let client = client(&base, Secret::Text("s3cret".to_owned()));
            let error = scrape(&client, &base).await.unwrap_err().to_string();
            assert!(error.contains("oauth2") && error.contains(expected), "{error}");
            assert!(!error.contains("s3cret") && !error.contains("geheim"), "{error}");
        }
        assert!(server.0.lock().unwrap().shown.is_empty());
    }
}
