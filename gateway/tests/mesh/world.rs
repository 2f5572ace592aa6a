//! A trust domain with its gateways, in one temporary folder.

use std::{
    collections::BTreeMap,
    fs::{File, TryLockError},
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, SystemTime},
};

use clap::Parser;
use gateway::{
    component::{Addresses, Gateway, Setup},
    config::Config,
};
use pki::{InitOptions, Issuer, JoinToken, NewToken, Secret};
use proto::{
    isthmus::mesh::v1::{DirectoryEntry, WatchRequest, directory_client::DirectoryClient},
    thanos::{SeriesRequest, SeriesResponse, store_client::StoreClient},
};
use runtime::{CommonArgs, Reload, RoleError, Shutdown};
use tempfile::TempDir;
use tokio::task::JoinHandle;

/// Time limit of each wait in the tests.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The flags of a gateway in a test.
const FLAGS: [&str; 6] = [
    "gateway",
    "--http-address=127.0.0.1:0",
    "--grpc-address=127.0.0.1:0",
    "--http-grace-period=5s",
    "--grpc-grace-period=5s",
    "--grpc-server-max-connection-age=0",
];

#[derive(Parser)]
struct GatewayFlags {
    #[command(flatten)]
    common: CommonArgs,
}

/// Waits for `future`, and panics with `what` after [`PATIENCE`].
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("did not happen in time: {what}"))
}

/// A trust domain and a temporary folder.
pub(crate) struct MeshWorld {
    pub(crate) dir: TempDir,
}

/// A gateway that runs in a task.
pub(crate) struct RunningGateway {
    pub(crate) addresses: Addresses,
    pub(crate) reload: Reload,
    shutdown: Shutdown,
    data_dir: PathBuf,
    task: JoinHandle<ExitCode>,
}

impl RunningGateway {
    /// Stops the gateway as a signal does, and waits until it has stopped and left its data directory.
    pub(crate) async fn stop(self) {
        self.shutdown.trigger();
        within("the end of a gateway", self.task).await.unwrap();
        // Its hooks have the directory, too.
        drop(self.reload);
        within("the gateway has left its data directory", async {
            while is_locked(&self.data_dir) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }
}

impl MeshWorld {
    pub(crate) fn new() -> Self {
        Self::named("test.isthmus.example")
    }

    pub(crate) fn named(trust_domain: &str) -> Self {
        Self::created_at(trust_domain, SystemTime::now())
    }

    /// A trust domain that was created at some time.
    pub(crate) fn created_at(trust_domain: &str, now: SystemTime) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = InitOptions {
            state: dir.path().join("pki"),
            root_out: dir.path().join("roots"),
            trust_domain: trust_domain.parse().unwrap(),
            cluster: "obs".parse().unwrap(),
            passphrase: Secret::new("correct horse battery".to_owned()),
        };
        pki::init(&options, now).unwrap();
        Self { dir }
    }

    pub(crate) fn issuer(&self) -> Issuer {
        Issuer::open(&self.dir.path().join("pki")).unwrap()
    }

    /// An issuer under the same roots with a separate inventory.
    pub(crate) fn forked_issuer(&self) -> Issuer {
        let fork = self.dir.path().join("fork");
        std::fs::create_dir(&fork).unwrap();
        std::fs::set_permissions(&fork, std::fs::Permissions::from_mode(0o700)).unwrap();
        // While one connection is open, another one that closes removes no file of the database.
        let open = self.issuer();
        for file in std::fs::read_dir(self.dir.path().join("pki")).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), fork.join(file.file_name())).unwrap();
        }
        drop(open);
        Issuer::open(&fork).unwrap()
    }

    /// A token for a cluster in environment `test`.
    pub(crate) fn token(&self, cluster: &str, addresses: &[SocketAddr]) -> JoinToken {
        self.token_at(cluster, addresses, SystemTime::now())
    }

    /// A token that is created at `now` and valid for a minute.
    pub(crate) fn token_at(&self, cluster: &str, addresses: &[SocketAddr], now: SystemTime) -> JoinToken {
        let mut new = new_token(cluster, addresses[0]);
        new.addresses = addresses.iter().map(ToString::to_string).collect();
        self.issuer().create_token(&new, now).unwrap()
    }

    /// Writes a configuration file.
    pub(crate) fn write(&self, name: &str, yaml: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, yaml).unwrap();
        path
    }

    pub(crate) async fn try_start(
        &self,
        name: &str,
        yaml: &str,
        token: Option<&JoinToken>,
    ) -> Result<RunningGateway, RoleError> {
        let file = self.write(&format!("{name}.yaml"), yaml);
        let config = Config::load(&file).map_err(RoleError::wrong_configuration)?;
        let data_dir = config.data_dir.clone();
        let setup = Setup {
            config,
            config_file: Some(file),
            token: token.cloned(),
            join_file: Some(self.dir.path().join("new-token")),
            common: GatewayFlags::parse_from(FLAGS).common,
        };
        let gateway = Gateway::start(setup).await?;
        let addresses = gateway.addresses().clone();
        let role = gateway.into_role();
        let (shutdown, reload) = (role.shutdown(), role.reload());
        Ok(RunningGateway { addresses, reload, shutdown, data_dir, task: tokio::spawn(role.wait()) })
    }

    /// The gateway of the observability cluster; `more` is added to its configuration.
    pub(crate) async fn observability(&self, more: &str) -> RunningGateway {
        self.try_start("obs", &observability(more), None).await.unwrap()
    }

    /// The gateway of a cluster that dials out.
    pub(crate) async fn cluster(
        &self,
        name: &str,
        targets: &[(&str, SocketAddr)],
        obs: &RunningGateway,
        more: &str,
    ) -> RunningGateway {
        let token = self.token(name, &[obs.addresses.mesh.unwrap()]);
        self.try_start(name, &cluster(name, targets, more), Some(&token)).await.unwrap()
    }
}

