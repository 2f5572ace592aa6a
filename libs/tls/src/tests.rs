//! Handshakes between both sides.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::net::{TcpListener, TcpStream};

use crate::*;

/// A CA and a folder with files of certificates that it issued.
struct Files {
    folder: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Files {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, folder.path().display().to_string());
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let ca = params.self_signed(&key).unwrap();
        fs::write(folder.path().join("ca.pem"), ca.pem()).unwrap();
        Self { folder, issuer: Issuer::new(params, key) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Issues `NAME.pem` and `NAME.key` for a DNS name.
    fn issue(&self, name: &str, dns: &str) -> (PathBuf, PathBuf) {
        self.issue_with(name, dns, |_| {})
    }

    fn issue_with(
        &self,
        name: &str,
        dns: &str,
        change: impl FnOnce(&mut CertificateParams),
    ) -> (PathBuf, PathBuf) {
        let mut params = CertificateParams::new([dns.to_owned()]).unwrap();
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        self.write(name, &certificate.pem(), &key)
    }

    /// A certificate that is its own CA, as `openssl req -x509` makes it.
    fn self_signed(&self, name: &str, dns: &str) -> (PathBuf, PathBuf) {
        let mut params = CertificateParams::new([dns.to_owned()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        self.write(name, &certificate.pem(), &key)
    }

    fn write(&self, name: &str, certificate: &str, key: &KeyPair) -> (PathBuf, PathBuf) {
        let paths = (self.path(&format!("{name}.pem")), self.path(&format!("{name}.key")));
        fs::write(&paths.0, certificate).unwrap();
        fs::write(&paths.1, key.serialize_pem()).unwrap();
        paths
    }

    fn server(&self, (cert, key): &(PathBuf, PathBuf), client_ca: Option<&Path>) -> ServerTlsOptions {
        let client_ca = client_ca.map(Into::into);
        ServerTlsOptions::new(cert.clone(), key.clone(), client_ca, TlsVersion::Tls12)
    }

    fn client(&self) -> ClientTlsOptions {
        ClientTlsOptions {
            ca: Some(self.path("ca.pem").into()),
            identity: None,
            server_name: None,
            skip_verify: false,
            min_version: TlsVersion::Tls12,
            alpn: vec![b"h2"],
        }
    }
}

/// Connects and sends a byte each way, which a client needs to learn that it was refused.
async fn meet(server: &Watched<ServerHandshake>, client: &ClientTls) -> (io::Result<String>, io::Result<()>) {
    let (near, far) = duplex(64 << 10);
    let serve = async {
        let mut stream = server.current().accept(far).await?;
        stream.read_u8().await?;
        stream.write_u8(2).await?;
        stream.flush().await?;
        let client = peer_certificate(&stream).map(|der| der.len());
        let (_, connection) = stream.get_ref();
        Ok(format!("{:?} {client:?}", connection.protocol_version().unwrap()))
    };
    let connect = async {
        let mut stream = client.connect("store.example", near).await?;
        let exchange = async {
            stream.write_u8(1).await?;
            stream.flush().await?;
            stream.read_u8().await
        };
        exchange.await.map(drop).map_err(|error| match explain("server", &error) {
            Some(text) => io::Error::other(text),
            None => error,
        })
    };
    tokio::join!(serve, connect)
}

fn load(server: ServerTlsOptions, client: ClientTlsOptions) -> (Watched<ServerHandshake>, ClientTls) {
    let server = Watched::load("server", move || server.load()).unwrap();
    (server, ClientTls::load("client", client).unwrap())
}

async fn refusal(server: ServerTlsOptions, client: ClientTlsOptions) -> (String, String) {
    let (server, client) = load(server, client);
    let (served, connected) = meet(&server, &client).await;
    (served.unwrap_err().to_string(), connected.unwrap_err().to_string())
}

/// A program that is killed ends its TCP connections, and says nothing to TLS before.
#[tokio::test]
async fn the_end_of_a_killed_peer_is_said_in_words() {
    let files = Files::new();
    let pair = files.issue("server", "store.example");
    let (server, client) = load(files.server(&pair, None), files.client());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let connecting = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let serve = async {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = server.current().accept(stream).await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), 1);
        // Only the socket is closed.
        drop(stream);
    };
    let connect = async {
        let stream = client.connect("store.example", connecting).await.unwrap();
        let mut stream = TcpOrTls::from(stream);
        stream.write_u8(1).await.unwrap();
        stream.flush().await.unwrap();
        stream.read_u8().await.unwrap_err()
    };
    let ((), error) = tokio::join!(serve, connect);
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    let expected = "the connection ended suddenly: the peer was killed, or something between cut it";
    assert_eq!(error.to_string(), expected);
}

#[tokio::test]
async fn both_sides_agree_on_the_newest_version_that_both_allow() {
    let files = Files::new();
    let pair = files.issue("server", "store.example");
    for (max, expected) in [(TlsVersion::Tls13, "TLSv1_3"), (TlsVersion::Tls12, "TLSv1_2")] {
        let options = ServerTlsOptions { max_version: max, ..files.server(&pair, None) };
        let (server, client) = load(options, files.client());
        let (served, connected) = meet(&server, &client).await;
        connected.unwrap();
        assert!(served.unwrap().starts_with(expected));
    }
    let old = ServerTlsOptions { max_version: TlsVersion::Tls12, ..files.server(&pair, None) };
    let new = ClientTlsOptions { min_version: TlsVersion::Tls13, ..files.client() };
    let (served, connected) = refusal(old, new).await;
    assert_eq!(served, "the client supports no TLS version and algorithms that are allowed here");
    assert_eq!(connected, "the server supports no TLS version that is allowed here");
}

#[tokio::test]
async fn server_is_verified_unless_that_is_switched_off() {
    let files = Files::new();
    let other = Files::new();
    let check = async |pair: &(PathBuf, PathBuf), client: ClientTlsOptions, expected: &str| {
        let (_, connected) = refusal(files.server(pair, None), client.clone()).await;
        assert_eq!(connected, expected);
        let anyone = ClientTlsOptions { skip_verify: true, ..client };
        let (server, client) = load(files.server(pair, None), anyone);
        meet(&server, &client).await.1.unwrap();
    };
    let untrusted = "the server's certificate is not signed by a trusted CA";
    check(&other.issue("server", "store.example"), files.client(), untrusted).await;
    let pair = files.issue("querier", "querier.example");
    let wrong_name = "the server's certificate is for querier.example, expected store.example";
    check(&pair, files.client(), wrong_name).await;
    let named = ClientTlsOptions { server_name: Some("querier.example".to_owned()), ..files.client() };
    let (server, client) = load(files.server(&pair, None), named);
    meet(&server, &client).await.1.unwrap();
    let expired = files.issue_with("old", "store.example", |params| {
        params.not_before = time::OffsetDateTime::UNIX_EPOCH;
        params.not_after = time::OffsetDateTime::UNIX_EPOCH + time::Duration::days(1);
    });
    check(&expired, files.client(), "the server's certificate has expired").await;
    let listed = files.self_signed("self", "store.example");
    check(&listed, files.client(), "the server's certificate cannot be used: it is that of a CA; list it as trusted, or issue one for the server").await;
    let trusting = ClientTlsOptions { ca: Some(listed.0.clone().into()), ..files.client() };
    let (server, client) = load(files.server(&listed, None), trusting);
    meet(&server, &client).await.1.unwrap();
    let other_name = files.self_signed("self", "other.example");
    let trusting = ClientTlsOptions { ca: Some(other_name.0.clone().into()), ..files.client() };
    assert!(refusal(files.server(&other_name, None), trusting).await.1.contains("expected store.example"));
}

#[tokio::test]
async fn clients_need_a_certificate_of_the_ca_where_one_is_set() {
    let files = Files::new();
    let other = Files::new();
    let pair = files.issue("server", "store.example");
    let ca = files.path("ca.pem");
    let server = || files.server(&pair, Some(&ca));
    let (served, connected) = refusal(server(), files.client()).await;
    assert_eq!(served, "the client presented no certificate, but one is required");
    assert_eq!(connected, "the server requires a client certificate");

    let stranger = ClientTlsOptions { identity: pem(Some(other.issue("me", "me"))), ..files.client() };
    let (served, connected) = refusal(server(), stranger).await;
    assert_eq!(served, "the client's certificate is not signed by a trusted CA");
    assert_eq!(connected, "the server does not trust the CA of our certificate");

    let known = ClientTlsOptions { identity: pem(Some(files.issue("me", "me"))), ..files.client() };
    let (server_tls, client) = load(server(), known.clone());
    let (served, connected) = meet(&server_tls, &client).await;
    connected.unwrap();
    assert!(served.unwrap().contains("Some("), "the server sees the certificate");

    let names = ["spiffe://a/b", "me"].map(str::to_owned).to_vec();
    let (server_tls, client) = load(ServerTlsOptions { client_names: names, ..server() }, known.clone());
    meet(&server_tls, &client).await.1.unwrap();
    let names = vec!["you".to_owned()];
    let (served, _) = refusal(ServerTlsOptions { client_names: names, ..server() }, known).await;
    assert_eq!(served, "the client's certificate has none of the allowed names");

    let listed = files.self_signed("self", "me");
    let options = files.server(&pair, Some(&listed.0));
    let (server_tls, client) =
        load(options, ClientTlsOptions { identity: pem(Some(listed)), ..files.client() });
    meet(&server_tls, &client).await.1.unwrap();
}

#[tokio::test]
async fn each_policy_for_client_certificates_admits_what_it_says() {
    let files = Files::new();
    let pair = files.issue("server", "store.example");
    let known = files.issue("me", "me");
    let others = Files::new();
    let stranger = others.issue("me", "me");
    for (policy, none, unknown) in [
        (ClientAuth::NoClientCert, true, true),
        (ClientAuth::RequestClientCert, true, true),
        (ClientAuth::RequireAnyClientCert, false, true),
        (ClientAuth::VerifyClientCertIfGiven, true, false),
        (ClientAuth::RequireAndVerifyClientCert, false, false),
    ] {
        for (identity, admitted) in
            [(None, none), (Some(stranger.clone()), unknown), (Some(known.clone()), true)]
        {
            let options = files.server(&pair, Some(&files.path("ca.pem")));
            let options = ServerTlsOptions { client_auth: policy, ..options };
            let (server, client) =
                load(options, ClientTlsOptions { identity: pem(identity), ..files.client() });
            assert_eq!(meet(&server, &client).await.0.is_ok(), admitted, "{policy:?}");
        }
    }
}

#[tokio::test]
async fn changed_files_are_used_by_the_next_handshake_and_broken_ones_are_not() {
    let files = Files::new();
    let other = Files::new();
    let pair = files.issue("server", "store.example");
    let (server, client) = load(files.server(&pair, None), files.client());
    meet(&server, &client).await.1.unwrap();

    // The server gets a certificate of another CA; the client does not trust it until it gets that CA.
    let (cert, key) = other.issue("server", "store.example");
    fs::copy(&cert, &pair.0).unwrap();
    meet(&server, &client).await.1.expect("the key is still the old one, so the old pair stays in use");
    assert!(server.reload().unwrap_err().contains("the private key does not belong to the certificate"));
    fs::copy(&key, &pair.1).unwrap();
    assert!(meet(&server, &client).await.1.unwrap_err().to_string().contains("trusted CA"));
    fs::copy(other.path("ca.pem"), files.path("ca.pem")).unwrap();
    meet(&server, &client).await.1.unwrap();

    fs::write(&pair.0, "no certificate").unwrap();
    fs::remove_file(&pair.1).unwrap();
    meet(&server, &client).await.1.expect("the last pair that could be used stays in use");
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let files = Files::new();
    let pair = files.issue("server", "store.example");
    let check = |options: ServerTlsOptions, expected: &[&str]| {
        let error = options.load().unwrap_err();
        assert!(expected.iter().all(|part| error.contains(part)), "{error}");
    };
    let swapped = (pair.1.clone(), pair.0.clone());
    check(files.server(&swapped, None), &["server.key: contains no certificate"]);
    let both_cert = (pair.0.clone(), pair.0.clone());
    check(files.server(&both_cert, None), &["server.pem: contains no private key"]);
    let gone = (files.path("gone.pem"), pair.1.clone());
    check(files.server(&gone, None), &["gone.pem: cannot be read", "No such file"]);
    let other = files.issue("other", "x");
    check(files.server(&(pair.0.clone(), other.1), None), &["server.pem and ", "does not belong to"]);
    check(files.server(&pair, Some(&files.path("none"))), &["none: cannot be read"]);
    let client = ClientTlsOptions { server_name: Some("a b".to_owned()), ..files.client() };
    assert!(ClientTls::load("x", client).unwrap_err().contains("\"a b\" is neither a DNS name"));
}

#[tokio::test]
async fn peer_without_tls_is_reported_as_such() {
    let files = Files::new();
    let (server, client) = load(files.server(&files.issue("s", "store.example"), None), files.client());
    let (mut near, far) = duplex(64 << 10);
    near.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    let error = server.current().accept(far).await.unwrap_err();
    assert_eq!(error.to_string(), "the client does not speak TLS on this connection");
    let (mut near, far) = duplex(64 << 10);
    near.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
    let error = client.connect("store.example", far).await.unwrap_err();
    assert_eq!(error.to_string(), "the server does not speak TLS on this connection");
    let (near, far) = duplex(64 << 10);
    drop(near);
    let error = client.connect("store.example", far).await.unwrap_err();
    assert!(error.to_string().contains("during the TLS handshake"), "{error}");
}

#[test]
fn names_of_versions_suites_and_curves_are_those_of_thanos() {
    assert!("1.1".parse::<TlsVersion>().is_ok_and(|version| version == TlsVersion::Tls12));
    assert!(
        "TLS13".parse::<TlsVersion>().is_ok_and(|version| version == TlsVersion::Tls13),
        "as in Prometheus"
    );
    assert!("TLS14".parse::<TlsVersion>().unwrap_err().contains("expected 1.2 or 1.3"));
    let error = "TLS_RSA_WITH_AES_128_CBC_SHA".parse::<CipherSuite>().unwrap_err();
    assert!(error.contains("is not supported, expected one of TLS_ECDHE_ECDSA"), "{error}");
    assert!("TLS_AES_128_GCM_SHA256".parse::<CipherSuite>().is_ok());
    assert!("CurveP521".parse::<Curve>().unwrap_err().contains("X25519MLKEM768"));
}

fn pem(files: Option<(PathBuf, PathBuf)>) -> Option<(PemSource, PemSource)> {
    files.map(|(cert, key)| (cert.into(), key.into()))
}
