//! Channels to servers with and without TLS.

use std::path::PathBuf;

use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tempfile::TempDir;
use tls::{ClientTls, ClientTlsOptions, ServerTlsOptions, TlsVersion};
use tokio::net::TcpListener;
use tonic::Code;
use tonic_health::ServingStatus;

use super::{check, routes};
use crate::*;

/// A CA, and certificates that it issued for `localhost`, in a folder.
pub(super) struct Files(TempDir);

impl Files {
    pub(super) fn new() -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, files.0.path().display().to_string());
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        std::fs::write(files.path("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        let issuer = Issuer::new(params, key);
        for name in ["server", "client"] {
            let key = KeyPair::generate().unwrap();
            let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
            let certificate = params.signed_by(&key, &issuer).unwrap();
            std::fs::write(files.path(&format!("{name}.pem")), certificate.pem()).unwrap();
            std::fs::write(files.path(&format!("{name}.key")), key.serialize_pem()).unwrap();
        }
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(super) fn client(&self) -> ClientTlsOptions {
        ClientTlsOptions {
            ca: Some(self.path("ca.pem").into()),
            identity: Some((self.path("client.pem").into(), self.path("client.key").into())),
            server_name: None,
            skip_verify: false,
            min_version: TlsVersion::Tls13,
            alpn: vec![b"h2"],
        }
    }

    /// A health server whose clients need a certificate of the CA.
    async fn serve(&self) -> String {
        let (cert, key, ca) = (self.path("server.pem"), self.path("server.key"), self.path("ca.pem"));
        let tls = ServerTlsOptions::new(cert, key, Some(ca), TlsVersion::Tls13).load().unwrap().value;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let routes = routes().await;
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (tls, service) = (tls.clone(), TowerToHyperService::new(routes.clone()));
                tokio::spawn(async move {
                    let Ok(stream) = tls.accept(stream).await else { return };
                    let server = auto::Builder::new(TokioExecutor::new()).http2_only();
                    let _ = server.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        format!("localhost:{port}")
    }
}

async fn failure(address: &str, tls: Option<ClientTlsOptions>) -> String {
    let tls = tls.map(|options| ClientTls::load("test", options).unwrap());
    let channel = direct_with(address, &ChannelOptions { tls, compression: None }).unwrap();
    let status = check(channel, "x").await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    let message = status.message().to_owned();
    message.strip_prefix(&format!("{address}: ")).unwrap_or_else(|| panic!("{message}")).to_owned()
}

#[tokio::test]
async fn requests_travel_with_tls_directly_and_through_a_gateway() {
    let files = Files::new();
    let address = files.serve().await;
    let tls = Some(ClientTls::load("test", files.client()).unwrap());
    let options = ChannelOptions { tls, compression: Some(MessageEncoding::Snappy) };
    let direct = direct_with(&address, &options).unwrap();
    let via = via_with(&address, &"scraper-0.eu-1".parse().unwrap(), &options).unwrap();
    for channel in [direct, via] {
        // This server has no compression.
        assert_eq!(check(channel, "x").await.unwrap_err().code(), Code::Unimplemented);
    }
    let plain = ChannelOptions { compression: None, ..options };
    let channel = direct_with(&address, &plain).unwrap();
    assert_eq!(check(channel, "x").await.unwrap(), ServingStatus::Serving as i32);
}

#[tokio::test]
async fn an_error_says_why_there_is_no_connection() {
    let files = Files::new();
    let address = files.serve().await;
    let check = async |tls: Option<ClientTlsOptions>, expected: &str| {
        assert_eq!(failure(&address, tls).await, expected);
    };
    // The server's alert may be lost with the connection.
    let plain = failure(&address, None).await;
    assert!(plain.contains("expects TLS"), "{plain}");
    let nobody = ClientTlsOptions { identity: None, ..files.client() };
    check(Some(nobody), "the server requires a client certificate").await;
    let other = Files::new();
    let stranger = ClientTlsOptions {
        identity: Some((other.path("client.pem").into(), other.path("client.key").into())),
        ..files.client()
    };
    check(Some(stranger), "the server does not trust the CA of our certificate").await;
    let distrusting = ClientTlsOptions { ca: Some(other.path("ca.pem").into()), ..files.client() };
    check(Some(distrusting), "the server's certificate is not signed by a trusted CA").await;
    let named = ClientTlsOptions { server_name: Some("store.example".to_owned()), ..files.client() };
    check(Some(named), "the server's certificate is for localhost, expected store.example").await;
}

#[tokio::test]
async fn a_server_without_tls_or_without_an_answer_is_reported_as_such() {
    let files = Files::new();
    let server = super::serve(super::ANY, super::Seen::default()).await;
    let address = format!("localhost:{}", server.address.port());
    assert_eq!(
        failure(&address, Some(files.client())).await,
        "the server does not speak TLS on this connection"
    );

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("localhost:{}", listener.local_addr().unwrap().port());
    tokio::spawn(async move { while listener.accept().await.is_ok() {} });
    let silent = failure(&address, None).await;
    assert_eq!(silent, "the server closed the connection without an answer; check whether it expects TLS");
}
