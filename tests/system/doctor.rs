//! `isthmus doctor`: what it finds on a machine that is right, and what it says about each thing that is not.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;
use tests::{ControlGroup, Mesh, Process, Prometheus, free_port, isthmus, wait_for};

use crate::world::sidecar;

const PATIENCE: Duration = Duration::from_secs(30);

/// What the doctor has found: severity, check and text of each line.
#[derive(Debug)]
struct Findings {
    code: Option<i32>,
    lines: Vec<(String, String, String)>,
}

impl Findings {
    fn of(output: &Output) -> Self {
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let object: Value = serde_json::from_str(&text)
            .unwrap_or_else(|error| panic!("{error}: {text}{}", String::from_utf8_lossy(&output.stderr)));
        let line = |finding: &Value| {
            let field = |name: &str| finding[name].as_str().expect("text").to_owned();
            (field("severity"), field("check"), field("text"))
        };
        let lines: Vec<_> = object["findings"].as_array().expect("a list").iter().map(line).collect();
        let worst =
            lines.iter().map(|(severity, _, _)| severity.as_str()).max_by_key(|severity| rank(severity));
        assert_eq!(object["worst"].as_str(), worst);
        let code = output.status.code();
        assert_eq!(code, Some(rank(worst.unwrap_or("ok"))), "{lines:?}");
        Self { code, lines }
    }

    /// Checks that a line of a check has this severity and this text.
    fn has(&self, severity: &str, check: &str, text: &str) {
        let found = self.lines.iter().any(|(s, c, t)| s == severity && c == check && t.contains(text));
        assert!(found, "{severity} {check} {text:?}: {:#?}", self.lines);
    }
}

/// The exit code of a severity.
fn rank(severity: &str) -> i32 {
    match severity {
        "ok" => 0,
        "warning" => 10,
        _ => 11,
    }
}

fn doctor(role: &[String]) -> Findings {
    let output =
        Command::new(isthmus()).args(["doctor", "--json"]).args(role).output().expect("isthmus runs");
    Findings::of(&output)
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(ToString::to_string).collect()
}

