//! Sends requests with credentials and headers, and follows redirects.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use url::Url;

use crate::config::{AuthorizationConfig, HttpClientConfig, OAuth2Config};
use crate::oauth2::TokenSource;
use crate::transport::{HttpError, HttpResponse, Transport, parse, read_body};

/// Most redirects that are followed, as in Prometheus.
const MAX_REDIRECTS: usize = 10;

/// Sends requests with the settings of one configuration. Clones share their connections.
#[derive(Clone)]
pub struct HttpClient {
    config: HttpClientConfig,
    transport: Transport,
    tokens: Option<Arc<TokenSource>>,
}

impl HttpClient {
    /// A client. `what` describes it in log lines about files that change. It connects at the first request.
    ///
    /// # Errors
    /// A file of the TLS settings, or a proxy of the environment, cannot be used.
    pub fn new(what: &str, config: HttpClientConfig) -> Result<Self, String> {
        Ok(Self {
            transport: Transport::new(what, &config.tls, &config.proxy)?,
            tokens: match &config.authorization {
                Some(AuthorizationConfig::OAuth2(oauth2)) => {
                    Some(TokenSource::new(what, OAuth2Config::clone(oauth2))?)
                }
                _ => None,
            },
            config,
        })
    }

    /// Sends a request and waits for the head of the answer, whatever its status is. Redirects of GET requests are followed, if
    /// the settings say so; credentials and configured headers are sent to the first host only.
    ///
    /// A GET request is sent once more if its connection was used before and ends without an answer: servers close connections that
    /// are idle, also while a request is on its way.
    ///
    /// The future is boxed: the crate that polls a plain one would compile hyper's client again.
    ///
    /// # Errors
    /// See [`HttpError`].
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection.
    pub fn send<'a>(
        &'a self,
        method: Method,
        url: &'a str,
        headers: HeaderMap,
        body: Bytes,
    ) -> std::pin::Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>> + Send + 'a>> {
        Box::pin(self.send_unboxed(method, url, headers, body))
    }

    async fn send_unboxed(
        &self,
        method: Method,
        text: &str,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<HttpResponse, HttpError> {
        let mut url = parse(text)?;
        let first = host_of(&url);
        let mut redirects = 0;
        loop {
            let own = if host_of(&url) == first { self.own_headers().await? } else { HeaderMap::new() };
            let sent = self
                .transport
                .send_one(method.clone(), &url, headers.clone(), own.clone(), body.clone())
                .await;
            let response = match sent {
                Err(failed) if failed.may_repeat && method == Method::GET => {
                    let again = self
                        .transport
                        .send_one(method.clone(), &url, headers.clone(), own, body.clone())
                        .await;
                    again.map_err(|failed| failed.error)?
                }
                sent => sent.map_err(|failed| failed.error)?,
            };
            let is_redirect = matches!(
                response.status(),
                StatusCode::MOVED_PERMANENTLY
                    | StatusCode::FOUND
                    | StatusCode::SEE_OTHER
                    | StatusCode::TEMPORARY_REDIRECT
                    | StatusCode::PERMANENT_REDIRECT
            );
            if !is_redirect || !self.config.follow_redirects || method != Method::GET {
                return Ok(response);
            }
            redirects += 1;
            let wrong = |why: &str| HttpError::Redirect { url: url.to_string(), why: why.to_owned() };
            if redirects > MAX_REDIRECTS {
                return Err(wrong("stopped after 10 redirects"));
            }
            let target = response.headers().get(header::LOCATION).and_then(|target| target.to_str().ok());
            let target = target.ok_or_else(|| wrong("the redirect has no Location"))?;
            let next = url.join(target).map_err(|_| wrong("the Location of the redirect is not a URL"))?;
            url = parse(next.as_str())?;
        }
    }

    /// The headers that the settings ask for.
    async fn own_headers(&self) -> Result<HeaderMap, HttpError> {
        let mut headers = HeaderMap::new();
        for header in &self.config.headers {
            for value in &header.values {
                let text = value.text().map_err(HttpError::Credential)?;
                let value = HeaderValue::try_from(text).map_err(|_| {
                    HttpError::Credential(format!(
                        "header {}: the value has characters that are not allowed",
                        header.name
                    ))
                })?;
                headers.append(header.name.clone(), value);
            }
        }
        if let Some(tokens) = &self.tokens {
            headers.insert(header::AUTHORIZATION, tokens.authorization().await?);
        } else if let Some(authorization) = &self.config.authorization {
            headers.insert(header::AUTHORIZATION, value_of(authorization)?);
        }
        Ok(headers)
    }

    /// Reads a whole body of at most `limit` bytes.
    ///
    /// # Errors
    /// It is longer, or does not arrive completely.
    pub async fn body(response: HttpResponse, limit: usize) -> Result<Bytes, HttpError> {
        read_body(response, limit).await
    }
}

impl std::fmt::Debug for HttpClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpClient").field("config", &self.config).finish_non_exhaustive()
    }
}

fn host_of(url: &Url) -> (String, Option<u16>) {
    (url.host_str().unwrap_or_default().to_owned(), url.port_or_known_default())
}

fn value_of(authorization: &AuthorizationConfig) -> Result<HeaderValue, HttpError> {
    let text = match authorization {
        AuthorizationConfig::Basic { username, password } => {
            let username = username.text().map_err(HttpError::Credential)?;
            let password = password.text().map_err(HttpError::Credential)?;
            format!("Basic {}", STANDARD.encode(format!("{username}:{password}")))
        }
        AuthorizationConfig::Other { kind, credentials: Some(credentials) } => {
            format!("{kind} {}", credentials.text().map_err(HttpError::Credential)?)
        }
        AuthorizationConfig::Other { kind, credentials: None } => kind.clone(),
        // Its token is not one of the settings.
        AuthorizationConfig::OAuth2(_) => String::new(),
    };
    let mut value = HeaderValue::try_from(text).map_err(|_| {
        HttpError::Credential("the credentials have characters that are not allowed in a header".to_owned())
    })?;
    value.set_sensitive(true);
    Ok(value)
}
