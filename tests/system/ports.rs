//! What each port of each role shows to a stranger: warnings about open addresses, CORS, and gRPC reflection.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use futures::stream;
use tests::{Process, isthmus, wait_for};
use tonic::Code;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};

/// A method of each service of the workspace.
const METHODS: [(&str, &str); 11] = [
    ("isthmus.mesh.v1.Control", "Session"),
    ("isthmus.mesh.v1.Directory", "Watch"),
    ("isthmus.pki.v1.Enrolment", "Enrol"),
    ("thanos.Exemplars", "Exemplars"),
    ("thanos.Metadata", "MetricMetadata"),
    ("thanos.Query", "Query"),
    ("thanos.Rules", "Rules"),
    ("thanos.Status", "TSDBStatistics"),
    ("thanos.Store", "Series"),
    ("thanos.Targets", "Targets"),
    ("thanos.info.Info", "Info"),
];

/// A role on all interfaces, with the addresses on loopback of its two servers.
struct Role {
    process: Process,
    http: SocketAddr,
    grpc: SocketAddr,
}

impl Role {
    fn start(dir: &Path, name: &str, flags: &[&str]) -> Self {
        let flags = flags.iter().chain(&["--http-address=0.0.0.0:0", "--grpc-address=0.0.0.0:0"]);
        let flags: Vec<String> = flags.map(|flag| (*flag).to_owned()).collect();
        let process = Process::start(&isthmus(), &flags, &dir.join(format!("{name}.log")));
        let address = |field: &str| {
            wait_for(&format!("the address of {name}"), Duration::from_secs(30), || {
                let line = line(&process, "the servers accept connections")?;
                address(&line, field)
            })
        };
        let (http, grpc) = (address("http="), address("grpc="));
        Self { process, http, grpc }
    }
}

/// A store of an empty bucket.
fn store(dir: &Path) -> Role {
    on_bucket(dir, "store", &["store"])
}

/// A compactor of an empty bucket.
fn compactor(dir: &Path) -> Role {
    on_bucket(dir, "compactor", &["compact", "--wait"])
}

/// A role that works on an empty bucket.
fn on_bucket(dir: &Path, name: &str, flags: &[&str]) -> Role {
    let bucket = dir.join(format!("{name}-bucket"));
    std::fs::create_dir_all(&bucket).expect("a folder");
    let bucket =
        format!("--objstore.config={{type: FILESYSTEM, config: {{directory: '{}'}}}}", bucket.display());
    let data = format!("--data-dir={}", dir.join(format!("{name}-data")).display());
    Role::start(dir, name, &[flags, &[&bucket, &data]].concat())
}

/// The line of a log that contains `text`.
fn line(process: &Process, text: &str) -> Result<String, String> {
    let output = process.output();
    let line = output.lines().find(|line| line.contains(text) && line.ends_with(|c: char| !c.is_control()));
    line.map(str::to_owned).ok_or(output)
}

/// The address of a field of a line, on loopback.
fn address(line: &str, field: &str) -> Result<SocketAddr, String> {
    let value = line.split(' ').find_map(|word| word.strip_prefix(field));
    let bound: SocketAddr = value.and_then(|value| value.parse().ok()).ok_or_else(|| line.to_owned())?;
    Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, bound.port())))
}