/// Whether a gateway uses the data directory. Of one that has stopped in this process, the tasks of its connections end a moment
/// later, and with them the lock; in a process of its own it ends with the process.
fn is_locked(data_dir: &Path) -> bool {
    let Ok(lock) = File::options().write(true).open(data_dir.join("lock")) else { return false };
    matches!(lock.try_lock(), Err(TryLockError::WouldBlock))
}

/// The contents of a token.
pub(crate) fn new_token(cluster: &str, address: SocketAddr) -> NewToken {
    NewToken {
        cluster: cluster.parse().unwrap(),
        environment: "test".into(),
        addresses: vec![address.to_string()],
        ttl: Duration::from_secs(60),
    }
}

/// The configuration of the gateway of the observability cluster.
pub(crate) fn observability(more: &str) -> String {
    let leaf = if more.contains("leaf_lifetime") { String::new() } else { "pki: {state: pki}\n".to_owned() };
    format!("role: observability\ndata_dir: obs-data\nlisten: 127.0.0.1:0\n{leaf}{more}\n")
}

/// The configuration of a cluster's gateway.
pub(crate) fn cluster(name: &str, targets: &[(&str, SocketAddr)], more: &str) -> String {
    let targets: String = targets
        .iter()
        .map(|(name, address)| format!("  - {{name: {name}, address: '{address}'}}\n"))
        .collect();
    format!("role: cluster\ndata_dir: {name}-data\ninfo_interval: 100ms\ntargets:\n{targets}{more}\n")
}

/// Waits for a state of the directory.
pub(crate) async fn directory(
    obs: &RunningGateway,
    what: &str,
    condition: impl Fn(&[DirectoryEntry]) -> bool,
) -> Vec<DirectoryEntry> {
    let mut client = DirectoryClient::new(mesh::direct(&obs.addresses.grpc.to_string()).unwrap());
    let mut snapshots = client.watch(WatchRequest { changes: true }).await.unwrap().into_inner();
    let (mut known, mut last) = (BTreeMap::new(), Vec::new());
    let waiting = async {
        while let Some(snapshot) = snapshots.message().await.unwrap() {
            for name in snapshot.removed {
                known.remove(&name);
            }
            known.extend(snapshot.entries.into_iter().map(|entry| (entry.name.clone(), entry)));
            last = known.values().cloned().collect();
            if !snapshot.continues && condition(&last) {
                return;
            }
        }
        panic!("the directory ended while waiting for: {what}");
    };
    if tokio::time::timeout(PATIENCE, waiting).await.is_err() {
        panic!("the directory never showed: {what}; last {last:#?}");
    }
    last
}

/// Waits until a target can be read.
pub(crate) async fn healthy(obs: &RunningGateway, target: &str) -> DirectoryEntry {
    let is_it = |entry: &&DirectoryEntry| entry.name == target && entry.healthy;
    let entries =
        directory(obs, &format!("{target} is healthy"), |entries| entries.iter().any(|e| is_it(&e))).await;
    entries.iter().find(is_it).unwrap().clone()
}

/// A client of a target through the gateway's local port.
pub(crate) fn client(obs: &RunningGateway, target: &str) -> StoreClient<mesh::Channel> {
    let target = target.parse().unwrap();
    StoreClient::new(mesh::via(&obs.addresses.grpc.to_string(), &target).unwrap())
}

/// Asks for `count` messages, `pause` apart.
pub(crate) fn messages(count: i64, pause: Duration) -> SeriesRequest {
    SeriesRequest { min_time: pause.as_millis() as i64, max_time: count, ..SeriesRequest::default() }
}

/// Reads a stream to its end.
pub(crate) async fn count(mut stream: tonic::Streaming<SeriesResponse>) -> Result<usize, tonic::Status> {
    let mut count = 0;
    while stream.message().await?.is_some() {
        count += 1;
    }
    Ok(count)
}
