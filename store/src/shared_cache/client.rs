//! Operations on the servers of a shared cache: connections, timeouts, circuit breakers.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use runtime::DnsResolver;
use tls::{ClientTls, ClientTlsOptions, TcpOrTls};
use tokio::io::BufReader;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout, timeout_at};

use crate::shared_cache::address::{HostPort, in_order, server_of};
use crate::shared_cache::breaker::{Breaker, Change};
use crate::shared_cache::config::{SharedConfig, SharedKind};
use crate::shared_cache::metrics::{NamedMetrics, Operation};
use crate::shared_cache::wire::Failure;
use crate::shared_cache::{memcached, redis};

type Connection = BufReader<TcpOrTls>;

/// One server.
struct Server {
    address: HostPort,
    idle: Mutex<Vec<Connection>>,
    gets: Health,
    sets: Health,
}

struct Health {
    breaker: Breaker,
    /// Whether it is logged that the server is not asked.
    is_logged: AtomicBool,
}

/// What is asked of a server.
enum Job<'a> {
    /// Values of at most so many bytes.
    Get {
        keys: &'a [String],
        most: usize,
    },
    Set {
        items: &'a [(String, Bytes)],
    },
}

/// The servers of a shared cache.
pub(super) struct Client {
    config: SharedConfig,
    tls: Option<ClientTls>,
    servers: RwLock<Arc<[Arc<Server>]>>,
    gets: Semaphore,
    metrics: NamedMetrics,
}

impl Client {
    /// A client that has sent nothing yet.
    ///
    /// # Errors
    /// When a file of the TLS settings cannot be used.
    pub(super) fn new(config: SharedConfig, metrics: NamedMetrics) -> Result<Self, String> {
        let tls = match &config.kind {
            SharedKind::Redis { tls: Some(options), .. } => Some(ClientTls::load(
                &format!("tls_config of the {}", metrics.name),
                ClientTlsOptions::clone(options),
            )?),
            SharedKind::Redis { .. } | SharedKind::Memcached => None,
        };
        let gets = config.gets_at_once.unwrap_or(Semaphore::MAX_PERMITS).min(Semaphore::MAX_PERMITS);
        let known =
            config.addresses.iter().filter_map(crate::shared_cache::address::CacheAddress::server).collect();
        let client =
            Self { config, tls, servers: RwLock::new(Arc::new([])), gets: Semaphore::new(gets), metrics };
        client.use_servers(known);
        Ok(client)
    }

    /// Looks the addresses up in DNS at the configured interval, as long as `client` is used.
    pub(super) async fn keep_resolved(client: std::sync::Weak<Self>) {
        let mut is_failing = false;
        loop {
            let Some(client) = client.upgrade() else { return };
            if client.config.addresses.iter().all(|address| address.server().is_some()) {
                return;
            }
            let interval = client.config.dns_interval;
            match client.resolve().await {
                Ok(()) => is_failing = false,
                Err(error) if !is_failing => {
                    is_failing = true;
                    tracing::warn!(cache = client.metrics.name, %error, "addresses of the shared cache cannot be looked up");
                }
                Err(_) => {}
            }
            drop(client);
            tokio::time::sleep(interval).await;
        }
    }

    async fn resolve(&self) -> Result<(), String> {
        let resolver = DnsResolver::system().map_err(|error| error.to_string())?;
        let mut found = Vec::new();
        for address in &self.config.addresses {
            found.extend(address.resolve(&resolver).await?);
        }
        if found.is_empty() {
            return Err("DNS has no address for the names".to_owned());
        }
        self.use_servers(found);
        Ok(())
    }

    /// Replaces the servers; those that stay keep their connections.
    fn use_servers(&self, servers: Vec<HostPort>) {
        let known = self.servers();
        let health =
            || Health { breaker: Breaker::new(self.config.breaker), is_logged: AtomicBool::new(false) };
        let server = |address: HostPort| {
            let same = known.iter().find(|server| server.address == address).cloned();
            same.unwrap_or_else(|| {
                Arc::new(Server { address, idle: Mutex::default(), gets: health(), sets: health() })
            })
        };
        let servers: Arc<[Arc<Server>]> = in_order(servers).into_iter().map(server).collect();
        *self.servers.write().unwrap_or_else(PoisonError::into_inner) = servers;
    }

