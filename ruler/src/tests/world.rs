//! Starts rulers and asks them.

use clap::Parser;
use runtime::Startup;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::RuleArgs;
use crate::component::{ROLE, build};

#[derive(Parser)]
struct RuleCommand {
    #[command(flatten)]
    args: RuleArgs,
}

/// A ruler with the rules in `rules.yaml` and the data folder `data` of a folder.
pub(super) async fn try_start(dir: &Path, flags: &[&str]) -> Result<RunningRole, String> {
    let mut args = vec!["rule".to_owned(), "--http-address=127.0.0.1:0".to_owned()];
    if !flags.iter().any(|flag| flag.starts_with("--grpc-address=")) {
        args.push("--grpc-address=127.0.0.1:0".to_owned());
    }
    args.push(format!("--rule-file={}", dir.join("rules.yaml").display()));
    args.push(format!("--data-dir={}", dir.join("data").display()));
    args.extend(flags.iter().map(|flag| (*flag).to_owned()));
    let args = RuleCommand::try_parse_from(args).map_err(|error| error.to_string())?.args;
    let common = args.common.clone();
    let config = args.check().map_err(|mistakes| mistakes.to_string())?;
    let startup = Startup::bind(ROLE, &common).await.unwrap();
    build(config, startup).await.map_err(|error| format!("{} {error}", error.exit_code()))
}

pub(super) async fn start(dir: &Path, flags: &[&str]) -> RunningRole {
    let role = try_start(dir, flags).await.unwrap();
    until("the ruler is ready", async || get(role.http_address(), "/-/ready").await.0 == 200).await;
    role
}

pub(super) async fn stop(role: RunningRole) {
    role.shutdown().trigger();
    role.wait().await;
}

pub(super) fn write_rules(dir: &Path, text: &str) {
    std::fs::write(dir.join("rules.yaml"), text).unwrap();
}

pub(super) async fn until(what: &str, mut is_done: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is_done().await {
        assert!(Instant::now() < deadline, "waited 60 s until {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(super) async fn ask(to: SocketAddr, method: &str, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(to).await.unwrap();
    let request = format!("{method} {path} HTTP/1.0\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

pub(super) async fn get(to: SocketAddr, path: &str) -> (u16, String) {
    ask(to, "GET", path).await
}

pub(super) async fn data(to: SocketAddr, path: &str) -> Value {
    let (status, body) = get(to, path).await;
    assert_eq!(status, 200, "{path}: {body}");
    serde_json::from_str::<Value>(&body).unwrap()["data"].take()
}

/// The value of a metric, which has its labels in its name.
pub(super) async fn metric(to: SocketAddr, name: &str) -> Option<f64> {
    let (_, text) = get(to, "/metrics").await;
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

pub(super) fn escaped(query: &str) -> String {
    url::form_urlencoded::byte_serialize(query.as_bytes()).collect()
}

/// The answer of the ruler itself to a query, as series and values.
pub(super) async fn stored(to: SocketAddr, query: &str) -> Vec<(String, String)> {
    let found = data(to, &format!("/api/v1/query?query={}", escaped(query))).await;
    let value = |sample: &Value| {
        let labels: Vec<String> = sample["metric"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(name, value)| format!("{name}={}", value.as_str().unwrap()))
            .collect();
        (labels.join(","), sample["value"][1].as_str().unwrap().to_owned())
    };
    found["result"].as_array().unwrap().iter().map(value).collect()
}

/// The rules of a ruler by their names.
pub(super) async fn rule(to: SocketAddr, name: &str) -> Value {
    let groups = data(to, "/api/v1/rules").await;
    let groups = groups["groups"].as_array().unwrap();
    let mut rules = groups.iter().flat_map(|group| group["rules"].as_array().unwrap());
    rules.find(|rule| rule["name"] == name).cloned().unwrap_or(Value::Null)
}

pub(super) async fn until_health(to: SocketAddr, name: &str, health: &str) -> Value {
    let mut last = Value::Null;
    until(&format!("rule {name} is {health}"), async || {
        last = rule(to, name).await;
        last["health"] == health
    })
    .await;
    last
}
