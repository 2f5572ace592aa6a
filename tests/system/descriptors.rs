//! Gateways with few file descriptors: they say so, and connections that do nothing do not keep them from renewing certificates.

use std::collections::VecDeque;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use tests::{Process, create_token, create_trust_domain, free_port, isthmus, wait_for};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(60);
/// Descriptors of each gateway.
const LIMIT: usize = 256;
/// Connections that one flood keeps open at once, more than a gateway has descriptors.
const SOCKETS: usize = 400;

/// Starts a gateway that may open [`LIMIT`] files.
fn gateway(dir: &Path, name: &str, yaml: &str, more: &[String]) -> (Process, SocketAddr, SocketAddr) {
    let (http, grpc) = (free_port(), free_port());
    let config = dir.join(format!("{name}.yaml"));
    fs::write(&config, yaml).expect("a file");
    let script = format!("ulimit -n {LIMIT}; exec \"$0\" \"$@\"");
    let mut args = vec!["-c".to_owned(), script, isthmus().display().to_string(), "gateway".to_owned()];
    args.extend([
        format!("--config={}", config.display()),
        format!("--http-address={http}"),
        format!("--grpc-address={grpc}"),
    ]);
    args.extend_from_slice(more);
    let mut process = Process::start(Path::new("sh"), &args, &dir.join(format!("{name}.log")));
    process.wait_ready(name, http);
    (process, http, grpc)
}

/// A connection from one of many addresses that sends one byte.
async fn idle_connection(number: usize, to: SocketAddr) -> std::io::Result<TcpStream> {
    let from = SocketAddr::from((Ipv4Addr::new(127, 0, 1, (number % 50) as u8 + 1), 0));
    let socket = TcpSocket::new_v4()?;
    socket.bind(from)?;
    // A full queue does not answer.
    let mut stream = timeout(Duration::from_millis(200), socket.connect(to)).await??;
    stream.write_all(b"P").await?;
    Ok(stream)
}

/// Opens connections, and again when they are closed, until it is dropped.
struct Flood {
    opened: Arc<AtomicUsize>,
    tasks: Vec<JoinHandle<()>>,
}

impl Flood {
    fn start(ports: &[SocketAddr]) -> Self {
        let mut flood = Self { opened: Arc::default(), tasks: Vec::new() };
        for port in ports {
            let (opened, port) = (flood.opened.clone(), *port);
            flood.tasks.push(tokio::spawn(async move {
                let mut open = VecDeque::new();
                for number in 0.. {
                    open.extend(idle_connection(number, port).await);
                    opened.fetch_add(1, Ordering::Relaxed);
                    if open.len() > SOCKETS {
                        open.pop_front();
                        tokio::time::sleep(Duration::from_millis(2)).await;
                    }
                }
            }));
        }
        flood
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

fn changed(file: &Path) -> SystemTime {
    fs::metadata(file).and_then(|metadata| metadata.modified()).expect("a file with a time")
}

#[test]
fn idle_connections_to_every_port_do_not_stop_the_renewal_of_certificates() {
    let dir = tempfile::tempdir().expect("a folder");
    let (dir, mesh) = (dir.path(), free_port());
    let state = create_trust_domain(dir);
    let yaml = format!(
        "role: observability\ndata_dir: obs\npki: {{state: {}, leaf_lifetime: 6s}}\nlisten: {mesh}\n",
        state.display()
    );
    let (obs, obs_http, obs_grpc) = gateway(dir, "obs", &yaml, &[]);
    let token = dir.join("token");
    create_token(&state, "eu-1", mesh, &token);
    let yaml = "role: cluster\ndata_dir: eu-1\ntargets:\n  - {name: scraper-0, address: '127.0.0.1:1'}\n";
    let (eu, eu_http, eu_grpc) = gateway(dir, "eu-1", yaml, &[format!("--join-file={}", token.display())]);
    for process in [&obs, &eu] {
        assert!(process.output().contains("few file descriptors"), "{}", process.output());
    }

    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let _inside = runtime.enter();
    let flood = Flood::start(&[obs_http, obs_grpc, mesh, eu_http, eu_grpc]);
    wait_for("more connections than descriptors", PATIENCE, || match flood.opened.load(Ordering::Relaxed) {
        opened if opened > 10 * LIMIT => Ok(()),
        opened => Err(format!("{opened} connections")),
    });
    let credentials: Vec<PathBuf> = ["obs", "eu-1"].map(|name| dir.join(name).join("credentials.pem")).into();
    // Two renewals each: the second one is later than anything that was under way when the flood began.
    for renewal in 1..=2 {
        let before: Vec<SystemTime> = credentials.iter().map(|file| changed(file)).collect();
        for (file, before) in credentials.iter().zip(before) {
            wait_for(&format!("renewal {renewal} of {}", file.display()), PATIENCE, || {
                match changed(file) > before {
                    true => Ok(()),
                    false => Err(format!("{}\n{}", obs.output(), eu.output())),
                }
            });
        }
    }
    println!("{} connections, {LIMIT} descriptors", flood.opened.load(Ordering::Relaxed));
}

#[test]
fn a_role_takes_all_descriptors_that_the_system_permits() {
    let dir = tempfile::tempdir().expect("a folder");
    let http = free_port();
    let script = "ulimit -Sn 100; exec \"$0\" \"$@\"";
    let args = [
        "-c".to_owned(),
        script.to_owned(),
        isthmus().display().to_string(),
        "query".to_owned(),
        format!("--http-address={http}"),
        format!("--grpc-address={}", free_port()),
    ];
    let mut process = Process::start(Path::new("sh"), &args, &dir.path().join("log"));
    process.wait_ready("querier", http);
    let limits = fs::read_to_string(format!("/proc/{}/limits", process.id())).expect("limits");
    let line = limits.lines().find(|line| line.starts_with("Max open files")).expect("the limit of files");
    let values: Vec<&str> = line.split_whitespace().skip(3).take(2).collect();
    assert!(values[0] == values[1] && values[0] != "100", "{line}");
}