fn run(dir: &Path, args: &[&str]) {
    let output = Command::new(isthmus()).args(args).current_dir(dir).output().expect("isthmus runs");
    assert!(output.status.success(), "isthmus {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The gateways of both sides. The observability gateway has a plain port, whose address is returned, too.
fn gateways(dir: &Path) -> (Role, Role, SocketAddr) {
    std::fs::write(dir.join("passphrase"), "only a test\n").expect("a file");
    let init = ["pki", "init", "--trust-domain=test.isthmus", "--state=pki", "--root-out=roots"];
    run(dir, &[&init[..], &["--root-passphrase-file=passphrase"]].concat());
    let yaml = "role: observability\ndata_dir: obs\npki: {state: pki}\nlisten: 127.0.0.1:0\n\
                targets: [{name: scraper-0.eu-1, listen: '0.0.0.0:0'}]\n";
    let config = dir.join("obs.yaml");
    std::fs::write(&config, yaml).expect("a file");
    let config = format!("--config={}", config.display());
    let observability = Role::start(dir, "observability", &["gateway", &config]);
    let started = line(&observability.process, "the observability gateway has started").expect("a line");
    let mesh = address(&started, "mesh=").expect("an address").to_string();
    let token = ["pki", "token", "create", "--state=pki", "--cluster=eu-1", "--environment=test"];
    run(dir, &[&token[..], &["--address", &mesh, "--out=token"]].concat());
    let (token, data) = (dir.join("token"), dir.join("eu-1"));
    let (token, data) =
        (format!("--join-file={}", token.display()), format!("--data-dir={}", data.display()));
    let cluster = Role::start(dir, "cluster", &["gateway", &token, &data]);
    let plain = line(&observability.process, "a plain port accepts connections").expect("a line");
    let plain = address(&plain, "address=").expect("an address");
    (observability, cluster, plain)
}

/// The head of an answer to a request that a web page of another origin sends.
fn from_other_origin(at: SocketAddr, method: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(at).expect("a connection");
    let request = format!(
        "{method} {path} HTTP/1.0\r\nHost: {at}\r\nOrigin: http://evil.example\r\n\
         Access-Control-Request-Method: GET\r\nContent-Length: 0\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).expect("the request is sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer.split("\r\n\r\n").next().unwrap_or_default().to_ascii_lowercase()
}

async fn connect(at: SocketAddr) -> Channel {
    Endpoint::from_shared(format!("http://{at}")).expect("an address").connect().await.expect("a connection")
}

/// The services that reflection lists; `None` without reflection.
async fn reflected(at: SocketAddr) -> Option<Vec<String>> {
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut client = ServerReflectionClient::new(connect(at).await);
    let mut answers = match client.server_reflection_info(stream::iter([request])).await {
        Ok(answers) => answers.into_inner(),
        Err(status) if status.code() == Code::Unimplemented => return None,
        Err(status) => panic!("{at}: {status}"),
    };
    let answer = answers.message().await.expect("an answer").and_then(|answer| answer.message_response);
    match answer {
        Some(MessageResponse::ListServicesResponse(list)) => {
            Some(list.service.into_iter().map(|service| service.name).collect())
        }
        other => panic!("{at}: {other:?}"),
    }
}

/// The services of the workspace that a port serves, found by calling each of them.
async fn served(at: SocketAddr) -> Vec<String> {
    let mut served = Vec::new();
    for (service, method) in METHODS {
        let mut client = tonic::client::Grpc::new(connect(at).await);
        client.ready().await.expect("a connection");
        let path = format!("/{service}/{method}").parse().expect("a path");
        // Only the status in the head of the answer counts, so any message will do.
        let codec = ProstCodec::<ServerReflectionRequest, ServerReflectionResponse>::default();
        let request = tonic::Request::new(ServerReflectionRequest::default());
        match client.server_streaming(request, path, codec).await {
            Err(status) if matches!(status.code(), Code::Unimplemented | Code::NotFound) => {}
            _ => served.push(service.to_owned()),
        }
    }
    served
}

fn assert_warned(role: &Role, at: SocketAddr, content: &str) {
    let port = format!("0.0.0.0:{}", at.port());
    let output = role.process.output();
    let warned = output
        .lines()
        .any(|line| line.contains("level=warn") && line.contains(&port) && line.contains(content));
    assert!(warned, "no warning names {port} and {content:?}:\n{output}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_shows_only_what_its_role_serves() {
    let dir = tempfile::tempdir().expect("a folder");
    let sidecar = Role::start(dir.path(), "sidecar", &["sidecar", "--prometheus.url=http://127.0.0.1:1"]);
    let querier = Role::start(dir.path(), "querier", &["query"]);
    let (store, compactor) = (store(dir.path()), compactor(dir.path()));
    let (observability, cluster, plain) = gateways(dir.path());

    for (role, http, grpc) in [
        (&sidecar, "metrics", "samples of this Prometheus"),
        (&store, "list of blocks", "samples of the buckets"),
        (&compactor, "progress of compaction", "health"),
        (&querier, "queries over all stores", "samples of all stores"),
        (&observability, "metrics", "samples of all clusters"),
        (&cluster, "metrics", "health"),
    ] {
        assert_warned(role, role.http, http);
        assert_warned(role, role.grpc, grpc);
    }
    assert_warned(&observability, plain, "samples of scraper-0.eu-1");

    let stores = ["thanos.Exemplars", "thanos.Metadata", "thanos.Rules", "thanos.Status", "thanos.Store"];
    let stores = [&stores[..], &["thanos.Targets", "thanos.info.Info"]].concat();
    let of_querier = [&stores[..], &["thanos.Query"]].concat();
    for (name, at, expected) in [
        ("sidecar", sidecar.grpc, Some(stores)),
        ("store", store.grpc, Some(vec!["thanos.Store", "thanos.info.Info"])),
        ("compactor", compactor.grpc, None),
        ("querier", querier.grpc, Some(of_querier)),
        ("observability", observability.grpc, Some(vec!["isthmus.mesh.v1.Directory"])),
        ("cluster", cluster.grpc, None),
        ("plain port", plain, None),
    ] {
        let of_all = ["grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection"];
        let listed = reflected(at).await;
        let mut expected = expected.map(|services| [&services[..], &of_all].concat());
        expected.iter_mut().for_each(|services| services.sort_unstable());
        let mut sorted = listed.clone();
        sorted.iter_mut().for_each(|services| services.sort_unstable());
        assert_eq!(
            sorted.as_deref(),
            expected.map(|e| e.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>()).as_deref(),
            "{name}"
        );
        for service in served(at).await {
            let is_listed = listed.as_ref().is_none_or(|listed| listed.contains(&service));
            assert!(is_listed, "{name} serves {service}, and reflection does not list it");
        }
        if let Some(listed) = listed {
            let served = served(at).await;
            let ours = listed.iter().filter(|service| !service.starts_with("grpc."));
            let missing: Vec<_> = ours.filter(|service| !served.contains(service)).collect();
            assert!(missing.is_empty(), "{name} lists {missing:?} and does not serve them");
        }
    }
}

#[test]
fn only_the_api_of_the_querier_has_cors() {
    let dir = tempfile::tempdir().expect("a folder");
    let sidecar = Role::start(dir.path(), "sidecar", &["sidecar", "--prometheus.url=http://127.0.0.1:1"]);
    let querier = Role::start(dir.path(), "querier", &["query"]);
    let (store, compactor) = (store(dir.path()), compactor(dir.path()));
    let without = Role::start(dir.path(), "without", &["query", "--web.disable-cors"]);
    let (observability, cluster, _) = gateways(dir.path());
    let check = |role: &Role, method: &str, path: &str, expected: bool| {
        let head = from_other_origin(role.http, method, path);
        assert_eq!(head.contains("access-control-"), expected, "{method} {path}: {head}");
    };
    for method in ["GET", "OPTIONS"] {
        check(&querier, method, "/api/v1/stores", true);
        check(&without, method, "/api/v1/stores", false);
        for role in [&sidecar, &querier, &observability, &cluster] {
            for path in ["/", "/metrics", "/-/ready", "/-/healthy", "/-/reload", "/none"] {
                check(role, method, path, false);
            }
        }
        for role in [&sidecar, &observability, &cluster] {
            check(role, method, "/api/v1/stores", false);
        }
        for path in ["/metrics", "/api/v1/blocks"] {
            check(&store, method, path, false);
        }
        for path in ["/metrics", "/api/v1/compactor/progress", "/api/v1/compactor/history"] {
            check(&compactor, method, path, false);
        }
    }
    // A page of another origin may send this request without asking first.
    let head = from_other_origin(sidecar.http, "POST", "/-/reload");
    assert!(head.starts_with("http/1.0 403"), "{head}");
}
