//! The client against a real Prometheus with TLS and passwords, and through proxies.
//!
//! If `prometheus` is not installed, the tests print a line and pass.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::{self, File};
use std::io;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use promapi::{Authorization, ClientOptions, Credential, PrometheusClient};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tempfile::TempDir;
use tls::{ClientTls, ClientTlsOptions, TlsVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

/// A bcrypt hash of "fakepassword", from the tests of Prometheus' exporter toolkit.
const HASH: &str = "$2y$10$QOauhQNbBCuQDKes6eFzPeMqBSjb7Mr5DUmpZ/VcEd00UAV/LDeSi";

/// A Prometheus that asks for a password over TLS. It is killed on drop.
struct SecurePrometheus {
    process: Child,
    port: u16,
    dir: TempDir,
}

impl SecurePrometheus {
    fn start() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        write_certificates(&dir);
        let web = format!(
            "tls_server_config: {{cert_file: server.pem, key_file: server.key}}\nbasic_auth_users: {{me: {HASH}}}\n"
        );
        fs::write(dir.path().join("web.yml"), web).unwrap();
        fs::write(dir.path().join("prometheus.yml"), "global: {external_labels: {replica: a}}").unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let path = |name: &str| dir.path().join(name).display().to_string();
        let started = Command::new("prometheus")
            .arg(format!("--config.file={}", path("prometheus.yml")))
            .arg(format!("--web.config.file={}", path("web.yml")))
            .arg(format!("--storage.tsdb.path={}", path("data")))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .stdout(Stdio::null())
            .stderr(File::create(dir.path().join("log")).unwrap())
            .spawn();
        match started {
            Ok(process) => Some(Self { process, port, dir }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                println!("skipped: prometheus is not installed");
                None
            }
            Err(error) => panic!("start prometheus: {error}"),
        }
    }

    fn url(&self) -> String {
        format!("https://localhost:{}", self.port)
    }

    /// The options that this Prometheus accepts.
    fn options(&self) -> ClientOptions {
        let tls = ClientTlsOptions {
            ca: Some(self.dir.path().join("ca.pem").into()),
            identity: None,
            server_name: None,
            skip_verify: false,
            min_version: TlsVersion::Tls12,
            alpn: vec![b"http/1.1"],
        };
        ClientOptions {
            tls: Some(ClientTls::load("test", tls).unwrap()),
            authorization: Some(basic("me", "fakepassword")),
            ..ClientOptions::default()
        }
    }

    fn client(&self, options: ClientOptions) -> PrometheusClient {
        PrometheusClient::new(&self.url(), options).unwrap()
    }

    async fn until_ready(&self) {
        let (client, deadline) = (self.client(self.options()), Instant::now() + Duration::from_secs(60));
        while let Err(error) = client.ready().await {
            let log = fs::read_to_string(self.dir.path().join("log")).unwrap();
            assert!(Instant::now() < deadline, "prometheus is not ready: {error}\n{log}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Drop for SecurePrometheus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn write_certificates(dir: &TempDir) {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "a CA for tests");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    fs::write(dir.path().join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    fs::write(dir.path().join("server.pem"), params.signed_by(&key, &issuer).unwrap().pem()).unwrap();
    fs::write(dir.path().join("server.key"), key.serialize_pem()).unwrap();
}

fn basic(username: &str, password: &str) -> Authorization {
    let password = Credential::Text(password.into());
    Authorization::Basic { username: username.to_owned(), password }
}

/// A proxy that notes the heads of requests. It connects clients that ask for that, and answers all others itself.
async fn start_proxy() -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let heads = Arc::new(Mutex::new(Vec::new()));
    let noted = heads.clone();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let noted = noted.clone();
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(client.read_u8().await.unwrap());
                }
                let head = String::from_utf8(head).unwrap();
                noted.lock().unwrap().push(head.clone());
                match head.strip_prefix("CONNECT ").and_then(|rest| rest.split(' ').next()) {
                    Some(target) => {
                        let mut server = TcpStream::connect(target).await.unwrap();
                        client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
                        let _ = copy_bidirectional(&mut client, &mut server).await;
                    }
                    None => {
                        client.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
                    }
                }
            });
        }
    });
    (address, heads)
}

