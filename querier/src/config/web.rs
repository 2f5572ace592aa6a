//! The flags of the HTTP server: paths behind proxies, and what the pages link to.

use std::collections::BTreeMap;
use std::str::FromStr;

use http::HeaderName;

/// `--web.*` except CORS, and `--alert.query-url`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct WebArgs {
    /// Serve the API and the start page below this path, as in https://HOST/PATH/api/v1; the value of
    /// --web.external-prefix if not set, / for the root. Metrics, probes and reload stay at the root
    #[arg(long = "web.route-prefix", value_name = "PATH", default_value = "", hide_default_value = true)]
    route_prefix: String,

    /// Path at which a proxy shows the querier; the start page links to it
    #[arg(long = "web.external-prefix", value_name = "PATH", default_value = "", hide_default_value = true)]
    external_prefix: WebPath,

    /// Read the path of --web.external-prefix from this header of each request, such as X-Forwarded-Prefix;
    /// not used if --web.external-prefix is set. Use it only behind a proxy that sets or removes this header
    #[arg(long = "web.prefix-header", value_name = "HEADER", default_value = "", hide_default_value = true)]
    prefix_header: String,

    /// URL at which users reach the querier; the start page links to it
    #[arg(long = "alert.query-url", value_name = "URL", default_value = "", hide_default_value = true)]
    pub(crate) query_url: String,
}

/// How the HTTP server is reached.
#[derive(Clone, Debug, Default)]
pub struct WebPaths {
    /// The API and the start page are served below this path.
    pub route: WebPath,
    /// The path at which a proxy shows the program; empty if not known.
    pub external: WebPath,
    /// The header with that path.
    pub header: Option<HeaderName>,
    /// URL at which users reach the querier; empty if not known.
    pub query_url: String,
}

impl WebArgs {
    /// Checks the flags.
    ///
    /// # Errors
    /// Names the flag that is wrong.
    pub(crate) fn check(&self) -> Result<WebPaths, String> {
        let header = match self.prefix_header.as_str() {
            "" => None,
            name => Some(name.parse().map_err(|_| {
                format!("--web.prefix-header={name}: is not the name of a header, such as X-Forwarded-Prefix")
            })?),
        };
        let external = self.external_prefix.clone();
        let route = match self.route_prefix.as_str() {
            "" => external.clone(),
            path => path.parse().map_err(|why| format!("--web.route-prefix={path}: {why}"))?,
        };
        Ok(WebPaths { route, external, header, query_url: self.query_url.clone() })
    }

    /// The settings by flag.
    pub(crate) fn flags(&self) -> BTreeMap<String, String> {
        let shown = [
            ("web.route-prefix", &*self.route_prefix),
            ("web.external-prefix", self.external_prefix.as_str()),
            ("web.prefix-header", &self.prefix_header),
            ("alert.query-url", &self.query_url),
        ];
        shown.into_iter().map(|(flag, value)| (flag.to_owned(), value.to_owned())).collect()
    }
}

/// A path below which something is served: empty for the root, else `/a/b`, without a slash at its end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WebPath(String);

impl WebPath {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The number of its parts.
    pub(crate) fn depth(&self) -> usize {
        self.0.matches('/').count()
    }
}

/// The text is not a path.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("path {0:?} has characters other than letters, digits and -._~/; write a path such as /thanos")]
pub struct WebPathError(String);

impl FromStr for WebPath {
    type Err = WebPathError;

    /// Doubled slashes, `.` and the slash at the end are removed, `..` removes the part before it, as in Thanos. Of a URL,
    /// the path is used.
    fn from_str(text: &str) -> Result<Self, WebPathError> {
        let path = match text.split_once("://") {
            Some((_, rest)) => rest.split_once('/').map_or("", |(_, path)| path),
            None => text,
        };
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-._~/".contains(c);
        if !path.chars().all(allowed) {
            return Err(WebPathError(text.chars().take(140).collect()));
        }
        let mut parts: Vec<&str> = Vec::new();
        for part in path.split('/') {
            match part {
                "" | "." => {}
                ".." => drop(parts.pop()),
                part => parts.push(part),
            }
        }
        Ok(Self(parts.iter().map(|part| format!("/{part}")).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_have_one_form() {
        for (text, path) in [
            ("", ""),
            ("/", ""),
            ("thanos", "/thanos"),
            ("//a//b/./", "/a/b"),
            ("/a/../../b", "/b"),
            ("https://x.example/a/b/", "/a/b"),
            ("https://x.example", ""),
        ] {
            assert_eq!(text.parse::<WebPath>().unwrap().as_str(), path, "{text}");
        }
        for text in ["/a b", "/<script>", "/a\"", "/a?b", "/{name}", "/ä", "/%2e"] {
            assert!(text.parse::<WebPath>().unwrap_err().to_string().contains("such as /thanos"), "{text}");
        }
    }
}
