//! Which endpoints there are: in a configuration file, or as a URL.

use std::path::{Path, PathBuf};
use std::time::Duration;

use http::Uri;
use runtime::yaml::{Mistakes, YamlFields, YamlNode, YamlValue};
use runtime::{FileListing, FileLists, parse_duration};
use url::Url;

use crate::config::{AuthorizationConfig, HttpClientConfig};
use crate::endpoints::address::{HttpAddress, split_prefix};
use crate::secret::Secret;

/// How often files are read if no event of the file system says that they have changed.
const REFRESH_INTERVAL: Duration = Duration::from_secs(300);

/// Endpoints of one service, with the fields that Thanos has for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpEndpointsConfig {
    /// The client.
    pub http: HttpClientConfig,
    /// Whether they are asked with TLS.
    pub is_https: bool,
    /// What is before the path of each request: empty, or with `/` at its begin and not at its end.
    pub path_prefix: String,
    /// Addresses that are given.
    pub addresses: Vec<HttpAddress>,
    /// Addresses in files.
    pub files: Vec<HttpFilesConfig>,
    /// The port of addresses from DNS, where neither the address nor DNS has one.
    pub default_port: u16,
}

/// Files with addresses, in the form of Prometheus' file discovery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpFilesConfig {
    /// The files. The last part of a path may contain `*`.
    pub patterns: Vec<PathBuf>,
    /// How often they are read if no event of the file system says that they have changed.
    pub refresh_interval: Duration,
}

impl HttpEndpointsConfig {
    /// Reads the fields `http_config`, `static_configs`, `file_sd_configs`, `scheme` and `path_prefix`, beside other fields of the
    /// same mapping. Paths are relative to `folder`.
    pub fn read(fields: &mut YamlFields<'_>, folder: &Path, default_port: u16, mistakes: &Mistakes) -> Self {
        let http = fields.node("http_config").map(|node| {
            let mut own = YamlFields::new(fields.path_of("http_config"), node, mistakes);
            let http = HttpClientConfig::read(&mut own, folder, mistakes);
            if let Some(node) = own.node("transport_config") {
                read_transport(own.path_of("transport_config"), node, mistakes);
            }
            own.finish();
            http
        });
        let addresses = fields.parsed_list("static_configs");
        let files = fields.list("file_sd_configs", |path, node| read_files(path, node, folder, mistakes));
        let is_https = fields.optional("scheme", |node| match node.text_if_any()? {
            None | Some("http") => Ok(false),
            Some("https") => Ok(true),
            Some(other) => Err(format!("is {other:?}, expected http or https")),
        });
        let prefix =
            |node: &YamlNode| node.text_if_any().map(Option::unwrap_or_default).and_then(path_prefix);
        let path_prefix = fields.optional("path_prefix", prefix).unwrap_or_default();
        Self {
            http: http.unwrap_or_default(),
            is_https: is_https.unwrap_or_default(),
            path_prefix,
            addresses,
            files,
            default_port,
        }
    }

    /// The addresses that the files have now, and the files that cannot be read.
    pub fn listed(&self) -> FileListing<HttpAddress> {
        let patterns = self.files.iter().flat_map(|files| files.patterns.clone()).collect();
        FileLists::new("endpoints", patterns, |_, text| parse_targets(text)).scan()
    }

    /// Endpoints at a URL, such as `http://HOST:PORT/PREFIX`. The prefix of a lookup is before the scheme (`dns+http://HOST`) or
    /// before the host (`http://dns+HOST`). A URL without a scheme has `http`. A user and password are those of basic
    /// authentication.
    ///
    /// # Errors
    /// What is wrong with the URL. The text does not contain its password.
    pub fn from_url(text: &str, default_port: u16) -> Result<Self, String> {
        let (lookup, rest) = split_prefix(text);
        let (scheme, rest) = rest.split_once("://").unwrap_or(("http", rest));
        let is_https = match scheme.to_ascii_lowercase().as_str() {
            "http" => false,
            "https" => true,
            _ => return Err(format!("scheme {scheme:?} is not known, expected http, https or dns+http")),
        };
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let (user, host) = authority.rsplit_once('@').map_or((None, authority), |(u, h)| (Some(u), h));
        if !lookup.is_empty() && !split_prefix(host).0.is_empty() {
            return Err("has two prefixes of lookups in DNS, expected one".to_owned());
        }
        let address: HttpAddress = format!("{lookup}{host}").parse().map_err(|why| format!("{why}"))?;
        let authorization = user.map(basic_auth).transpose()?;
        Ok(Self {
            http: HttpClientConfig { authorization, ..HttpClientConfig::default() },
            is_https,
            path_prefix: path_prefix(path)?,
            addresses: vec![address],
            files: Vec::new(),
            default_port,
        })
    }
}

