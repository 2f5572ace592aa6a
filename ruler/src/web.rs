//! The flags of the HTTP server: paths behind proxies.

use http::HeaderName;
use querier::{WebPath, WebPaths};

/// `--web.*` and `--alert.query-url`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct WebArgs {
    /// Serve the API, the start page and /-/reload below this path, as in https://HOST/PATH/api/v1; the value of
    /// --web.external-prefix if not set, / for the root. Metrics and probes stay at the root
    #[arg(long = "web.route-prefix", value_name = "PATH", default_value = "", hide_default_value = true)]
    route_prefix: String,

    /// Path at which a proxy shows the ruler; the start page links to it
    #[arg(long = "web.external-prefix", value_name = "PATH", default_value = "", hide_default_value = true)]
    external_prefix: WebPath,

    /// Read the path of --web.external-prefix from this header of each request, such as X-Forwarded-Prefix;
    /// not used if --web.external-prefix is set. Use it only behind a proxy that sets or removes this header
    #[arg(long = "web.prefix-header", value_name = "HEADER", default_value = "", hide_default_value = true)]
    prefix_header: String,

    /// Send no CORS headers, so that web pages of other origins cannot read answers
    #[arg(long = "web.disable-cors")]
    pub(crate) disable_cors: bool,

    /// URL at which users reach the querier: the links of alerts begin with it, and templates of alerts have it as
    /// externalURL
    #[arg(long = "alert.query-url", value_name = "URL", default_value = "", hide_default_value = true)]
    pub(crate) query_url: String,
}

impl WebArgs {
    /// Checks the flags.
    ///
    /// # Errors
    /// Names the flag that is wrong.
    pub(crate) fn check(&self) -> Result<WebPaths, String> {
        let header: Option<HeaderName> = match self.prefix_header.as_str() {
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
}
