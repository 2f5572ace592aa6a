//! A real DNS server for tests: dnsmasq, which `./tests/run` installs.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A name that every server knows, with the address 192.0.2.1.
const READY: &str = "ready.test";

/// A running dnsmasq that knows the names of the zone `test`; it ends when it is dropped.
#[derive(Debug)]
pub struct DnsServer {
    process: Child,
    address: SocketAddr,
}

impl DnsServer {
    /// Starts a server with these records, in the form of dnsmasq's flags, such as `--host-record=a.test,10.0.0.1`;
    /// `None`, after a line on standard output, if dnsmasq is not installed.
    ///
    /// # Panics
    /// If it does not answer within 20 seconds.
    pub fn start(records: &[String]) -> Option<Self> {
        Self::start_at(free_port(), records)
    }

    /// Ends the server, and starts one with other records at the same address.
    ///
    /// # Panics
    /// As [`DnsServer::start`].
    #[must_use]
    pub fn restart(mut self, records: &[String]) -> Self {
        self.stop();
        Self::start_at(self.address, records).expect("dnsmasq was installed a moment ago")
    }

    /// Its address, for UDP and TCP.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    fn start_at(address: SocketAddr, records: &[String]) -> Option<Self> {
        let settings = [
            "--conf-file=/dev/null".to_owned(),
            "--no-daemon".to_owned(),
            "--no-resolv".to_owned(),
            "--no-hosts".to_owned(),
            "--local=/test/".to_owned(),
            "--user=root".to_owned(),
            "--pid-file=".to_owned(),
            "--bind-interfaces".to_owned(),
            format!("--listen-address={}", address.ip()),
            format!("--port={}", address.port()),
            format!("--host-record={READY},192.0.2.1"),
        ];
        // It is in /usr/sbin, which is not on the PATH of every user.
        let spawn = |program: &str| {
            let mut command = Command::new(program);
            command.args(&settings).args(records);
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().ok()
        };
        let Some(process) = spawn("dnsmasq").or_else(|| spawn("/usr/sbin/dnsmasq")) else {
            println!("skipped: dnsmasq is not installed");
            return None;
        };
        let server = Self { process, address };
        server.wait_ready();
        Some(server)
    }

    fn wait_ready(&self) {
        let question =
            super::message::Question::new(READY, super::message::QuestionType::A).expect("a valid name");
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
        socket.set_read_timeout(Some(Duration::from_millis(50))).expect("a timeout above zero");
        let (began, mut bytes) = (Instant::now(), [0; 512]);
        // While nothing listens, the answer is an error of the socket.
        while socket.send_to(&question.bytes, self.address).is_err() || socket.recv(&mut bytes).is_err() {
            assert!(began.elapsed() < Duration::from_secs(20), "dnsmasq did not answer within 20 s");
        }
    }

    fn stop(&mut self) {
        // Both fail only if the process has already ended.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

impl Drop for DnsServer {
    fn drop(&mut self) {
        self.stop();
    }
}

fn free_port() -> SocketAddr {
    let free = (0..100).find_map(|_| {
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).ok()?.local_addr().ok()?;
        UdpSocket::bind(address).ok().map(|_| address)
    });
    free.expect("no port is free for TCP and UDP")
}
