//! The settings, and how they are read from a file.

use std::path::Path;

use http::HeaderName;
use promapi::ProxyUrl;
use runtime::yaml::{Mistakes, YamlFields, YamlNode, YamlValue};
use runtime::{ClientTlsFields, system_tls};
use tls::{ClientTlsOptions, PemSource, TlsVersion};

use crate::proxy::{NoProxy, ProxyConfig};
use crate::secret::Secret;

/// What a client shows, whom it trusts, and which way it takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpClientConfig {
    /// How it proves who it is.
    pub authorization: Option<AuthorizationConfig>,
    /// The TLS for URLs with `https`.
    pub tls: ClientTlsOptions,
    /// Whether it goes where a redirect points.
    pub follow_redirects: bool,
    /// The proxy in between.
    pub proxy: ProxyConfig,
    /// Headers of each request.
    pub headers: Vec<HeaderConfig>,
}

/// How a client proves who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthorizationConfig {
    /// User and password (RFC 7617).
    Basic {
        /// The user.
        username: Secret,
        /// The password.
        password: Secret,
    },
    /// Another kind, such as `Bearer` (RFC 6750).
    Other {
        /// The kind.
        kind: String,
        /// What follows it; `None` for nothing.
        credentials: Option<Secret>,
    },
    /// A token that a server gives (RFC 6749).
    OAuth2(Box<OAuth2Config>),
}

/// How a token of OAuth 2.0 is got, for the grant of client credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OAuth2Config {
    /// The name of the client.
    pub client_id: String,
    /// Its password; `None` for an empty one.
    pub client_secret: Option<Secret>,
    /// What the token shall permit.
    pub scopes: Vec<String>,
    /// Who gives it.
    pub token_url: String,
    /// Further parameters of the request for it.
    pub endpoint_params: Vec<(String, String)>,
    /// The TLS of this request.
    pub tls: ClientTlsOptions,
    /// The proxy of this request.
    pub proxy: ProxyConfig,
}

/// A header of each request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderConfig {
    /// Its name.
    pub name: HeaderName,
    /// Its values, one header each.
    pub values: Vec<Secret>,
}

impl Default for HttpClientConfig {
    fn default() -> Self {
        Self {
            authorization: None,
            tls: system_tls(TlsVersion::Tls12, vec![b"http/1.1"]),
            follow_redirects: true,
            proxy: ProxyConfig::None,
            headers: Vec::new(),
        }
    }
}

/// Headers that the client sets itself, or that have settings of their own.
const RESERVED: [&str; 18] = [
    "authorization",
    "host",
    "content-encoding",
    "content-length",
    "content-type",
    "user-agent",
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "www-authenticate",
    "accept-encoding",
    "x-prometheus-remote-write-version",
    "x-prometheus-remote-read-version",
    "x-prometheus-scrape-timeout-seconds",
    "x-amz-date",
    "x-amz-security-token",
    "x-amz-content-sha256",
];

impl HttpClientConfig {
    /// Reads the fields that Prometheus has for a client, beside other fields of the same mapping. Paths are relative to `folder`.
    pub fn read(fields: &mut YamlFields<'_>, folder: &Path, mistakes: &Mistakes) -> Self {
        let mut config =
            Self { authorization: read_authorization(fields, folder, mistakes), ..Self::default() };
        if let Some(node) = fields.node("tls_config") {
            config.tls = read_tls(fields.path_of("tls_config"), node, folder, mistakes).unwrap_or(config.tls);
        }
        if let Some(follow) = fields.optional("follow_redirects", YamlNode::boolean) {
            config.follow_redirects = follow;
        }
        // HTTP/1.1 is spoken either way.
        let _ = fields.optional("enable_http2", YamlNode::boolean);
        config.proxy = read_proxy(fields);
        if let Some(node) = fields.node("http_headers") {
            config.headers = read_headers(&fields.path_of("http_headers"), node, folder, mistakes);
        }
        config
    }
}

/// A text that is not empty, and that may be written without quotes.
fn text(node: &YamlNode) -> Result<Option<String>, String> {
    node.scalar().map(|text| Some(text).filter(|text| !text.is_empty()))
}

