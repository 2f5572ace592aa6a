//! Two Envoys with mutual TLS between them, in front of a source: what a Thanos user has today.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tests::{Process, free_port, wait_for};

/// The names in the certificates of both sides.
const NAME: &str = "envoy.test";

/// A pair of Envoys. They are killed when this is dropped.
pub(crate) struct EnvoyPair {
    pub(crate) address: SocketAddr,
    pub(crate) processes: [Process; 2],
}

/// The program: `$ENVOY`, or `envoy` on the PATH. `None` if there is none.
pub(crate) fn program() -> Option<PathBuf> {
    let given = std::env::var_os("ENVOY").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join("envoy")).find(|file| file.is_file());
    given.or(found)
}

impl EnvoyPair {
    /// Starts both in front of the gRPC server at `source`.
    pub(crate) fn start(program: &Path, dir: &Path, source: SocketAddr) -> Self {
        fs::create_dir_all(dir).expect("a folder");
        write_certificates(dir);
        let (egress, ingress) = (free_port(), free_port());
        let ingress_yaml = config(ingress, &downstream_tls(dir), source, "");
        let egress_yaml = config(egress, "", ingress, &upstream_tls(dir));
        let processes = [("ingress", ingress_yaml), ("egress", egress_yaml)].map(|(name, yaml)| {
            let file = dir.join(format!("{name}.yaml"));
            fs::write(&file, yaml).expect("a file");
            let args = [
                "-c",
                &file.display().to_string(),
                "--concurrency",
                "2",
                "--use-dynamic-base-id",
                "-l",
                "warn",
            ];
            Process::start(program, &args.map(str::to_owned), &dir.join(format!("{name}.log")))
        });
        for at in [ingress, egress] {
            wait_for("a port of Envoy", Duration::from_secs(30), || {
                std::net::TcpStream::connect(at).map(drop).map_err(|error| error.to_string())
            });
        }
        Self { address: egress, processes }
    }
}

fn write_certificates(dir: &Path) {
    let mut params = CertificateParams::default();
    // A leaf whose name is that of its issuer would look self-signed.
    params.distinguished_name.push(DnType::CommonName, "bench CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("a key");
    fs::write(dir.join("ca.pem"), params.self_signed(&key).expect("a certificate").pem()).expect("a file");
    let ca = Issuer::new(params, key);
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new([NAME.to_owned()]).expect("a name");
    fs::write(dir.join("leaf.pem"), params.signed_by(&key, &ca).expect("a certificate").pem())
        .expect("a file");
    fs::write(dir.join("leaf.key"), key.serialize_pem()).expect("a file");
}

/// The files of a side, and that it accepts only peers with a certificate of the CA.
fn common_tls(dir: &Path) -> String {
    let dir = dir.display();
    format!(
        "common_tls_context: {{alpn_protocols: [h2], \
         tls_params: {{tls_minimum_protocol_version: TLSv1_3, tls_maximum_protocol_version: TLSv1_3}}, \
         tls_certificates: [{{certificate_chain: {{filename: {dir}/leaf.pem}}, private_key: {{filename: {dir}/leaf.key}}}}], \
         validation_context: {{trusted_ca: {{filename: {dir}/ca.pem}}}}}}"
    )
}

const TLS_TYPES: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3";

fn downstream_tls(dir: &Path) -> String {
    format!(
        "transport_socket: {{name: tls, typed_config: {{'@type': {TLS_TYPES}.DownstreamTlsContext, \
         require_client_certificate: true, {}}}}}",
        common_tls(dir)
    )
}

fn upstream_tls(dir: &Path) -> String {
    format!(
        "transport_socket: {{name: tls, typed_config: {{'@type': {TLS_TYPES}.UpstreamTlsContext, sni: {NAME}, {}}}}}",
        common_tls(dir)
    )
}

/// A proxy of HTTP/2 from one address to another.
fn config(listen: SocketAddr, listen_tls: &str, to: SocketAddr, to_tls: &str) -> String {
    let address =
        |at: SocketAddr| format!("{{socket_address: {{address: {}, port_value: {}}}}}", at.ip(), at.port());
    let types = "type.googleapis.com/envoy.extensions";
    format!(
        "static_resources:
  listeners:
  - address: {listen}
    filter_chains:
    - filters:
      - name: http
        typed_config:
          '@type': {types}.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: bench
          codec_type: HTTP2
          stream_idle_timeout: 0s
          route_config:
            virtual_hosts:
            - name: all
              domains: ['*']
              routes: [{{match: {{prefix: /}}, route: {{cluster: to, timeout: 0s}}}}]
          http_filters:
          - name: router
            typed_config: {{'@type': {types}.filters.http.router.v3.Router}}
      {listen_tls}
  clusters:
  - name: to
    type: STATIC
    connect_timeout: 5s
    circuit_breakers: {{thresholds: [{{max_connections: 10000, max_requests: 10000, max_pending_requests: 10000}}]}}
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        '@type': {types}.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {{http2_protocol_options: {{}}}}
    load_assignment:
      cluster_name: to
      endpoints: [{{lb_endpoints: [{{endpoint: {{address: {to}}}}}]}}]
    {to_tls}
",
        listen = address(listen),
        to = address(to),
    )
}
