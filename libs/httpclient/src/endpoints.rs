//! The endpoints of a service that may run several times: given, looked up in DNS, or listed in files.
//!
//! Reading order: `address`, `config`; the endpoints at work are here.

mod address;
mod config;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use prometheus_client::metrics::counter::Counter;
use runtime::{DnsResolver, FileListing, FileLists, Shutdown};
use tokio::sync::{Notify, watch};
use tracing::{info, warn};

pub use address::{HttpAddress, HttpAddressError};
pub use config::{HttpEndpointsConfig, HttpFilesConfig};

use crate::client::HttpClient;

/// The endpoints of one configuration, as base URLs, and the client to ask them.
///
/// A name that cannot be looked up keeps the endpoints that it had; so does a file that cannot be read.
#[derive(Debug)]
pub struct HttpEndpoints {
    what: String,
    config: HttpEndpointsConfig,
    client: HttpClient,
    /// The addresses in files, one list for each entry of the configuration.
    listed: Mutex<Vec<Vec<HttpAddress>>>,
    /// Notified when `listed` has changed.
    changed: Arc<Notify>,
    urls: watch::Sender<Arc<[String]>>,
    counters: DnsCounters,
}

/// Lookups of names of endpoints in DNS. Clones share the counters.
#[derive(Clone, Debug, Default)]
pub struct DnsCounters {
    /// Names that were looked up.
    pub lookups: Counter,
    /// Lookups without an answer.
    pub failures: Counter,
}

/// What is known of names in DNS.
#[derive(Default)]
struct Known {
    endpoints: BTreeMap<HttpAddress, Vec<String>>,
    failing: BTreeSet<HttpAddress>,
}

impl HttpEndpoints {
    /// The endpoints, of which those that need no lookup are known at once. `what` describes them in log lines, such as
    /// `alertmanager`.
    ///
    /// # Errors
    /// A file of the TLS settings, or a proxy of the environment, cannot be used.
    pub fn new(what: &str, config: HttpEndpointsConfig) -> Result<Self, String> {
        let client = HttpClient::new(what, config.http.clone())?;
        let listed = Mutex::new(vec![Vec::new(); config.files.len()]);
        let fixed = config.addresses.iter().filter_map(HttpAddress::fixed);
        let urls = watch::Sender::new(urls_of(&config, fixed));
        let (changed, counters) = (Arc::new(Notify::new()), DnsCounters::default());
        Ok(Self { what: what.to_owned(), config, client, listed, changed, urls, counters })
    }

    /// Counts lookups in DNS with these counters.
    #[must_use]
    pub fn counting(self, counters: DnsCounters) -> Self {
        Self { counters, ..self }
    }

    /// The settings.
    pub fn config(&self) -> &HttpEndpointsConfig {
        &self.config
    }

    /// The client, with the settings of these endpoints.
    pub fn client(&self) -> &HttpClient {
        &self.client
    }

    /// The base URLs now, sorted and unique, such as `http://10.0.0.1:9093/prefix`, without `/` at the end.
    pub fn urls(&self) -> Arc<[String]> {
        self.urls.borrow().clone()
    }

    /// The base URLs, now and when they change.
    pub fn subscribe(&self) -> watch::Receiver<Arc<[String]>> {
        self.urls.subscribe()
    }

    /// Looks names up each `dns_interval`, and reads files when they change, until shutdown.
    pub async fn run(&self, dns_interval: Duration, shutdown: Shutdown) {
        let files = self.config.files.iter().enumerate().map(|(at, files)| {
            let lists =
                FileLists::new("endpoints", files.patterns.clone(), |_, text| config::parse_targets(text));
            let apply = move |listing: FileListing<HttpAddress>| self.apply(at, listing);
            lists.follow(files.refresh_interval, Arc::new(Notify::new()), apply)
        });
        let follow = async { futures::join!(join_all(files), self.follow_names(dns_interval)) };
        let _ = shutdown.until_triggered(follow).await;
    }

    fn apply(&self, at: usize, listing: FileListing<HttpAddress>) {
        let mut listed = self.listed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = listed.get_mut(at).filter(|own| **own != listing.items) {
            *own = listing.items;
            self.changed.notify_one();
        }
    }

    async fn follow_names(&self, dns_interval: Duration) {
        let mut known = Known::default();
        loop {
            // Read each time, because the servers may change.
            match DnsResolver::system() {
                Ok(resolver) => self.refresh(&mut known, &resolver).await,
                Err(error) => {
                    warn!(what = self.what, error = %error, "names of endpoints cannot be looked up")
                }
            }
            let _ = tokio::time::timeout(dns_interval, self.changed.notified()).await;
        }
    }

