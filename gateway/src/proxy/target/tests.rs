use super::*;

#[tokio::test]
async fn a_name_that_resolves_to_a_metadata_service_is_not_connected_to() {
    let addresses = ["169.254.169.254:80", "[fe80::1]:80", "0.0.0.0:80", "[::ffff:169.254.169.254]:80"];
    let addresses = addresses.map(|address| address.parse().unwrap());
    let deadline = tokio::time::Instant::now() + CONNECT_TIMEOUT;
    let error = connect_to_first(addresses.into_iter(), deadline).await.unwrap_err();
    assert!(error.why.contains("cannot be a target"), "{error:?}");
}

#[tokio::test]
async fn the_error_of_an_unreachable_target_does_not_contain_its_address() {
    // Bound but not listening, so that nothing answers on this port.
    let taken = tokio::net::TcpSocket::new_v4().unwrap();
    taken.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let target =
        ClusterTarget { name: "scraper-0".parse().unwrap(), address: address.parse().unwrap(), tls: None };
    let client = Arc::new(TargetClient::new(&target));
    let status = client.call(Request::new(Body::empty())).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unavailable);
    assert!(status.message().starts_with("connect: ") && !status.message().contains("127.0.0.1"), "{status}");
    assert!(client.tried().starts_with(&format!("{address}: ")), "the owner sees it: {}", client.tried());
}

/// A target that does not answer takes the whole time limit of an attempt. Requests that wait for it do not begin another.
#[tokio::test]
async fn requests_to_a_target_that_does_not_answer_fail_together() {
    let listener = tokio::net::TcpSocket::new_v4().unwrap();
    listener.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = listener.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    // The kernel drops further attempts to connect when the queue is full.
    let mut queued = Vec::new();
    while let Ok(connected) =
        tokio::time::timeout(Duration::from_millis(300), TcpStream::connect(address)).await
    {
        queued.push(connected.unwrap());
    }
    let target = address.to_string();
    let (name, address) = ("scraper-0".parse().unwrap(), target.parse().unwrap());
    let client = Arc::new(TargetClient::new(&ClusterTarget { name, address, tls: None }));
    let began = Instant::now();
    let calls = (0..20).map(|_| client.call(Request::new(Body::empty())));
    for answer in futures::future::join_all(calls).await {
        assert_eq!(answer.unwrap_err().message(), "connect: no answer within 5 s");
    }
    assert!(began.elapsed() < 2 * CONNECT_TIMEOUT, "{:?}", began.elapsed());
    assert_eq!(
        client.tried(),
        format!("{target}: no answer within 5 s"),
        "the owner sees which address it was"
    );
}

/// A server whose answers are empty, with a certificate for `localhost` of the CA in `folder`.
async fn serve_tls(folder: &std::path::Path) -> u16 {
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name.push(rcgen::DnType::CommonName, folder.display().to_string());
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = rcgen::KeyPair::generate().unwrap();
    std::fs::write(folder.join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
    let issuer = rcgen::Issuer::new(params, key);
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
    let (cert, private) = (folder.join("server.pem"), folder.join("server.key"));
    std::fs::write(&cert, params.signed_by(&key, &issuer).unwrap().pem()).unwrap();
    std::fs::write(&private, key.serialize_pem()).unwrap();
    let tls = tls::ServerTlsOptions::new(cert, private, None, tls::TlsVersion::Tls13).load().unwrap().value;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let tls = tls.clone();
            tokio::spawn(async move {
                let Ok(stream) = tls.accept(stream).await else { return };
                let service = hyper::service::service_fn(|_| async {
                    Ok::<_, std::convert::Infallible>(Response::new(Body::empty()))
                });
                let server = hyper::server::conn::http2::Builder::new(BoxingExecutor);
                let _ = server.serve_connection(hyper_util::rt::TokioIo::new(stream), service).await;
            });
        }
    });
    port
}

#[tokio::test]
async fn a_target_with_tls_is_reached_and_refusals_say_why() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let port = serve_tls(folder.path()).await;
    serve_tls(other.path()).await;
    let call = async |ca: Option<std::path::PathBuf>| {
        let tls = ca.map(|ca| ClientTlsOptions {
            ca: Some(ca.into()),
            identity: None,
            server_name: None,
            skip_verify: false,
            min_version: tls::TlsVersion::Tls13,
            alpn: vec![b"h2"],
        });
        let (name, address) = ("scraper-0".parse().unwrap(), format!("localhost:{port}").parse().unwrap());
        let client = Arc::new(TargetClient::new(&ClusterTarget { name, address, tls }));
        let uri = format!("{}://localhost/thanos.Store/Series", client.scheme());
        let answer = client.call(Request::post(uri).body(Body::empty()).unwrap()).await;
        answer.map(|answer| answer.status().as_u16()).map_err(|status| status.message().to_owned())
    };
    assert_eq!(call(Some(folder.path().join("ca.pem"))).await, Ok(200));
    let distrusted = call(Some(other.path().join("ca.pem"))).await.unwrap_err();
    assert_eq!(distrusted, "connect: the server's certificate is not signed by a trusted CA");
    let missing = call(Some(folder.path().join("none"))).await.unwrap_err();
    assert!(missing.starts_with("connect: tls: ") && missing.contains("cannot be read"), "{missing}");
    let plain = call(None).await.unwrap_err();
    assert!(plain.ends_with("; it never answered, check whether it expects TLS"), "{plain}");
}