/// A secret that is given as `name`, or as a file with `name_file`. `given_ref` names a store of secrets, which there is not.
fn read_secret(
    fields: &mut YamlFields<'_>,
    [name, file, given_ref]: [&'static str; 3],
    folder: &Path,
) -> Option<Secret> {
    let inline = fields.optional(name, text).flatten().map(Secret::Text);
    let path = fields.optional(file, text).flatten().map(|path| Secret::File(folder.join(path)));
    if !given_ref.is_empty() {
        fields.refuse(given_ref, format!("is not known here; use {file}"));
    }
    if inline.is_some() && path.is_some() {
        fields.wrong(file, format!("and {name} are both given: give one of them"));
    }
    inline.or(path)
}

fn read_authorization(
    fields: &mut YamlFields<'_>,
    folder: &Path,
    mistakes: &Mistakes,
) -> Option<AuthorizationConfig> {
    let basic = fields.node("basic_auth").map(|node| {
        let mut fields = YamlFields::new(fields.path_of("basic_auth"), node, mistakes);
        let username = read_secret(&mut fields, ["username", "username_file", "username_ref"], folder);
        let password = read_secret(&mut fields, ["password", "password_file", "password_ref"], folder);
        fields.finish();
        let empty = || Secret::Text(String::new());
        AuthorizationConfig::Basic {
            username: username.unwrap_or_else(empty),
            password: password.unwrap_or_else(empty),
        }
    });
    let other = fields.node("authorization").map(|node| {
        let mut fields = YamlFields::new(fields.path_of("authorization"), node, mistakes);
        let kind = fields.optional("type", text).flatten().map(|kind| kind.trim().to_owned());
        let kind = kind.filter(|kind| !kind.is_empty()).unwrap_or_else(|| "Bearer".to_owned());
        if kind.eq_ignore_ascii_case("basic") {
            fields.wrong("type", "must not be basic: use basic_auth instead");
        }
        let names = ["credentials", "credentials_file", "credentials_ref"];
        let credentials = read_secret(&mut fields, names, folder);
        fields.finish();
        AuthorizationConfig::Other { kind, credentials }
    });
    let oauth2 = fields.node("oauth2").and_then(|node| {
        let mut fields = YamlFields::new(fields.path_of("oauth2"), node, mistakes);
        let read = read_oauth2(&mut fields, folder, mistakes);
        fields.finish();
        read.map(|config| AuthorizationConfig::OAuth2(Box::new(config)))
    });
    let bearer = read_secret(fields, ["bearer_token", "bearer_token_file", ""], folder)
        .map(|token| AuthorizationConfig::Other { kind: "Bearer".to_owned(), credentials: Some(token) });
    let given =
        [("basic_auth", &basic), ("authorization", &other), ("oauth2", &oauth2), ("bearer_token", &bearer)];
    let given: Vec<&'static str> =
        given.iter().filter(|(_, one)| one.is_some()).map(|(name, _)| *name).collect();
    if let [first, second, ..] = given[..] {
        fields.wrong(first, format!("and {second} are both given: give one of them"));
    }
    basic.or(other).or(oauth2).or(bearer)
}

/// Reads the fields of `oauth2`; `None` if one that is needed is missing or wrong.
fn read_oauth2(fields: &mut YamlFields<'_>, folder: &Path, mistakes: &Mistakes) -> Option<OAuth2Config> {
    let client_id = fields.required("client_id", YamlNode::text).map(str::to_owned);
    let names = ["client_secret", "client_secret_file", "client_secret_ref"];
    let client_secret = read_secret(fields, names, folder);
    let token_url = fields.required("token_url", |node| {
        let url = node.text()?;
        let authority = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
        match authority.is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/')) {
            true => Ok(url.to_owned()),
            false => Err(format!("{url:?} is not of the form https://HOST:PORT/PATH")),
        }
    });
    let grant = fields.optional("grant_type", text).flatten();
    if grant.is_some_and(|grant| grant != "client_credentials") {
        fields.wrong(
            "grant_type",
            "is not known here; take client_credentials, or Prometheus with the sidecar",
        );
    }
    for name in JWT_FIELDS {
        fields.refuse(name, "is not known here: it is for tokens that are signed; take client_secret");
    }
    let mut given_text = |path: String, node: &YamlNode| match node.scalar() {
        Ok(text) => Some(text),
        Err(why) => {
            mistakes.add(node.line, path, why);
            None
        }
    };
    let scopes = fields.list("scopes", &mut given_text);
    let mut endpoint_params = Vec::new();
    if let Some(node) = fields.node("endpoint_params") {
        let path = fields.path_of("endpoint_params");
        match &node.value {
            YamlValue::Map(entries) => {
                for (key, node) in entries {
                    let value = given_text(format!("{path}.{}", key.name()), node);
                    endpoint_params.extend(value.map(|value| (key.name().to_owned(), value)));
                }
            }
            _ => mistakes.add(node.line, path, format!("expected a mapping of texts, found {}", node.kind())),
        }
    }
    let default = HttpClientConfig::default().tls;
    let tls = match fields.node("tls_config") {
        Some(node) => read_tls(fields.path_of("tls_config"), node, folder, mistakes).unwrap_or(default),
        None => default,
    };
    let proxy = read_proxy(fields);
    Some(OAuth2Config {
        client_id: client_id?,
        client_secret,
        scopes,
        token_url: token_url?,
        endpoint_params,
        tls,
        proxy,
    })
}