    /// Looks all names up, and publishes the endpoints.
    async fn refresh(&self, known: &mut Known, resolver: &DnsResolver) {
        let listed = self.listed.lock().unwrap_or_else(PoisonError::into_inner).concat();
        let addresses: BTreeSet<HttpAddress> = self.config.addresses.iter().cloned().chain(listed).collect();
        let asked = addresses.iter().map(|address| async move {
            (address, address.resolve(resolver, self.config.default_port).await)
        });
        for (address, answer) in join_all(asked).await {
            if address.is_resolved() {
                self.counters.lookups.inc();
                self.counters.failures.inc_by(u64::from(answer.is_err()));
            }
            match answer {
                Ok(endpoints) => {
                    let is_nothing = endpoints.is_empty();
                    let had = known.endpoints.insert(address.clone(), endpoints);
                    if is_nothing && had.is_none_or(|had| !had.is_empty()) {
                        warn!(what = self.what, name = %address, "DNS has no address for the name of endpoints");
                    }
                    if known.failing.remove(address) {
                        info!(what = self.what, name = %address, "the name of endpoints can be looked up again");
                    }
                }
                Err(error) if known.failing.insert(address.clone()) => {
                    warn!(what = self.what, name = %address, error, "the name of endpoints cannot be looked up, keeping those that it had");
                }
                Err(_) => {}
            }
        }
        known.endpoints.retain(|address, _| addresses.contains(address));
        known.failing.retain(|address| addresses.contains(address));
        let urls = urls_of(&self.config, known.endpoints.values().flatten().cloned());
        self.urls.send_if_modified(|now| {
            let is_changed = *now != urls;
            *now = urls;
            is_changed
        });
    }
}

fn urls_of(config: &HttpEndpointsConfig, endpoints: impl Iterator<Item = String>) -> Arc<[String]> {
    let scheme = if config.is_https { "https" } else { "http" };
    let urls: BTreeSet<String> =
        endpoints.map(|endpoint| format!("{scheme}://{endpoint}{}", config.path_prefix)).collect();
    urls.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use runtime::DnsServer;

    use super::*;

    fn endpoints(config: HttpEndpointsConfig) -> HttpEndpoints {
        HttpEndpoints::new("test", config).unwrap()
    }

    #[tokio::test]
    async fn a_name_that_fails_keeps_its_endpoints_and_one_without_addresses_loses_them() {
        let Some(server) = DnsServer::start(&["--host-record=am.test,10.0.0.1".to_owned()]) else {
            return;
        };
        let resolver = DnsResolver::with_servers(vec![server.address()]);
        let config = HttpEndpointsConfig::from_url("dns+https://am.test/x", 9093).unwrap();
        let counters = DnsCounters::default();
        let (own, mut known) = (endpoints(config).counting(counters.clone()), Known::default());
        assert!(own.urls().is_empty());
        own.refresh(&mut known, &resolver).await;
        let expected = ["https://10.0.0.1:9093/x".to_owned()];
        assert_eq!(own.urls()[..], expected);
        let nowhere = DnsResolver::with_servers(vec![([127, 0, 0, 1], 1).into()]);
        own.refresh(&mut known, &nowhere).await;
        assert_eq!(own.urls()[..], expected);
        assert_eq!((counters.lookups.get(), counters.failures.get()), (2, 1));
        let _server = server.restart(&[]);
        own.refresh(&mut known, &resolver).await;
        assert!(own.urls().is_empty());
    }

    #[tokio::test]
    async fn files_are_read_when_they_change() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("am.yml");
        let mut config = HttpEndpointsConfig::from_url("http://a:1", 9093).unwrap();
        let refresh_interval = Duration::from_secs(3_600);
        config.files = vec![HttpFilesConfig { patterns: vec![file.clone()], refresh_interval }];
        let own = Arc::new(endpoints(config));
        assert_eq!(own.urls()[..], ["http://a:1".to_owned()]);
        let (mut urls, shutdown) = (own.subscribe(), Shutdown::new());
        let running = tokio::spawn({
            let (own, shutdown) = (Arc::clone(&own), shutdown.clone());
            async move { own.run(Duration::from_secs(3_600), shutdown).await }
        });
        for (text, count) in [("- targets: [b:2, a:1, c]", 3), ("- targets: [b:2]", 2), ("[]", 1)] {
            // A file is replaced, as tools do that write such files.
            std::fs::write(folder.path().join("new"), text).unwrap();
            std::fs::rename(folder.path().join("new"), &file).unwrap();
            let wait = urls.wait_for(|urls| urls.len() == count);
            let wait = tokio::time::timeout(Duration::from_secs(60), wait).await;
            assert!(wait.is_ok_and(|found| found.is_ok()), "{text:?} was not read within 60 s");
        }
        shutdown.trigger();
        running.await.unwrap();
    }
}
