//! Where the HTTP server is reached, with the flags of Prometheus.

use std::collections::BTreeMap;

use crate::config::{WebPath, WebPaths};

/// `--web.external-url` and `--web.route-prefix`.
#[derive(Clone, Debug, clap::Args)]
pub struct LocalWebArgs {
    /// URL at which users reach this program, for example through a proxy; the start page links to it. Its path is where
    /// everything is served, unless --web.route-prefix says otherwise
    #[arg(long = "web.external-url", value_name = "URL", default_value = "", hide_default_value = true)]
    external_url: String,

    /// Serve the API and the start page below this path, / for the root; the path of --web.external-url if not set. Metrics,
    /// probes and reload are served below it and at the root
    #[arg(long = "web.route-prefix", value_name = "PATH", default_value = "", hide_default_value = true)]
    route_prefix: String,
}

/// The checked flags.
#[derive(Clone, Debug)]
pub struct LocalWebPaths {
    pub(crate) paths: WebPaths,
    route_prefix: String,
}

impl LocalWebArgs {
    /// Checks the flags.
    ///
    /// # Errors
    /// Names the flag that is wrong.
    pub fn check(&self) -> Result<LocalWebPaths, String> {
        let url = self.external_url.as_str();
        let is_url = match url.split_once("://") {
            Some((scheme, rest)) => {
                matches!(scheme, "http" | "https") && !rest.is_empty() && !rest.starts_with('/')
            }
            None => url.is_empty() || url.starts_with('/'),
        };
        if !is_url || url.contains(['"', '\'', '?', '#']) {
            return Err(format!(
                "--web.external-url={url}: is not a URL without a query, such as https://HOST/PATH"
            ));
        }
        let external: WebPath = url.parse().map_err(|why| format!("--web.external-url={url}: {why}"))?;
        let route = match self.route_prefix.as_str() {
            "" => external.clone(),
            path => path.parse().map_err(|why| format!("--web.route-prefix={path}: {why}"))?,
        };
        let paths = WebPaths { route, external, header: None, query_url: url.to_owned() };
        Ok(LocalWebPaths { paths, route_prefix: self.route_prefix.clone() })
    }
}

impl LocalWebPaths {
    /// The path below which everything is served: empty for the root, else `/a/b`.
    pub fn route_prefix(&self) -> &str {
        self.paths.route.as_str()
    }

    /// The paths.
    pub fn paths(&self) -> WebPaths {
        self.paths.clone()
    }

    /// The settings by flag.
    pub fn flags(&self) -> BTreeMap<String, String> {
        let shown = [("web.external-url", &self.paths.query_url), ("web.route-prefix", &self.route_prefix)];
        shown.into_iter().map(|(flag, value)| (flag.to_owned(), value.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(external_url: &str, route_prefix: &str) -> Result<(String, String), String> {
        let args =
            LocalWebArgs { external_url: external_url.to_owned(), route_prefix: route_prefix.to_owned() };
        let web = args.check()?;
        Ok((web.route_prefix().to_owned(), web.paths.external.as_str().to_owned()))
    }

    #[test]
    fn the_prefix_is_the_path_of_the_url_if_it_is_not_given() {
        for (url, prefix, route, external) in [
            ("", "", "", ""),
            ("https://x.example", "", "", ""),
            ("https://x.example/prom/", "", "/prom", "/prom"),
            ("/a/b", "", "/a/b", "/a/b"),
            ("https://x.example/prom", "/", "", "/prom"),
            ("", "prom", "/prom", ""),
        ] {
            let expected = Ok((route.to_owned(), external.to_owned()));
            assert_eq!(check(url, prefix), expected, "{url} {prefix}");
        }
    }

    #[test]
    fn wrong_urls_are_refused_by_the_name_of_their_flag() {
        for url in ["x.example/prom", "ftp://x/y", "https:///y", "https://x/y?z", "https://x/\"", "'"] {
            assert!(check(url, "").unwrap_err().starts_with("--web.external-url="), "{url}");
        }
        assert!(check("", "/a b").unwrap_err().starts_with("--web.route-prefix="));
    }
}
