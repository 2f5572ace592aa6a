//! Tells the service manager (systemd) that a role has started, reloads, stops, and lives.
//!
//! Protocol: <https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html>, one datagram for each message. Outside
//! systemd, where `NOTIFY_SOCKET` is not set, nothing is sent.
//!
//! "Started" means that the servers accept connections. Whether the role is ready is in the status text: a gateway whose
//! other side is away has started, and restarting it would not help.

use std::ffi::OsString;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::time::{MissedTickBehavior, interval};

use crate::probes::{Health, Probes};

/// Longest status text, in characters.
const MAX_STATUS_CHARS: usize = 200;

/// A connection to the service manager. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct ServiceManager {
    socket: Arc<UnixDatagram>,
    /// Within which the manager must hear from this process; `None` if it does not watch.
    watchdog: Option<Duration>,
}

impl ServiceManager {
    /// The manager that has started this process; `None` if there is none that listens.
    pub(crate) fn of_environment() -> Option<Self> {
        let own = std::process::id().to_string();
        Self::with_variables(|name| std::env::var_os(name), &own)
    }

    fn with_variables(variable: impl Fn(&str) -> Option<OsString>, own_id: &str) -> Option<Self> {
        let path = variable("NOTIFY_SOCKET").filter(|path| !path.is_empty())?;
        let opened = open(path.as_bytes());
        let opened = opened.inspect_err(|error| {
            tracing::warn!(%error, socket = %path.to_string_lossy(), "the service manager cannot be reached");
        });
        let text = |name: &str| variable(name).and_then(|value| value.into_string().ok());
        // The limit may be meant for another process, such as a wrapper of this one.
        let is_meant = text("WATCHDOG_PID").is_none_or(|id| id == own_id);
        let micros: Option<u64> = text("WATCHDOG_USEC").and_then(|micros| micros.parse().ok());
        let watchdog = micros.filter(|micros| is_meant && *micros > 0).map(Duration::from_micros);
        Some(Self { socket: Arc::new(opened.ok()?), watchdog })
    }

    /// The servers accept connections, or a reload is over.
    pub(crate) fn ready(&self) {
        self.send("READY=1");
    }

    /// A reload has begun.
    pub(crate) fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let micros = now.tv_sec.saturating_mul(1_000_000).saturating_add(now.tv_nsec / 1000);
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
    }

    /// The role has begun to stop.
    pub(crate) fn stopping(&self) {
        self.send("STOPPING=1\nSTATUS=stopping");
    }

    /// Keeps the status text up to date, and tells the manager that this process lives while the role is healthy. Never returns.
    pub(crate) async fn follow(self, probes: Probes) {
        let (status, alive) = (self.show_status(&probes), self.show_life(&probes));
        tokio::join!(status, alive);
    }

    async fn show_status(&self, probes: &Probes) {
        let mut shown = None;
        loop {
            let health = probes.wait_until(|health| shown.as_ref() != Some(health)).await;
            self.send(&format!("STATUS={}", status(&health)));
            shown = Some(health);
        }
    }

    async fn show_life(&self, probes: &Probes) {
        let Some(limit) = self.watchdog else { return };
        let mut ticks = interval((limit / 2).max(Duration::from_millis(1)));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            // A process that cannot recover is restarted.
            if probes.health().unhealthy.is_none() {
                self.send("WATCHDOG=1");
            }
        }
    }

    fn send(&self, message: &str) {
        if let Err(error) = self.socket.send(message.as_bytes()) {
            tracing::debug!(%error, message, "the service manager was not told");
        }
    }
}

/// A path, or with a leading `@` a name in the abstract namespace.
fn open(path: &[u8]) -> io::Result<UnixDatagram> {
    let address = match path {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        path => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(path))?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    // A manager that does not read must not stop the role.
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn status(health: &Health) -> String {
    let text = match (&health.unhealthy, &health.not_ready) {
        (Some(reason), _) => format!("unhealthy: {reason}"),
        (None, Some(reason)) => format!("not ready: {reason}"),
        (None, None) => "ready".to_owned(),
    };
    text.chars().take(MAX_STATUS_CHARS).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Manager {
        socket: UnixDatagram,
        _dir: tempfile::TempDir,
        client: ServiceManager,
    }

    impl Manager {
        fn start(watchdog: &str, watched: &str) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("notify");
            let socket = UnixDatagram::bind(&path).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            let variable = |name: &str| match name {
                "NOTIFY_SOCKET" => Some(path.clone().into_os_string()),
                "WATCHDOG_USEC" => Some(watchdog.into()),
                "WATCHDOG_PID" => Some(watched.into()),
                _ => None,
            };
            let client = ServiceManager::with_variables(variable, "7").unwrap();
            Self { socket, _dir: dir, client }
        }

        fn receive(&self) -> String {
            let mut buffer = [0; 4096];
            let length = self.socket.recv(&mut buffer).unwrap();
            String::from_utf8(buffer[..length].to_vec()).unwrap()
        }
    }

    #[test]
    fn start_reload_and_stop_are_told() {
        let manager = Manager::start("", "");
        manager.client.ready();
        assert_eq!(manager.receive(), "READY=1");
        manager.client.reloading();
        let reloading = manager.receive();
        let micros = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
        assert!(micros.parse::<u64>().unwrap() > 0);
        manager.client.stopping();
        assert!(manager.receive().starts_with("STOPPING=1\n"));
        assert_eq!(manager.client.watchdog, None);
    }

    #[tokio::test]
    async fn the_status_follows_the_probes_and_an_unhealthy_role_is_silent() {
        let manager = Manager::start("20000", "7");
        let probes = Probes::new();
        let following = tokio::spawn(manager.client.clone().follow(probes.clone()));
        let received = tokio::task::spawn_blocking(move || {
            let mut seen = Vec::new();
            while !(seen.contains(&"STATUS=ready".to_owned()) && seen.contains(&"WATCHDOG=1".to_owned())) {
                seen.push(manager.receive());
                if seen.len() == 1 {
                    probes.ready();
                }
            }
            probes.unhealthy("stuck\nfor ever");
            while manager.receive() != "STATUS=unhealthy: stuck for ever" {}
            // One more may have been sent before.
            manager.socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
            let mut buffer = [0; 64];
            (0..3).filter(|_| manager.socket.recv(&mut buffer).is_ok()).count()
        });
        assert!(received.await.unwrap() <= 1, "the manager was told that an unhealthy role lives");
        following.abort();
    }

    #[test]
    fn without_a_manager_nothing_is_sent() {
        assert!(ServiceManager::with_variables(|_| None, "7").is_none());
        let missing = |name: &str| (name == "NOTIFY_SOCKET").then(|| OsString::from("/no/such/socket"));
        assert!(ServiceManager::with_variables(missing, "7").is_none());
        let other = Manager::start("20000", "8");
        assert_eq!(other.client.watchdog, None, "the watchdog is for another process");
    }

    #[test]
    fn an_abstract_socket_is_reached() {
        let name = format!("isthmus-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        let variable = |asked: &str| (asked == "NOTIFY_SOCKET").then(|| OsString::from(format!("@{name}")));
        ServiceManager::with_variables(variable, "7").unwrap().ready();
        let mut buffer = [0; 16];
        let length = socket.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"READY=1");
    }
}