#[test]
fn a_gateway_is_examined_before_it_starts_and_while_it_runs() {
    if !Prometheus::is_installed("the examination of a gateway") {
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    let mut mesh = Mesh::start(&dir.path().join("mesh"), "auto", &[]);
    let token = mesh.token("eu-1", "eu-1.token");
    // A Prometheus with the labels of another cluster.
    let labels = [("cluster", "us-1"), ("environment", "testing"), ("replica", "0")];
    let prometheus = Prometheus::start(&dir.path().join("prometheus"), &labels);
    let sidecar = sidecar(&dir.path().join("prometheus"), &prometheus);
    let (http, grpc) = (free_port(), free_port());
    let gateway = [
        "gateway".to_owned(),
        format!("--join-file={}", token.display()),
        format!("--data-dir={}", dir.path().join("data").display()),
        format!("--target=scraper-0={}", sidecar.grpc),
        format!("--http-address={http}"),
        format!("--grpc-address={grpc}"),
    ];

    println!("before: the other side is reached, and the token not used");
    let found = doctor(&gateway);
    found.has("ok", "ports", "is free");
    found.has("ok", "UDP", "answers");
    found.has("ok", "TCP", "accepts connections");
    found.has("ok", "path MTU", "datagrams of 1472 bytes arrive");
    found.has(
        "ok",
        "issuer",
        "spiffe://test.isthmus/cluster/observability/gateway, under a root that the token pins",
    );
    found.has("ok", "certificates", "none yet; token ");
    found.has("ok", "stores", &sidecar.grpc.to_string());
    found.has("ok", "other side", "no gateway runs");
    let mut running = Process::start(&isthmus(), &gateway, &dir.path().join("gateway.log"));
    running.wait_ready("the gateway", http);

    println!("while it runs: the ports are its own, and the other side does not read the store");
    wait_for("the refusal of the store", PATIENCE, || {
        let found = doctor(&gateway);
        let refused = |(severity, check, text): &(String, String, String)| {
            severity == "critical"
                && check == "other side"
                && text.contains("store scraper-0")
                && text.contains("us-1")
        };
        match found.lines.iter().any(refused) {
            true => Ok(()),
            false => Err(format!("{:?} {:#?}", found.code, found.lines)),
        }
    });
    let found = doctor(&gateway);
    found.has("ok", "ports", "is used by the role that runs");
    found.has("ok", "other side", "1 connections");
    found.has("ok", "certificates", "spiffe://test.isthmus/cluster/eu-1/gateway, valid until ");

    found.has("ok", "clock", "agrees with the one of spiffe://test.isthmus/cluster/observability/gateway");

    println!("people get a table");
    let output = Command::new(isthmus()).arg("doctor").args(&gateway).output().expect("isthmus runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.starts_with("SEVERITY  CHECK") && text.contains("critical  other side"), "{text}");

    println!("without the other side: each attempt to connect says why");
    mesh.observability.kill();
    let not_connected = format!("this gateway is not connected: {} tcp: ", mesh.address);
    wait_for("the loss of the connection", PATIENCE, || {
        let found = doctor(&gateway);
        let is_named = found.lines.iter().any(|(severity, check, text)| {
            severity == "critical" && check == "other side" && text.starts_with(&not_connected)
        });
        if is_named { Ok(()) } else { Err(format!("{:#?}", found.lines)) }
    });

    println!("after its end: the token is that of another issuer, and no process listens");
    assert_eq!(running.terminate(), Some(0));
    let mut other = gateway.to_vec();
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    other[1] = format!("--join-file={}", dir.path().join("absent").display());
    other.extend(words(&["--listen", &http.to_string()]));
    let found = doctor(&[words(&["--connect", &silent.to_string()]), other].concat());
    found.has("critical", "TCP", "refused");
    found.has("critical", "UDP", "no answer");
}

#[test]
fn a_command_line_with_mistakes_is_examined_as_far_as_possible() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("gateway.yaml");
    fs::write(&file, "role: cluster\ndata_dir: data\n").expect("a file");
    let found = doctor(&[words(&["gateway"]), vec![format!("--config={}", file.display())]].concat());
    found.has("critical", "configuration", "targets: is missing");
    found.has("ok", "memory", "MiB may be used");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address");
    let found =
        doctor(&words(&["query", &format!("--http-address={address}"), "--endpoint=no-such-host.invalid:1"]));
    found.has("critical", "ports", "Address already in use");
    found.has("critical", "DNS", "no-such-host.invalid: ");
    println!("flags that the role does not know are refused as the role does");
    let output =
        Command::new(isthmus()).args(["doctor", "query", "--nonsense"]).output().expect("isthmus runs");
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}

#[test]
fn the_queriers_and_alertmanagers_of_a_ruler_are_asked() {
    let dir = tempfile::tempdir().expect("a folder");
    let http = free_port();
    let args =
        words(&["query", &format!("--http-address={http}"), &format!("--grpc-address={}", free_port())]);
    let mut querier = Process::start(&isthmus(), &args, &dir.path().join("log"));
    querier.wait_ready("querier", http);
    let found = doctor(&words(&[
        "rule",
        &format!("--query=http://{http}"),
        &format!("--alertmanagers.url=http://someone:secret@{http}/alertmanager"),
        "--alertmanagers.url=dnssrv+http://_am._tcp.no-such-service.invalid",
        "--http-address=127.0.0.1:0",
        "--grpc-address=127.0.0.1:0",
    ]));
    found.has("ok", "queriers", &format!("http://{http}: is ready"));
    found.has("warning", "Alertmanagers", &format!("http://{http}/alertmanager: answers 404"));
    found.has("critical", "DNS", "dnssrv+_am._tcp.no-such-service.invalid: ");
    assert!(!format!("{found:?}").contains("secret"), "{found:?}");
}

#[test]
fn limits_of_the_process_are_found() {
    let script = "ulimit -n 200; exec \"$0\" doctor --json";
    let output = Command::new("sh").args(["-c", script]).arg(isthmus()).output().expect("sh runs");
    Findings::of(&output).has("critical", "descriptors", "200 are permitted");
    let dir = tempfile::tempdir().expect("a folder");
    let Some(group) = ControlGroup::create(100 << 20, "the memory limit that the doctor finds") else {
        return;
    };
    let log = dir.path().join("log");
    let mut process = group.start(&isthmus(), &words(&["doctor", "--json"]), &log);
    wait_for("the end of the doctor", PATIENCE, || {
        if process.is_running() { Err("it runs") } else { Ok(()) }.map_err(str::to_owned)
    });
    let said = process.output();
    assert!(said.contains("100 MiB may be used, expected at least 256 MiB"), "{said}");
}

#[test]
fn the_clock_of_a_prometheus_is_compared() {
    if !Prometheus::is_installed("the clock that the doctor compares") {
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    let prometheus = Prometheus::start(dir.path(), &[]);
    let url = format!("--prometheus.url=http://{}", prometheus.address);
    let found =
        doctor(&words(&["sidecar", &url, "--http-address=127.0.0.1:0", "--grpc-address=127.0.0.1:0"]));
    found.has("ok", "clock", "agrees with the one of http://");
    found.has("ok", "stores", "accepts connections");
}

/// An S3 server, moto, with a user who may list and read, and nothing else.
struct Moto {
    process: Process,
    address: SocketAddr,
    key: String,
    secret: String,
}

impl Moto {
    fn start(dir: &Path) -> Option<Self> {
        let cache = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache"));
        let folder = std::env::var_os("ISTHMUS_EMULATORS").map(PathBuf::from);
        let xdg = || {
            Some(std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(cache)?.join("isthmus-tests"))
        };
        let program = folder.or_else(xdg)?.join("moto/bin/moto_server");
        if !program.is_file() {
            println!("skipped: rights on a bucket (moto is not installed at {})", program.display());
            return None;
        }
        let address = free_port();
        // The four requests below need no rights, all others do.
        let script = "INITIAL_NO_AUTH_ACTION_COUNT=4 exec \"$0\" -H 127.0.0.1 -p \"$1\"".to_owned();
        let args = ["-c".to_owned(), script, program.display().to_string(), address.port().to_string()];
        let process = Process::start(Path::new("sh"), &args, &dir.join("moto.log"));
        let mut moto = Self { process, address, key: String::new(), secret: String::new() };
        wait_for("moto", PATIENCE, || {
            TcpStream::connect(address).map(drop).map_err(|error| error.to_string())
        });
        moto.send("s3", "PUT /blocks", "");
        moto.send("iam", "POST /", "Action=CreateUser&UserName=u&Version=2010-05-08");
        let policy = "%7B%22Version%22%3A%222012-10-17%22%2C%22Statement%22%3A%5B%7B%22Effect%22%3A%22Allow%22%2C%22Action%22%3A%5B%22s3%3AListBucket%22%2C%22s3%3AGetObject%22%5D%2C%22Resource%22%3A%22%2A%22%7D%5D%7D";
        let put = format!(
            "Action=PutUserPolicy&UserName=u&PolicyName=p&PolicyDocument={policy}&Version=2010-05-08"
        );
        moto.send("iam", "POST /", &put);
        let key = moto.send("iam", "POST /", "Action=CreateAccessKey&UserName=u&Version=2010-05-08");
        let between = |tag: &str| {
            let (_, rest) = key.split_once(&format!("<{tag}>")).expect("a key");
            rest.split('<').next().expect("a value").to_owned()
        };
        (moto.key, moto.secret) = (between("AccessKeyId"), between("SecretAccessKey"));
        Some(moto)
    }

    fn send(&mut self, service: &str, request: &str, body: &str) -> String {
        let mut stream = TcpStream::connect(self.address).expect("moto");
        let length = body.len();
        write!(
            stream,
            "{request} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Type: application/x-www-form-urlencoded\r\n\
             Authorization: AWS4-HMAC-SHA256 Credential=key/20260101/us-east-1/{service}/aws4_request\r\n\
             Content-Length: {length}\r\n\r\n{body}",
            self.address
        )
        .expect("a request");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        assert!(answer.contains(" 200 OK"), "{answer} {}", self.process.output());
        answer
    }

    fn config(&self) -> String {
        format!(
            "type: S3\nconfig: {{bucket: blocks, endpoint: '{}', insecure: true, region: us-east-1, access_key: {}, secret_key: {}}}\n",
            self.address, self.key, self.secret
        )
    }
}

#[test]
fn each_right_on_a_bucket_is_tried() {
    let dir = tempfile::tempdir().expect("a folder");
    let folder = dir.path().join("bucket");
    fs::create_dir(&folder).expect("a folder");
    let config = |text: &str| {
        fs::write(dir.path().join("bucket.yaml"), text).expect("a file");
        format!("--objstore.config-file={}", dir.path().join("bucket.yaml").display())
    };
    let ports = ["--http-address=127.0.0.1:0", "--grpc-address=127.0.0.1:0"];
    let role = |name: &str, config: &str| doctor(&words(&[&[name, config][..], &ports].concat()));

    println!("a folder permits everything, and nothing is left in it");
    let all = config(&format!("type: FILESYSTEM\nconfig: {{directory: {}}}\n", folder.display()));
    let found = role("compact", &all);
    for verb in ["list", "put", "get", "attributes", "delete"] {
        found.has("ok", "bucket", &format!("{verb} is permitted"));
    }
    found.has("ok", "bucket", "conditional put is honoured");
    let left = Command::new("find").arg(&folder).args(["-type", "f"]).output().expect("find runs");
    assert!(left.stdout.is_empty(), "{}", String::from_utf8_lossy(&left.stdout));
    let found = role("store", &all);
    found.has("ok", "bucket", "get was not tried, because no object is listed");

    println!("a bucket that does not exist, and one that denies put");
    let missing = config("type: FILESYSTEM\nconfig: {directory: /no/such/folder}\n");
    assert_eq!(role("compact", &missing).code, Some(11));
    let Some(moto) = Moto::start(dir.path()) else { return };
    let denied = config(&moto.config());
    let found = role("compact", &denied);
    found.has("ok", "bucket", "blocks: list is permitted");
    found.has("critical", "bucket", "grant s3:PutObject");
    found.has("warning", "bucket", "were not tried, because put failed");
    let found = role("store", &denied);
    found.has("ok", "bucket", "blocks: list is permitted");
}