#[tokio::test]
async fn prometheus_with_tls_and_a_password_is_read() {
    let Some(prometheus) = SecurePrometheus::start() else { return };
    prometheus.until_ready().await;
    let client = prometheus.client(prometheus.options());
    assert_eq!(client.external_labels().await.unwrap().get("replica"), Some("a"));

    let failure =
        async |options: ClientOptions| prometheus.client(options).ready().await.unwrap_err().to_string();
    let wrong = ClientOptions { authorization: Some(basic("me", "wrong")), ..prometheus.options() };
    assert!(failure(wrong).await.contains("answered 401"));
    let nobody = ClientOptions { authorization: None, ..prometheus.options() };
    assert!(failure(nobody).await.contains("answered 401"));
    let distrusting = ClientOptions { tls: None, ..prometheus.options() };
    let error = failure(distrusting).await;
    assert_eq!(
        error,
        format!("{}/-/ready: the server's certificate is not signed by a trusted CA", prometheus.url())
    );
    let plain = PrometheusClient::new(&prometheus.url().replace("https", "http"), ClientOptions::default());
    assert!(plain.unwrap().ready().await.unwrap_err().to_string().contains("HTTPS server"));
}

#[tokio::test]
async fn requests_travel_through_a_proxy() {
    let (address, heads) = start_proxy().await;
    let proxy = Some(format!("http://me:secret@{address}").parse().unwrap());
    let options = ClientOptions { proxy: proxy.clone(), ..ClientOptions::default() };
    let client = PrometheusClient::new("http://prometheus.example:9090/prefix", options).unwrap();
    client.ready().await.unwrap();
    let head = heads.lock().unwrap().pop().unwrap().to_lowercase();
    assert!(head.starts_with("get http://prometheus.example:9090/prefix/-/ready http/1.1"), "{head}");
    assert!(head.contains("proxy-authorization: basic bwu6c2vjcmv0"), "{head}");

    let Some(prometheus) = SecurePrometheus::start() else { return };
    prometheus.until_ready().await;
    prometheus.client(ClientOptions { proxy, ..prometheus.options() }).ready().await.unwrap();
    let head = heads.lock().unwrap().pop().unwrap().to_lowercase();
    assert!(head.starts_with(&format!("connect localhost:{} http/1.1", prometheus.port)), "{head}");
    assert!(head.contains("proxy-authorization: basic bwu6c2vjcmv0"), "{head}");
    assert!(!head.contains("\r\nauthorization"), "the password of Prometheus is not for the proxy");

    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let proxy = Some(format!("socks5://{taken}").parse().unwrap());
    let client = prometheus.client(ClientOptions { proxy, ..prometheus.options() });
    let error = client.ready().await.unwrap_err().to_string();
    assert!(error.contains(&format!("proxy {taken}: ")) && error.contains("refused"), "{error}");
}

/// A server that reads a request and answers with these bytes.
async fn answer_with(bytes: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let _ = client.read(&mut [0; 4096]).await;
            let _ = client.write_all(bytes).await;
        }
    });
    url
}

#[tokio::test]
async fn answers_that_are_no_answers_are_reported_in_words() {
    for (bytes, expected) in [
        (&b""[..], "the connection was closed before the answer was complete"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "the answer is not HTTP; check which program listens on this port"),
        (b"\x15\x03\x01\x00\x02\x02\x16", "the answer is not HTTP; check which program listens on this port"),
    ] {
        let url = answer_with(bytes).await;
        let client = PrometheusClient::new(&url, ClientOptions::default()).unwrap();
        assert_eq!(client.ready().await.unwrap_err().to_string(), format!("{url}/-/ready: {expected}"));
    }
}
