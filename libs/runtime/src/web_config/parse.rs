//! Reads the file.

use std::path::{Path, PathBuf};
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use tls::{ClientAuth, PemSource, ServerTlsOptions, TlsVersion};

use crate::duration::parse_duration;
use crate::yaml::{Mistake, Mistakes, YamlFields, YamlNode, YamlValue};

/// The headers that may be set, and their values where only some are allowed.
const HEADERS: [(&str, &[&str]); 5] = [
    ("Content-Security-Policy", &[]),
    ("Strict-Transport-Security", &[]),
    ("X-Content-Type-Options", &["nosniff"]),
    ("X-Frame-Options", &["deny", "sameorigin"]),
    ("X-XSS-Protection", &[]),
];

/// What the file says.
#[derive(Debug, Default)]
pub(super) struct WebConfigFile {
    pub(super) tls: Option<ServerTlsOptions>,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    /// Users and the hashes of their passwords.
    pub(super) users: Vec<(String, String)>,
    /// Time between two requests, and how many may come at once.
    pub(super) rate_limit: Option<(Duration, u32)>,
}

impl WebConfigFile {
    /// Parses the text of a file in `folder`.
    ///
    /// # Errors
    /// All mistakes; at least one.
    pub(super) fn parse(text: &str, folder: &Path) -> Result<Self, Vec<Mistake>> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let root = YamlNode::parse(text).map_err(|mistake| vec![mistake])?;
        let mistakes = Mistakes::default();
        let mut fields = YamlFields::new("", &root, &mistakes);
        let (http2, headers) = match fields.node("http_server_config") {
            Some(node) => read_http(node, &mistakes),
            None => (true, Vec::new()),
        };
        let tls = fields.node("tls_server_config").and_then(|node| read_tls(node, folder, http2, &mistakes));
        let users =
            fields.node("basic_auth_users").map(|node| read_users(node, &mistakes)).unwrap_or_default();
        let rate_limit = fields.node("rate_limit").and_then(|node| read_rate_limit(node, &mistakes));
        fields.finish();
        match mistakes.into_sorted() {
            none if none.is_empty() => Ok(Self { tls, headers, users, rate_limit }),
            mistakes => Err(mistakes),
        }
    }
}

fn read_http(node: &YamlNode, mistakes: &Mistakes) -> (bool, Vec<(HeaderName, HeaderValue)>) {
    let mut fields = YamlFields::new("http_server_config", node, mistakes);
    let http2 = fields.optional("http2", YamlNode::boolean).unwrap_or(true);
    let headers = fields.node("headers").map(|node| read_headers(node, mistakes)).unwrap_or_default();
    fields.finish();
    (http2, headers)
}

fn read_headers(node: &YamlNode, mistakes: &Mistakes) -> Vec<(HeaderName, HeaderValue)> {
    let mut fields = YamlFields::new("http_server_config.headers", node, mistakes);
    let mut headers = Vec::new();
    for (name, allowed) in HEADERS {
        let value = fields.optional(name, |node| {
            let text = node.text()?;
            if !allowed.is_empty() && !allowed.contains(&text) {
                return Err(format!("{text:?} is not allowed, expected {}", allowed.join(" or ")));
            }
            HeaderValue::from_str(text).map_err(|_| format!("{text:?} is not the value of a header"))
        });
        if let (Some(value), Ok(name)) = (value, HeaderName::from_bytes(name.as_bytes())) {
            headers.push((name, value));
        }
    }
    fields.finish();
    headers
}

fn read_tls(node: &YamlNode, folder: &Path, http2: bool, mistakes: &Mistakes) -> Option<ServerTlsOptions> {
    let mut fields = YamlFields::new("tls_server_config", node, mistakes);
    let cert = read_source(&mut fields, ["cert", "cert_file"], folder);
    let key = read_source(&mut fields, ["key", "key_file"], folder);
    let client_ca = read_source(&mut fields, ["client_ca", "client_ca_file"], folder);
    let client_auth = fields.optional("client_auth_type", read_client_auth);
    let client_names = fields.parsed_list::<String>("client_allowed_sans");
    let min_version = fields.optional("min_version", read_version);
    let max_version = fields.optional("max_version", |node| match read_version(node)? {
        _ if matches!(node.text()?, "TLS10" | "TLS11") => Err("TLS before 1.2 is not supported".to_owned()),
        version => Ok(version),
    });
    let cipher_suites = fields.parsed_list("cipher_suites");
    let curves = fields.parsed_list("curve_preferences");
    // Go ignores it since version 1.18: both sides' preferences are weighed.
    let _ = fields.optional("prefer_server_cipher_suites", YamlNode::boolean);

    let client_auth = match (client_auth, &client_ca) {
        (Some(auth), None) if auth.verifies() => {
            fields.wrong("client_auth_type", "needs client_ca_file or client_ca, the CAs of clients");
            auth
        }
        (None | Some(ClientAuth::NoClientCert), Some(_)) => {
            fields.wrong(
                "client_auth_type",
                "is missing or NoClientCert, but there are CAs of clients: set it to RequireAndVerifyClientCert",
            );
            ClientAuth::NoClientCert
        }
        (auth, _) => auth.unwrap_or_default(),
    };
    let (min, max) = (min_version.unwrap_or(TlsVersion::Tls12), max_version.unwrap_or(TlsVersion::Tls13));
    if min > max {
        fields.wrong("min_version", format!("TLS {min} is newer than max_version, TLS {max}"));
    }
    // As in the toolkit, a section without any of these fields does not switch TLS on.
    let is_on =
        cert.is_some() || key.is_some() || client_ca.is_some() || client_auth != ClientAuth::NoClientCert;
    if is_on && cert.is_none() {
        fields.wrong(
            "cert_file",
            "is missing: give the certificate of the server, or remove tls_server_config",
        );
    }
    if is_on && key.is_none() {
        fields.wrong("key_file", "is missing: give the private key of the certificate");
    }
    fields.finish();
    let alpn = if http2 { vec![&b"h2"[..], b"http/1.1"] } else { vec![&b"http/1.1"[..]] };
    Some(ServerTlsOptions {
        cert: cert?,
        key: key?,
        client_auth,
        client_ca,
        client_names,
        min_version: min,
        max_version: max,
        cipher_suites,
        curves,
        alpn,
    })
}