/// User and password of a URL, decoded.
fn basic_auth(user: &str) -> Result<AuthorizationConfig, String> {
    // The host is not needed: the URL decodes what is before it.
    let wrong = || "user and password are not valid in a URL".to_owned();
    let url = Url::parse(&format!("http://{user}@host/")).map_err(|_| wrong())?;
    let decode = |text: &str| {
        // A form would decode `+` as a space.
        let pair = format!("a={}", text.replace('+', "%2B"));
        let decoded =
            url::form_urlencoded::parse(pair.as_bytes()).next().map(|(_, value)| value.into_owned());
        decoded.ok_or_else(wrong).map(Secret::Text)
    };
    Ok(AuthorizationConfig::Basic {
        username: decode(url.username())?,
        password: decode(url.password().unwrap_or_default())?,
    })
}

/// `a//b/` becomes `/a/b`.
fn path_prefix(text: &str) -> Result<String, String> {
    let parts = text.split('/').filter(|part| !part.is_empty());
    let prefix: String = parts.flat_map(|part| ["/", part]).collect();
    let is_path = prefix.is_empty() || prefix.parse::<Uri>().is_ok_and(|uri| uri.path() == prefix);
    match is_path {
        true => Ok(prefix),
        false => {
            Err(format!("path prefix {text:?} is not the path of a URL, expected for example /alertmanager"))
        }
    }
}

fn read_files(path: String, node: &YamlNode, folder: &Path, mistakes: &Mistakes) -> Option<HttpFilesConfig> {
    let mut fields = YamlFields::new(path, node, mistakes);
    let patterns: Vec<PathBuf> = fields.list("files", |path, item| match item.text().and_then(pattern) {
        Ok(text) => Some(folder.join(text)),
        Err(why) => {
            mistakes.add(item.line, path, why);
            None
        }
    });
    if fields.node("files").is_none() {
        fields.wrong("files", "is missing");
    }
    let interval = |node: &YamlNode| match node.text_if_any()? {
        None => Ok(REFRESH_INTERVAL),
        Some(text) => parse_duration(text).map_err(|why| why.to_string()),
    };
    let refresh_interval = fields.optional("refresh_interval", interval).unwrap_or(REFRESH_INTERVAL);
    fields.finish();
    let refresh_interval = if refresh_interval.is_zero() { REFRESH_INTERVAL } else { refresh_interval };
    Some(HttpFilesConfig { patterns, refresh_interval })
}

fn pattern(text: &str) -> Result<&str, String> {
    let end = Path::new(text).extension().and_then(|end| end.to_str()).map(str::to_ascii_lowercase);
    let folder = text.rsplit_once('/').map_or("", |(folder, _)| folder);
    match matches!(end.as_deref(), Some("json" | "yml" | "yaml")) && !folder.contains('*') {
        true => Ok(text),
        false => Err(format!(
            "path {text:?} must end in .json, .yml or .yaml, and may contain * only in its last part"
        )),
    }
}

/// Thanos' settings of connections. They are checked; connections are managed by the client itself.
fn read_transport(path: String, node: &YamlNode, mistakes: &Mistakes) {
    let mut fields = YamlFields::new(path, node, mistakes);
    for name in [
        "max_idle_conns",
        "max_idle_conns_per_host",
        "idle_conn_timeout",
        "response_header_timeout",
        "expect_continue_timeout",
        "max_conns_per_host",
        "tls_handshake_timeout",
        "dialer_timeout",
    ] {
        let _ = fields.optional(name, |node| node.integer(i64::MIN, i64::MAX));
    }
    let _ = fields.optional("disable_compression", YamlNode::boolean);
    fields.finish();
}

/// The addresses in a file; labels of groups are ignored, as in Thanos.
///
/// # Errors
/// The first mistake, with its line.
pub(super) fn parse_targets(text: &str) -> Result<Vec<HttpAddress>, String> {
    let root = YamlNode::parse(text).map_err(|mistake| mistake.to_string())?;
    let groups = match &root.value {
        YamlValue::List(groups) => groups.as_slice(),
        YamlValue::Null => &[],
        _ => return Err(format!("expected a list of groups with targets, found {}", root.kind())),
    };
    let mistakes = Mistakes::default();
    let mut addresses = Vec::new();
    for (at, group) in groups.iter().enumerate() {
        let mut fields = YamlFields::new(format!("[{at}]"), group, &mistakes);
        addresses.extend(fields.parsed_list::<HttpAddress>("targets"));
        let _ = fields.node("labels");
        fields.finish();
    }
    mistakes.into_sorted().first().map_or(Ok(addresses), |mistake| Err(mistake.to_string()))
}

#[cfg(test)]
mod tests;
