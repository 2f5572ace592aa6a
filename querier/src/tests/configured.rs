//! Endpoints of `--endpoint.sd-config`: their own TLS, and changes of the file.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use runtime::Shutdown;
use storeapi::{RequestLimits, Store, StoreServer};
use tls::{ServerTlsOptions, TlsVersion};
use tokio::net::TcpListener;
use tonic::service::RoutesBuilder;

use super::{memory, serve, wait_for};
use crate::endpoints::{EndpointOptions, EndpointSet, EndpointSpec, watch_endpoints};
use crate::grpc_client::GrpcClientConfig;

/// Serves a store with a certificate for `localhost` of a CA that is written to `folder`.
async fn serve_tls(folder: &Path, store: Arc<dyn Store>) -> String {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "a CA for tests");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    fs::write(folder.join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    let (cert, private) = (folder.join("store.pem"), folder.join("store.key"));
    fs::write(&cert, params.signed_by(&key, &issuer).unwrap().pem()).unwrap();
    fs::write(&private, key.serialize_pem()).unwrap();
    let tls = ServerTlsOptions::new(cert, private, None, TlsVersion::Tls13).load().unwrap().value;

    let mut routes = RoutesBuilder::default();
    StoreServer::new(store, RequestLimits::default()).register(&mut routes);
    let routes = routes.routes();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
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

/// The state of each endpoint: `None` if it is healthy.
fn states(set: &EndpointSet) -> Vec<(String, Option<String>)> {
    set.endpoints().iter().map(|e| (e.name().to_owned(), e.state().last_error)).collect()
}

#[tokio::test]
async fn endpoints_are_reached_with_their_own_settings_that_follow_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let secure = serve_tls(folder.path(), memory(&[("replica", "a")], &["a"])).await;
    let plain = serve(memory(&[("replica", "b")], &["b"])).await;
    let file = folder.path().join("endpoints.yaml");
    let write = |tls: &str| {
        let text = format!(
            "endpoints:\n- address: {plain}\n- address: {secure}\n  client_config: {{tls_config: {tls}}}\n"
        );
        fs::write(&file, text).unwrap();
    };
    let trusting = format!("{{ca_file: {}}}", folder.path().join("ca.pem").display());
    write(&trusting);
    let configured = watch_endpoints(None, Some(file.clone()), GrpcClientConfig::default()).unwrap();
    let set = EndpointSet::new(EndpointOptions {
        configured,
        info_interval: Duration::from_millis(50),
        ..EndpointOptions::default()
    });
    let shutdown = Shutdown::new();
    let task = tokio::spawn(set.clone().run(|_| {}, shutdown.clone()));
    let both_healthy = || states(&set).len() == 2 && states(&set).iter().all(|(_, error)| error.is_none());
    wait_for("both stores to be healthy", both_healthy).await;
    let first = set.endpoints().into_iter().find(|endpoint| endpoint.name() == plain).unwrap();

    write("{enabled: false}");
    let expects_tls = || {
        let state = states(&set).into_iter().find(|(name, _)| *name == secure);
        state.and_then(|(_, error)| error).is_some_and(|error| error.contains("expects TLS"))
    };
    wait_for("the store to be asked without TLS", expects_tls).await;
    write(&trusting);
    wait_for("both stores to be healthy again", both_healthy).await;
    let same = set.endpoints().into_iter().find(|endpoint| endpoint.name() == plain).unwrap();
    assert!(Arc::ptr_eq(&first, &same), "an endpoint that did not change keeps its state");

    fs::write(&file, format!("endpoints: [{{address: {plain}}}]")).unwrap();
    wait_for("one store to be removed", || states(&set).len() == 1).await;
    shutdown.trigger();
    task.await.unwrap();
}

#[tokio::test]
async fn an_address_in_a_flag_and_in_the_file_is_one_endpoint_with_the_settings_of_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let secure = serve_tls(folder.path(), memory(&[("replica", "a")], &["a"])).await;
    let file = folder.path().join("endpoints.yaml");
    let trusting = format!("{{ca_file: {}}}", folder.path().join("ca.pem").display());
    let text = format!("endpoints: [{{address: '{secure}', client_config: {{tls_config: {trusting}}}}}]");
    fs::write(&file, text).unwrap();
    let configured = watch_endpoints(None, Some(file.clone()), GrpcClientConfig::default()).unwrap();
    let endpoints = vec![EndpointSpec { address: secure.parse().unwrap(), strict: false, replicas: false }];
    let info_interval = Duration::from_millis(50);
    let set = EndpointSet::new(EndpointOptions {
        configured,
        endpoints,
        info_interval,
        ..EndpointOptions::default()
    });
    let shutdown = Shutdown::new();
    let task = tokio::spawn(set.clone().run(|_| {}, shutdown.clone()));
    let is_healthy = || states(&set) == [(secure.clone(), None)];
    wait_for("one healthy endpoint", is_healthy).await;
    // When the file does not list it any more, the settings of the flags apply.
    fs::write(&file, "endpoints: []").unwrap();
    let expects_tls = || {
        let states = states(&set);
        states.len() == 1 && states[0].1.as_ref().is_some_and(|error| error.contains("expects TLS"))
    };
    wait_for("the store to be asked without TLS", expects_tls).await;
    shutdown.trigger();
    task.await.unwrap();
}