/// Fields of `oauth2` for grants with a signed token.
const JWT_FIELDS: [&str; 8] = [
    "client_certificate_key_id",
    "client_certificate_key",
    "client_certificate_key_file",
    "client_certificate_key_ref",
    "signature_algorithm",
    "iss",
    "audience",
    "claims",
];

fn read_tls(path: String, node: &YamlNode, folder: &Path, mistakes: &Mistakes) -> Option<ClientTlsOptions> {
    let mut fields = YamlFields::new(path, node, mistakes);
    let mut inline = |name: &'static str, file: &'static str| {
        let pem = fields.optional(name, text).flatten();
        if pem.is_some() && fields.node(file).is_some_and(|node| !matches!(node.text_if_any(), Ok(None))) {
            fields.wrong(file, format!("and {name} are both given: give one of them"));
        }
        pem.map(|pem| PemSource::Text(name, pem.into()))
    };
    let (ca, cert, key) = (inline("ca", "ca_file"), inline("cert", "cert_file"), inline("key", "key_file"));
    for (name, file) in [("ca_ref", "ca_file"), ("cert_ref", "cert_file"), ("key_ref", "key_file")] {
        fields.refuse(name, format!("is not known here; use {file}"));
    }
    fields.refuse("max_version", "is not known here; the newest version that both sides know is spoken");
    let base = HttpClientConfig::default().tls;
    let mut read = ClientTlsFields::read(&mut fields);
    (read.inline_ca, read.inline_cert, read.inline_key) = (ca, cert, key);
    let options = read.over(&base, folder);
    let options = options.map_err(|mistake| fields.wrong("cert_file", mistake)).ok();
    fields.finish();
    options
}

fn read_proxy(fields: &mut YamlFields<'_>) -> ProxyConfig {
    let given = |node: &YamlNode| text(node)?.map(|url| url.parse::<ProxyUrl>()).transpose();
    let url = fields.optional("proxy_url", given).flatten();
    let except = fields.optional("no_proxy", text).flatten();
    let environment = fields.optional("proxy_from_environment", YamlNode::boolean).unwrap_or(false);
    fields.refuse("proxy_connect_header", "is not known here; take Prometheus with the sidecar");
    if environment && url.is_some() {
        fields.wrong("proxy_url", "and proxy_from_environment are both given: give one of them");
    }
    if environment && except.is_some() {
        fields.wrong(
            "no_proxy",
            "and proxy_from_environment are both given: set the variable NO_PROXY instead",
        );
    } else if except.is_some() && fields.node("proxy_url").is_none() {
        fields.wrong("no_proxy", "is given without proxy_url: give both");
    }
    match url {
        _ if environment => ProxyConfig::Environment,
        Some(url) => ProxyConfig::Url(url, NoProxy::parse(&except.unwrap_or_default())),
        None => ProxyConfig::None,
    }
}

