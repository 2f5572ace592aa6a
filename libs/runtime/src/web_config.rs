//! `--http.config`: TLS, basic authentication, headers and a rate limit for the HTTP server.
//!
//! The file has the format of Prometheus' exporter toolkit:
//! <https://github.com/prometheus/exporter-toolkit/blob/v0.15.0/docs/web-configuration.md>. It is read again when it or one of
//! the files that it names changes.

mod guard;
mod parse;
mod passwords;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use http::{HeaderName, HeaderValue};
use tls::{Loaded, ServerHandshake, Watched, read_file};

pub(crate) use guard::{KnownUser, WebGuard};

use guard::RateLimit;
use parse::WebConfigFile;

/// What the file says, ready for use.
#[derive(Debug)]
pub(crate) struct WebConfig {
    /// `None` for plain HTTP.
    pub(crate) tls: Option<ServerHandshake>,
    /// Added to each answer.
    headers: Vec<(HeaderName, HeaderValue)>,
    /// Hashes of passwords by user; empty if no user is asked for.
    users: Vec<(String, String)>,
    rate_limit: Option<RateLimit>,
}

impl WebConfig {
    /// Reads the file and watches it.
    ///
    /// # Errors
    /// All mistakes of the file, or a certificate that cannot be used.
    pub(crate) fn watch(path: PathBuf) -> Result<Arc<Watched<Self>>, String> {
        let has_tls = Self::load(&path)?.value.tls.is_some();
        let what = format!("--http.config={}", path.display());
        let load = move || {
            let loaded = Self::load(&path)?;
            if loaded.value.tls.is_some() != has_tls {
                let (from, to) = if has_tls { ("on", "off") } else { ("off", "on") };
                return Err(format!("{}: TLS is {from}; restart to turn it {to}", path.display()));
            }
            Ok(loaded)
        };
        Ok(Arc::new(Watched::load(what, load)?))
    }

    fn load(path: &Path) -> Result<Loaded<Self>, String> {
        let name = path.display();
        let text = read_file(path)?;
        let text = std::str::from_utf8(&text).map_err(|_| format!("{name}: is not valid UTF-8"))?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let file = WebConfigFile::parse(text, folder).map_err(|mistakes| {
            let lines: Vec<String> = mistakes.iter().map(|mistake| format!("{name}: {mistake}")).collect();
            lines.join("\n")
        })?;
        let mut files = vec![path.to_owned()];
        let mut tls = None;
        if let Some(options) = file.tls {
            let loaded = options.load().map_err(|mistake| format!("{name}: tls_server_config: {mistake}"))?;
            files.extend(loaded.files);
            tls = Some(loaded.value);
        }
        let rate_limit = file.rate_limit.map(|(interval, burst)| RateLimit::new(interval, burst));
        Ok(Loaded { value: Self { tls, headers: file.headers, users: file.users, rate_limit }, files })
    }
}

#[cfg(test)]
mod tests;