    fn servers(&self) -> Arc<[Arc<Server>]> {
        Arc::clone(&self.servers.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The values of `keys` that are there and have at most `most` bytes, each with the number of its key. Takes no longer than
    /// the configured timeout. What cannot be asked is missing.
    ///
    /// # Cancel safety
    /// The connections that were in use are closed.
    pub(super) async fn get_many(&self, keys: &[String], most: usize) -> Vec<(usize, Bytes)> {
        let deadline = Instant::now() + self.config.read_timeout;
        let batches = self.batches(keys.iter(), self.config.keys_of_get);
        let asked = batches.into_iter().map(|(server, numbers)| async move {
            let keys: Vec<String> = numbers.iter().map(|number| keys[*number].clone()).collect();
            let Ok(Ok(_permit)) = timeout_at(deadline, self.gets.acquire()).await else {
                self.metrics.skipped(Operation::Get, "concurrency", keys.len());
                return Vec::new();
            };
            let left = deadline.saturating_duration_since(Instant::now());
            let values = self.ask(&server, &Job::Get { keys: &keys, most }, left).await.unwrap_or_default();
            let found = numbers.into_iter().zip(values);
            found.filter_map(|(number, value)| Some((number, value?))).collect()
        });
        let found: Vec<Vec<(usize, Bytes)>> =
            asked.collect::<futures::stream::FuturesUnordered<_>>().collect().await;
        found.into_iter().flatten().collect()
    }

    /// Stores values. What cannot be stored is not.
    pub(super) async fn set_many(&self, items: Vec<(String, Bytes)>) {
        let batches = self.batches(items.iter().map(|(key, _)| key), usize::MAX);
        for (server, numbers) in batches {
            let of_server: Vec<_> = numbers.into_iter().map(|number| items[number].clone()).collect();
            self.ask(&server, &Job::Set { items: &of_server }, self.config.write_timeout).await;
        }
    }

    /// The numbers of keys by their server, in batches of at most `size`.
    fn batches<'a>(
        &self,
        keys: impl Iterator<Item = &'a String>,
        size: usize,
    ) -> Vec<(Arc<Server>, Vec<usize>)> {
        let servers = self.servers();
        if servers.is_empty() {
            return Vec::new();
        }
        let mut by_server: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (number, key) in keys.enumerate() {
            by_server.entry(server_of(key, servers.len())).or_default().push(number);
        }
        let batch = |(server, numbers): (usize, Vec<usize>)| {
            let batches: Vec<_> =
                numbers.chunks(size).map(|part| (Arc::clone(&servers[server]), part.to_vec())).collect();
            batches
        };
        by_server.into_iter().flat_map(batch).collect()
    }

    /// Asks a server, unless it failed a short time ago.
    async fn ask(&self, server: &Server, job: &Job<'_>, limit: Duration) -> Option<Vec<Option<Bytes>>> {
        let (operation, health, items) = match job {
            Job::Get { keys, .. } => (Operation::Get, &server.gets, keys.len()),
            Job::Set { items } => (Operation::Set, &server.sets, items.len()),
        };
        let Some(admitted) = health.breaker.admit() else {
            self.metrics.skipped(operation, "circuit-breaker", items);
            return None;
        };
        let began = Instant::now();
        let result = timeout(limit, self.on_connection(server, job)).await.unwrap_or(Err(Failure::Timeout));
        self.metrics.done(operation, began.elapsed(), result.as_ref().err().map(Failure::reason));
        let change = admitted.finish(result.is_ok());
        let name = self.metrics.name;
        match (change, &result) {
            (Change::Opened(pause), Err(error)) if !health.is_logged.swap(true, Ordering::Relaxed) => {
                tracing::warn!(cache = name, server = %server.address, ?operation, %error, ?pause, "shared cache fails and is not asked for a while, again and again until it answers");
            }
            (Change::Closed, _) if health.is_logged.swap(false, Ordering::Relaxed) => {
                tracing::info!(cache = name, server = %server.address, ?operation, "shared cache answers again");
            }
            _ => {}
        }
        result.ok()
    }

    async fn on_connection(&self, server: &Server, job: &Job<'_>) -> Result<Vec<Option<Bytes>>, Failure> {
        let idle = || server.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let known = idle().pop();
        if let Some(mut connection) = known {
            match self.run(&mut connection, job).await {
                // The server may have closed it, or was started again; then the others are closed too.
                Err(Failure::Network(_)) => idle().clear(),
                Err(failure) => return Err(failure),
                Ok(done) => {
                    self.keep(server, connection);
                    return Ok(done);
                }
            }
        }
        let mut connection = self.dial(server).await?;
        let done = self.run(&mut connection, job).await?;
        self.keep(server, connection);
        Ok(done)
    }

    fn keep(&self, server: &Server, connection: Connection) {
        let mut idle = server.idle.lock().unwrap_or_else(PoisonError::into_inner);
        // Bytes that were not asked for would be taken for the answer to the next operation.
        if idle.len() < self.config.idle_connections && connection.buffer().is_empty() {
            idle.push(connection);
        }
    }

    async fn dial(&self, server: &Server) -> Result<Connection, Failure> {
        let HostPort { host, port } = &server.address;
        let connect = async {
            let tcp = TcpStream::connect((host.as_str(), *port)).await?;
            tcp.set_nodelay(true)?;
            Ok::<TcpOrTls, io::Error>(match &self.tls {
                Some(tls) => tls.connect(host, tcp).await?.into(),
                None => tcp.into(),
            })
        };
        let stream = timeout(self.config.dial_timeout, connect).await.map_err(|_| Failure::Timeout)??;
        let mut connection = BufReader::new(stream);
        if let SharedKind::Redis { login, .. } = &self.config.kind {
            redis::log_in(&mut connection, login).await?;
        }
        Ok(connection)
    }

    async fn run(&self, connection: &mut Connection, job: &Job<'_>) -> Result<Vec<Option<Bytes>>, Failure> {
        let ttl_secs = self.config.ttl.as_secs().max(1);
        match (&self.config.kind, job) {
            (SharedKind::Redis { .. }, Job::Get { keys, most }) => {
                redis::get_many(connection, keys, *most).await
            }
            (SharedKind::Memcached, Job::Get { keys, most }) => {
                memcached::get_many(connection, keys, *most).await
            }
            (SharedKind::Redis { .. }, Job::Set { items }) => {
                redis::set_many(connection, items, ttl_secs).await.map(|()| Vec::new())
            }
            (SharedKind::Memcached, Job::Set { items }) => {
                memcached::set_many(connection, items, ttl_secs).await.map(|()| Vec::new())
            }
        }
    }
}