fn read_headers(path: &str, node: &YamlNode, folder: &Path, mistakes: &Mistakes) -> Vec<HeaderConfig> {
    let YamlValue::Map(entries) = &node.value else {
        mistakes.add(node.line, path, format!("expected a mapping of headers, found {}", node.kind()));
        return Vec::new();
    };
    let mut headers = Vec::new();
    for (key, node) in entries {
        let path = format!("{path}.{}", key.name());
        let Ok(name) = key.name().parse::<HeaderName>() else {
            mistakes.add(node.line, path, "is not the name of a header");
            continue;
        };
        if RESERVED.contains(&name.as_str()) {
            mistakes.add(node.line, path, "must not be set: the client sets it itself");
            continue;
        }
        let mut fields = YamlFields::new(path, node, mistakes);
        let mut values = Vec::new();
        for (name, is_file) in [("values", false), ("secrets", false), ("files", true)] {
            values.extend(fields.list(name, |path, item| match item.scalar() {
                Ok(text) if is_file => Some(Secret::File(folder.join(text))),
                Ok(text) => Some(Secret::Text(text)),
                Err(why) => {
                    mistakes.add(item.line, path, why);
                    None
                }
            }));
        }
        fields.finish();
        headers.push(HeaderConfig { name, values });
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<HttpClientConfig, Vec<String>> {
        let (node, mistakes) = (YamlNode::parse(text).unwrap(), Mistakes::default());
        let mut fields = YamlFields::new("", &node, &mistakes);
        let config = HttpClientConfig::read(&mut fields, Path::new("/etc"), &mistakes);
        fields.finish();
        let mistakes = mistakes.into_sorted();
        if mistakes.is_empty() { Ok(config) } else { Err(mistakes.iter().map(ToString::to_string).collect()) }
    }

    #[test]
    fn credentials_proxies_and_headers_are_read() {
        assert_eq!(read("{}").unwrap(), HttpClientConfig::default());
        let text = |text: &str| Secret::Text(text.to_owned());
        let basic = read("basic_auth: {username: me, password_file: pw}").unwrap();
        let expected =
            AuthorizationConfig::Basic { username: text("me"), password: Secret::File("/etc/pw".into()) };
        assert_eq!(basic.authorization, Some(expected));
        let token = read("authorization: {credentials: t0ken}\nfollow_redirects: false").unwrap();
        let expected = AuthorizationConfig::Other { kind: "Bearer".into(), credentials: Some(text("t0ken")) };
        assert_eq!((token.authorization, token.follow_redirects), (Some(expected), false));
        let all = read(
            "bearer_token_file: /t\ntls_config: {ca_file: ca.pem}\nproxy_url: http://p:1\nno_proxy: a,b\nenable_http2: false\n\
             http_headers: {X-Scope: {values: [a, 1], files: [scope]}}",
        )
        .unwrap();
        assert_eq!(all.tls.ca, Some("/etc/ca.pem".into()));
        assert_eq!(all.proxy, ProxyConfig::Url("http://p:1".parse().unwrap(), NoProxy::parse("a,b")));
        assert_eq!(all.headers[0].values, [text("a"), text("1"), Secret::File("/etc/scope".into())]);
    }

    #[test]
    fn oauth2_and_certificates_in_the_file_are_read() {
        let config = read(
            "oauth2:\n  client_id: me\n  client_secret_file: pw\n  token_url: https://id/t\n  scopes: [a, b]\n  endpoint_params: {x: 1}\n  \
             tls_config: {ca: PEM}\ntls_config: {cert: C, key_file: k}\n",
        )
        .unwrap();
        let Some(AuthorizationConfig::OAuth2(oauth2)) = config.authorization else { panic!("{config:?}") };
        assert_eq!((oauth2.client_id.as_str(), oauth2.token_url.as_str()), ("me", "https://id/t"));
        assert_eq!(oauth2.client_secret, Some(Secret::File("/etc/pw".into())));
        assert_eq!(
            (oauth2.scopes, oauth2.endpoint_params),
            (vec!["a".into(), "b".into()], vec![("x".into(), "1".into())])
        );
        assert_eq!(oauth2.tls.ca, Some(PemSource::Text("ca", "PEM".to_owned().into())));
        let identity = (PemSource::Text("cert", "C".to_owned().into()), PemSource::File("/etc/k".into()));
        assert_eq!(config.tls.identity, Some(identity));
    }

    #[test]
    fn every_mistake_is_reported_with_its_line() {
        let check = |text: &str, expected: &[&str]| assert_eq!(read(text).unwrap_err(), expected, "{text}");
        check(
            "basic_auth: {username: a, username_file: b}\nbearer_token: x\noauth2: {client_id: c}\n",
            &[
                "line 1: basic_auth.username_file: and username are both given: give one of them",
                "line 1: basic_auth: and bearer_token are both given: give one of them",
                "line 3: oauth2.token_url: is missing",
            ],
        );
        check(
            "authorization: {type: Basic}\nno_proxy: a\nhttp_headers: {Host: {values: [a]}, 'a b': {}}\nproxy: x\n",
            &[
                "line 1: authorization.type: must not be basic: use basic_auth instead",
                "line 2: no_proxy: is given without proxy_url: give both",
                "line 3: http_headers.Host: must not be set: the client sets it itself",
                "line 3: http_headers.a b: is not the name of a header",
                "line 4: proxy: unknown field; known fields: basic_auth, authorization, oauth2, bearer_token, bearer_token_file, tls_config, \
                 follow_redirects, enable_http2, proxy_url, no_proxy, proxy_from_environment, http_headers",
            ],
        );
        check(
            "tls_config: {ca: text, ca_file: a, cert_file: c}\n",
            &[
                "line 1: tls_config.ca_file: and ca are both given: give one of them",
                "line 1: tls_config.cert_file: only one of cert_file and key_file is given, give both",
            ],
        );
        check(
            "oauth2: {client_id: c, token_url: x, grant_type: password, audience: a, endpoint_params: [b]}\nbasic_auth: {username: a}",
            &[
                "line 1: oauth2.token_url: \"x\" is not of the form https://HOST:PORT/PATH",
                "line 1: oauth2.grant_type: is not known here; take client_credentials, or Prometheus with the sidecar",
                "line 1: oauth2.audience: is not known here: it is for tokens that are signed; take client_secret",
                "line 1: oauth2.endpoint_params: expected a mapping of texts, found a list",
            ],
        );
        check(
            "oauth2: {client_id: c, token_url: 'http://x/t'}\nbasic_auth: {username: a}",
            &["line 2: basic_auth: and oauth2 are both given: give one of them"],
        );
    }
}
