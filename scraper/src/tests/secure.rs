//! Targets with TLS.

use std::path::Path;
use std::sync::{Arc, Mutex};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tls::{ServerTlsOptions, TlsVersion};
use tokio::net::TcpListener;

use crate::tests::target::{serve, text};
use crate::tests::world::{World, job, of};

/// Writes a CA, and certificates of a server and of a client.
fn write_certificates(dir: &Path) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    std::fs::write(dir.join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
    let issuer = Issuer::new(params, key);
    for name in ["localhost", "client"] {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        std::fs::write(dir.join(format!("{name}.pem")), params.signed_by(&key, &issuer).unwrap().pem())
            .unwrap();
        std::fs::write(dir.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }
}

/// Starts a target that asks clients for a certificate of the CA; its address.
async fn start_target(dir: &Path) -> String {
    let path = |name: &str| dir.join(name);
    let mut options = ServerTlsOptions::new(
        path("localhost.pem"),
        path("localhost.key"),
        Some(path("ca.pem")),
        TlsVersion::Tls12,
    );
    options.alpn = vec![b"http/1.1"];
    let handshake = Arc::new(options.load().unwrap().value);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("localhost:{}", listener.local_addr().unwrap().port());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let handshake = Arc::clone(&handshake);
            tokio::spawn(async move {
                if let Ok(stream) = handshake.accept(stream).await {
                    serve(stream, Arc::new(|_| text("a 1\n")), Arc::new(Mutex::new(Vec::new()))).await;
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn targets_with_tls_are_scraped_with_the_settings_of_their_job() {
    let world = World::new();
    write_certificates(world.path());
    let target = start_target(world.path()).await;
    let client = "cert_file: client.pem, key_file: client.key";
    let apply = |tls: &str| {
        world.apply(&job(std::slice::from_ref(&target), &format!("scheme: https\ntls_config: {{{tls}}}")));
    };
    let becomes = async |expected: &str| {
        world
            .until(expected, || {
                world.targets().first().is_some_and(|target| target.last_error.contains(expected))
            })
            .await;
    };
    apply(&format!("{client}, ca_file: ca.pem"));
    world.until_samples(&of("a", &target), 2).await;
    apply(client);
    becomes("certificate").await;
    apply("ca_file: ca.pem");
    becomes("https://localhost").await;
    let ups = world.values(&of("up", &target));
    assert!(ups.contains(&"0".to_owned()), "{ups:?}");
    let before = world.values(&of("a", &target)).len();
    apply(&format!("{client}, insecure_skip_verify: true"));
    world.until_samples(&of("a", &target), before + 2).await;
    println!("certificates in the file itself");
    apply("ca_file: ca.pem");
    becomes("https://localhost").await;
    let before = world.values(&of("a", &target)).len();
    let read = |name: &str| format!("{:?}", std::fs::read_to_string(world.path().join(name)).unwrap());
    apply(&format!("cert: {}, key: {}, ca: {}", read("client.pem"), read("client.key"), read("ca.pem")));
    world.until_samples(&of("a", &target), before + 2).await;
    apply(&format!("{client}, ca_file: ca.pem, server_name: other"));
    becomes("other").await;
}