/// PEM from the text of one field, or from the file that another one names.
fn read_source(
    fields: &mut YamlFields<'_>,
    [inline, file]: [&'static str; 2],
    folder: &Path,
) -> Option<PemSource> {
    let text = fields.optional(inline, YamlNode::text_if_any);
    let path = fields.optional(file, YamlNode::text_if_any);
    match (text.flatten(), path.flatten()) {
        (Some(_), Some(_)) => {
            fields.wrong(inline, format!("and {file} are both given: give one of them"));
            None
        }
        (Some(text), None) => Some(PemSource::Text(inline, text.to_owned().into())),
        (None, path) => path.map(|path| PemSource::File(PathBuf::from(folder).join(path))),
    }
}

fn read_client_auth(node: &YamlNode) -> Result<ClientAuth, String> {
    match node.text()? {
        "NoClientCert" => Ok(ClientAuth::NoClientCert),
        "RequestClientCert" => Ok(ClientAuth::RequestClientCert),
        "RequireAnyClientCert" | "RequireClientCert" => Ok(ClientAuth::RequireAnyClientCert),
        "VerifyClientCertIfGiven" => Ok(ClientAuth::VerifyClientCertIfGiven),
        "RequireAndVerifyClientCert" => Ok(ClientAuth::RequireAndVerifyClientCert),
        other => Err(format!(
            "{other:?} is none of NoClientCert, RequestClientCert, RequireAnyClientCert, VerifyClientCertIfGiven, RequireAndVerifyClientCert"
        )),
    }
}

/// The versions before 1.2 are never spoken: as a minimum, they mean 1.2.
fn read_version(node: &YamlNode) -> Result<TlsVersion, String> {
    match node.text()? {
        "TLS10" | "TLS11" | "TLS12" => Ok(TlsVersion::Tls12),
        "TLS13" => Ok(TlsVersion::Tls13),
        other => Err(format!("{other:?} is not a version of TLS, expected TLS12 or TLS13")),
    }
}

fn read_users(node: &YamlNode, mistakes: &Mistakes) -> Vec<(String, String)> {
    const FIELD: &str = "basic_auth_users";
    let YamlValue::Map(entries) = &node.value else {
        mistakes.add(
            node.line,
            FIELD,
            format!("expected users and hashes of passwords, found {}", node.kind()),
        );
        return Vec::new();
    };
    let read = |name: &str, hash: &YamlNode| {
        let checked = hash.text().and_then(|text| match text.parse::<bcrypt::HashParts>() {
            Ok(_) => Ok(text.to_owned()),
            Err(_) => Err("is not a bcrypt hash; make one with `htpasswd -nBC 10 \"\"`".to_owned()),
        });
        checked.map_err(|text| mistakes.add(hash.line, format!("{FIELD}.{name}"), text)).ok()
    };
    entries
        .iter()
        .filter_map(|(user, hash)| Some((user.name().to_owned(), read(user.name(), hash)?)))
        .collect()
}

fn read_rate_limit(node: &YamlNode, mistakes: &Mistakes) -> Option<(Duration, u32)> {
    let mut fields = YamlFields::new("rate_limit", node, mistakes);
    let interval = fields.optional("interval", |node| match node.value {
        YamlValue::Integer(0) => Ok(Duration::ZERO),
        _ => parse_duration(node.text()?).map_err(|error| error.to_string()),
    });
    let burst = fields.optional("burst", |node| node.integer(0, i64::from(u32::MAX)));
    let interval = interval.filter(|interval| !interval.is_zero());
    if interval.is_some() && burst.unwrap_or(0) == 0 {
        fields.wrong("burst", "is 0, so that every request would be rejected: set it to 1 or more");
    }
    fields.finish();
    Some((interval?, u32::try_from(burst?).ok()?))
}
