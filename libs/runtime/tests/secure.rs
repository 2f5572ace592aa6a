//! Servers with TLS, client certificates and passwords, seen by real clients.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use axum::routing::get;
use axum::{Extension, Router};
use bytes::Bytes;
use clap::Parser;
use http_body_util::Full;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use runtime::{ClientCertificate, CommonArgs, RoleInfo, RunningRole, Startup};
use tempfile::TempDir;
use tls::{ClientTls, ClientTlsOptions, TlsVersion};
use tokio::net::TcpStream;
use tonic_health::pb::FILE_DESCRIPTOR_SET;

const ROLE: RoleInfo = RoleInfo { name: "test", descriptors: &[FILE_DESCRIPTOR_SET], ..RoleInfo::DEFAULT };

#[derive(Parser)]
struct TestFlags {
    #[command(flatten)]
    common: CommonArgs,
}

/// A CA, certificates of a server and of a client, and a configuration, in a folder.
struct Files(TempDir);

impl Files {
    fn new() -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "a CA for tests");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        fs::write(files.path("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        let issuer = Issuer::new(params, key);
        for (name, purpose) in
            [("server", ExtendedKeyUsagePurpose::ServerAuth), ("client", ExtendedKeyUsagePurpose::ClientAuth)]
        {
            let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
            let mut params = CertificateParams::new(names).unwrap();
            params.extended_key_usages = vec![purpose];
            let key = KeyPair::generate().unwrap();
            let certificate = params.signed_by(&key, &issuer).unwrap();
            fs::write(files.path(&format!("{name}.pem")), certificate.pem()).unwrap();
            fs::write(files.path(&format!("{name}.key")), key.serialize_pem()).unwrap();
        }
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    fn write_config(&self, text: &str) {
        fs::write(self.path("web.yml"), text).unwrap();
    }

    fn grpc_flags(&self) -> Vec<String> {
        let pairs = [("cert", "server.pem"), ("key", "server.key"), ("client-ca", "ca.pem")];
        pairs.map(|(flag, file)| format!("--grpc-server-tls-{flag}={}", self.text(file))).into()
    }
}

async fn bind(flags: &[String]) -> Result<Startup, runtime::RoleError> {
    let fixed = ["role", "--http-address=127.0.0.1:0", "--grpc-address=127.0.0.1:0"].map(str::to_owned);
    Startup::bind(ROLE, &TestFlags::parse_from(fixed.iter().chain(flags)).common).await
}

async fn start(flags: &[String]) -> RunningRole {
    let mut startup = bind(flags).await.unwrap();
    let who = |certificate: Option<Extension<ClientCertificate>>| async move {
        certificate.map_or("nobody".to_owned(), |Extension(certificate)| {
            format!("a certificate of {} bytes", certificate.der().len())
        })
    };
    startup.add_routes(Router::new().route("/who", get(who)));
    startup.serve()
}

/// What curl prints, and the status of the answer. Runs on a thread of its own, because the server needs this one.
async fn curl(args: &[&str]) -> (String, String) {
    let mut command = Command::new("curl");
    command.args(["-sS", "--max-time", "60", "-w", "\n%{http_code}"]).args(args).env_remove("https_proxy");
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let (body, status) = text.rsplit_once('\n').unwrap();
    (format!("{body}{}", String::from_utf8_lossy(&output.stderr)), status.to_owned())
}

fn has_curl() -> bool {
    let found = Command::new("curl").arg("--version").output().is_ok();
    if !found {
        println!("skipped: curl is not installed");
    }
    found
}

#[tokio::test]
async fn http_is_served_with_tls_and_passwords_that_follow_their_files() {
    if !has_curl() {
        return;
    }
    let files = Files::new();
    let tls = "tls_server_config: {cert_file: server.pem, key_file: server.key}\n";
    let users = |name: &str, password: &str| {
        format!("{tls}basic_auth_users:\n  {name}: {}\n", bcrypt::hash(password, 4).unwrap())
    };
    files.write_config(&format!(
        "{}http_server_config: {{headers: {{X-Frame-Options: deny}}}}",
        users("alice", "s3cret")
    ));
    let role = start(&[format!("--http.config={}", files.text("web.yml"))]).await;
    let address = role.http_address();
    let (url, ca) = (format!("https://localhost:{}/-/healthy", address.port()), files.text("ca.pem"));
    let status = async |user: &str| curl(&["--cacert", &ca, "-u", user, &url]).await.1;

    let (body, code) = curl(&["--cacert", &ca, "-i", "-u", "alice:s3cret", &url]).await;
    assert_eq!(code, "200", "{body}");
    assert!(body.starts_with("HTTP/2 200") && body.contains("x-frame-options: deny"), "{body}");
    let (body, code) = curl(&["--cacert", &ca, "-i", &url]).await;
    assert_eq!(code, "401", "{body}");
    assert!(body.contains("www-authenticate: Basic"), "{body}");
    for wrong in ["alice:", "alice:S3cret", "bob:s3cret"] {
        assert_eq!(status(wrong).await, "401", "{wrong}");
    }
    let (body, code) = curl(&[&url]).await;
    assert!(code == "000" && body.contains("certificate"), "an unknown CA: {body}");
    let (body, code) = curl(&[&format!("http://{address}/-/healthy")]).await;
    assert_eq!((body.as_str(), code.as_str()), ("Client sent an HTTP request to an HTTPS server.\n", "400"));

    files.write_config(&users("bob", "0ther"));
    assert_eq!((status("bob:0ther").await, status("alice:s3cret").await), ("200".into(), "401".into()));
    files.write_config("basic_auth_users: {bob: plain}\n");
    assert_eq!(status("bob:0ther").await, "200", "a file with a mistake is not used");
    let error = role.reload().run().await.unwrap_err().to_string();
    assert!(error.contains("basic_auth_users.bob: is not a bcrypt hash"), "{error}");
    files.write_config("");
    assert_eq!(status("bob:0ther").await, "200", "TLS is not turned off by a change");
    role.shutdown().trigger();
}

#[tokio::test]
async fn passwords_are_asked_for_without_tls_too() {
    if !has_curl() {
        return;
    }
    let files = Files::new();
    files.write_config(&format!("basic_auth_users: {{a: {}}}", bcrypt::hash("b", 4).unwrap()));
    let role = start(&[format!("--http.config={}", files.text("web.yml"))]).await;
    let url = format!("http://{}/metrics", role.http_address());
    assert_eq!(curl(&[&url]).await.1, "401");
    let (body, code) = curl(&["-u", "a:b", &url]).await;
    assert!(code == "200" && body.contains("isthmus_build_info"), "{code}: {body}");
}

#[tokio::test]
async fn handlers_see_the_certificate_of_the_client() {
    if !has_curl() {
        return;
    }
    let files = Files::new();
    files.write_config(
        "tls_server_config:\n  cert_file: server.pem\n  key_file: server.key\n  client_auth_type: VerifyClientCertIfGiven\n  client_ca_file: ca.pem\n",
    );
    let role = start(&[format!("--http.config={}", files.text("web.yml"))]).await;
    let url = format!("https://localhost:{}/who", role.http_address().port());
    let (ca, cert, key) = (files.text("ca.pem"), files.text("client.pem"), files.text("client.key"));
    assert_eq!(curl(&["--cacert", &ca, &url]).await.0, "nobody");
    let (body, _) = curl(&["--cacert", &ca, "--cert", &cert, "--key", &key, &url]).await;
    assert!(body.starts_with("a certificate of "), "{body}");
}

/// Asks for the health over gRPC; the status of gRPC, or why there is none.
async fn health(address: SocketAddr, tls: &ClientTls) -> Result<String, String> {
    let stream = TcpStream::connect(address).await.unwrap();
    let stream = tls.connect("localhost", stream).await.map_err(|error| error.to_string())?;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .map_err(|error| error.to_string())?;
    tokio::spawn(connection);
    let request = http::Request::post("https://localhost/grpc.health.v1.Health/NoSuchMethod")
        .header("content-type", "application/grpc")
        .body(Full::new(Bytes::from_static(&[0; 5])))
        .unwrap();
    let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
    Ok(answer.headers()["grpc-status"].to_str().unwrap().to_owned())
}

#[tokio::test]
async fn grpc_is_served_with_tls_to_clients_of_the_ca_only() {
    let files = Files::new();
    let role = start(&files.grpc_flags()).await;
    let options = ClientTlsOptions {
        ca: Some(files.path("ca.pem").into()),
        identity: Some((files.path("client.pem").into(), files.path("client.key").into())),
        server_name: None,
        skip_verify: false,
        min_version: TlsVersion::Tls13,
        alpn: vec![b"h2"],
    };
    let known = ClientTls::load("test", options.clone()).unwrap();
    assert_eq!(health(role.grpc_address(), &known).await.unwrap(), "12");
    let stranger = ClientTls::load("test", ClientTlsOptions { identity: None, ..options.clone() }).unwrap();
    assert!(health(role.grpc_address(), &stranger).await.is_err());
    // The certificate of a server does not prove a client.
    let identity = Some((files.path("server.pem").into(), files.path("server.key").into()));
    let server = ClientTls::load("test", ClientTlsOptions { identity, ..options }).unwrap();
    assert!(health(role.grpc_address(), &server).await.is_err());
}

#[tokio::test]
async fn flags_and_files_that_cannot_be_used_end_the_start_with_code_2() {
    let files = Files::new();
    let cert = format!("--grpc-server-tls-cert={}", files.text("server.pem"));
    let client_ca = format!("--grpc-server-tls-client-ca={}", files.text("ca.pem"));
    for (flags, expected) in [
        (vec![cert.clone()], "only one of them is given, give both"),
        (vec![client_ca], "--grpc-server-tls-client-ca is given without"),
        (
            vec![cert, "--grpc-server-tls-key=/no/such".to_owned()],
            "--grpc-server-tls-cert: /no/such: cannot be read",
        ),
        (vec!["--http.config=/no/such".to_owned()], "/no/such: cannot be read"),
    ] {
        let error = bind(&flags).await.map(drop).unwrap_err();
        assert_eq!(error.exit_code(), runtime::EXIT_USAGE, "{error}");
        assert!(error.to_string().contains(expected), "{error}");
    }
    let empty = ["--grpc-server-tls-cert=", "--grpc-server-tls-key=", "--http.config="].map(str::to_owned);
    assert!(bind(&empty).await.is_ok(), "an empty value is the same as no flag");
}
