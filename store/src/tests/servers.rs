//! Servers of shared caches: real processes on free ports of 127.0.0.1, which end when their value is dropped.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Timeout for the start of a server.
const START: Duration = Duration::from_secs(30);

/// A kind of server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Redis,
    Memcached,
}

/// A running server.
pub(super) struct CacheServer {
    kind: Kind,
    pub(super) port: u16,
    arguments: Vec<String>,
    child: Child,
    folder: TempDir,
}

impl Drop for CacheServer {
    fn drop(&mut self) {
        self.kill();
    }
}

impl CacheServer {
    /// A server, or `None` after a line that says that it is not installed.
    pub(super) fn start(kind: Kind, arguments: &[&str]) -> Option<Self> {
        let arguments: Vec<String> = arguments.iter().map(|text| (*text).to_owned()).collect();
        // Another process may take a free port before the server does.
        for _ in 0..5 {
            let (port, folder) = (free_port(), tempfile::tempdir().unwrap());
            let Ok(child) = spawn(kind, port, &arguments, &folder) else {
                println!("skipped: {kind:?} is not installed (tests/run installs it)");
                return None;
            };
            let mut server = Self { kind, port, arguments: arguments.clone(), child, folder };
            if server.listens() {
                return Some(server);
            }
        }
        panic!("{kind:?} ends at once")
    }

    fn listens(&mut self) -> bool {
        let begun = Instant::now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_err() {
            if self.child.try_wait().unwrap().is_some() {
                return false;
            }
            assert!(begun.elapsed() < START, "{:?} does not listen on port {}", self.kind, self.port);
            std::thread::sleep(Duration::from_millis(10));
        }
        true
    }

    /// Terminates the server.
    pub(super) fn kill(&mut self) {
        // It may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }

    /// Starts it again on its port, empty.
    pub(super) fn restart(&mut self) {
        self.kill();
        self.child = spawn(self.kind, self.port, &self.arguments, &self.folder).unwrap();
        assert!(self.listens(), "the port was taken");
    }

    /// Stops or continues the process.
    pub(super) fn signal(&self, signal: &str) {
        let status = Command::new("sh").arg("-c").arg(format!("kill -{signal} {}", self.child.id())).status();
        assert!(status.unwrap().success());
    }

    /// Removes everything from it.
    pub(super) fn flush(&self) {
        let command = if self.kind == Kind::Redis { "FLUSHALL\r\n" } else { "flush_all\r\n" };
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).unwrap();
        stream.write_all(command.as_bytes()).unwrap();
        let mut answer = [0; 5];
        stream.read_exact(&mut answer[..2]).unwrap();
        assert!(answer.starts_with(b"+O") || answer.starts_with(b"OK"), "{answer:?}");
    }

    /// The configuration of the cache for one of the flags.
    pub(super) fn config(&self, port: u16) -> String {
        // The breaker closes soon, so that the tests need not wait.
        let common = "set_async_circuit_breaker_config: {enabled: true, min_requests: 2, consecutive_failures: 2, failure_percent: 1, open_duration: 50ms, half_open_max_requests: 1}";
        match self.kind {
            Kind::Redis => format!(
                "{{type: REDIS, config: {{addr: '127.0.0.1:{port}', read_timeout: 300ms, {common}}}}}"
            ),
            Kind::Memcached => format!(
                "{{type: MEMCACHED, config: {{addresses: ['127.0.0.1:{port}'], timeout: 300ms, {common}}}}}"
            ),
        }
    }
}

fn spawn(kind: Kind, port: u16, arguments: &[String], folder: &TempDir) -> std::io::Result<Child> {
    let mut command = match kind {
        Kind::Redis => {
            let mut command = Command::new("redis-server");
            command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--daemonize", "no"]);
            if !arguments.iter().any(|argument| argument == "--tls-port") {
                command.args(["--port", &port.to_string()]);
            }
            command
        }
        Kind::Memcached => {
            let mut command = Command::new("memcached");
            command.args(["-l", "127.0.0.1", "-u", "root", "-p", &port.to_string()]);
            command
        }
    };
    let port = port.to_string();
    command.args(arguments.iter().map(|argument| argument.replace("PORT", &port)));
    command
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
}

fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

/// What a [`Proxy`] does with the bytes of the server.
#[derive(Clone, Copy, Debug)]
pub(super) enum Damage {
    None,
    /// Flips a bit in one of so many bytes.
    Flip(u64),
    /// Closes the connection after so many bytes.
    Cut(usize),
}

/// Forwards connections to a server and damages its answers.
pub(super) struct Proxy {
    pub(super) port: u16,
    damage: std::sync::Arc<std::sync::Mutex<Damage>>,
}

impl Proxy {
    pub(super) async fn start(server_port: u16) -> Self {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let damage = std::sync::Arc::new(std::sync::Mutex::new(Damage::None));
        let shared = damage.clone();
        tokio::spawn(async move {
            let mut random = 7_u64;
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, server_port)).await
                else {
                    continue;
                };
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                tokio::spawn(forward(client, server, shared.clone(), random));
            }
        });
        Self { port, damage }
    }

    pub(super) fn damage(&self, damage: Damage) {
        *self.damage.lock().unwrap() = damage;
    }
}

async fn forward(
    client: tokio::net::TcpStream,
    server: tokio::net::TcpStream,
    damage: std::sync::Arc<std::sync::Mutex<Damage>>,
    mut random: u64,
) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let requests = tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
    let (mut buffer, mut total) = (vec![0; 16 << 10], 0);
    while let Ok(length @ 1..) = from_server.read(&mut buffer).await {
        total += length;
        let now = *damage.lock().unwrap();
        match now {
            Damage::None => {}
            Damage::Flip(one_of) => {
                for byte in &mut buffer[..length] {
                    random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    if (random >> 33).is_multiple_of(one_of) {
                        *byte ^= 1 << ((random >> 60) % 8);
                    }
                }
            }
            Damage::Cut(after) if total > after => break,
            Damage::Cut(_) => {}
        }
        if to_client.write_all(&buffer[..length]).await.is_err() {
            break;
        }
    }
    requests.abort();
}
