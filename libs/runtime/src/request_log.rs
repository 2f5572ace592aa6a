//! `--request.logging-config`: a log line for requests, in the form of Thanos.
//!
//! The lines have the level of the outcome: `error` for failures, `debug` for all others. `level` in the configuration and
//! `--log.level` both decide which of them are written.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use axum::extract::{Request as HttpRequest, State};
use axum::middleware::Next;
use axum::response::Response as HttpResponse;
use futures::future::BoxFuture;
use http::{HeaderMap, Request, Response};
use tonic::body::Body;
use tonic::{Code, Status};
use tower::Service;

use crate::config::{config_origin, load_config};
use crate::metrics::{BodyObserver, ObservedBody};
use crate::role_error::ConfigMistakes;
use crate::yaml::{Mistake, Mistakes, YamlFields, YamlNode};

const FLAG: &str = "request.logging-config";

/// The flags of the request log.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct RequestLogArgs {
    /// Log requests: YAML in Thanos' form with `options`, `http` and `grpc`; lines of requests that did not fail need
    /// --log.level=debug
    #[arg(long = "request.logging-config", value_name = "YAML")]
    request_logging_config: Option<String>,

    /// Read the YAML of --request.logging-config from this file
    #[arg(long = "request.logging-config-file", value_name = "FILE")]
    request_logging_config_file: Option<PathBuf>,
}

/// When lines are written for a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct LogDecision {
    start: bool,
    end: bool,
    /// Whether lines of requests that did not fail are written.
    with_debug: bool,
}

/// Which requests of one protocol are logged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RequestLog {
    decision: LogDecision,
    /// `path:port` or `/service/method`; `None` for all.
    only: Option<BTreeSet<String>>,
}

/// Which requests are logged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RequestLogs {
    pub(crate) http: Option<Arc<RequestLog>>,
    pub(crate) grpc: Option<Arc<RequestLog>>,
}

impl RequestLogArgs {
    /// Reads the configuration.
    ///
    /// # Errors
    /// All mistakes, each with its line.
    pub(crate) fn load(&self) -> Result<RequestLogs, ConfigMistakes> {
        let file = self.request_logging_config_file.as_deref();
        let text = load_config(FLAG, self.request_logging_config.as_deref(), file);
        let text = text.map_err(|mistake| mistake.to_string())?.unwrap_or_default();
        if text.trim().is_empty() {
            return Ok(RequestLogs::default());
        }
        let origin = config_origin(FLAG, file);
        let said = |mistake: &Mistake| format!("{origin}: {mistake}");
        let node = YamlNode::parse(&text).map_err(|mistake| said(&mistake))?;
        let mistakes = Mistakes::default();
        let mut top = YamlFields::new("", &node, &mistakes);
        let general = top.node("options").map(|node| options("options", node, &mistakes)).unwrap_or_default();
        let http = protocol(&mut top, "http", general, &mistakes, |entry| {
            let path = entry.required("path", YamlNode::scalar)?;
            let port = entry.required("port", |node| node.integer(0, 65535))?;
            Some(format!("{path}:{port}"))
        });
        let grpc = protocol(&mut top, "grpc", general, &mistakes, |entry| {
            let service = entry.required("service", YamlNode::scalar)?;
            let method = entry.required("method", YamlNode::scalar)?;
            Some(format!("/{service}/{method}"))
        });
        top.finish();
        let mistakes = mistakes.into_sorted();
        match mistakes.is_empty() {
            true => Ok(RequestLogs { http, grpc }),
            false => Err(mistakes.iter().map(said).collect()),
        }
    }
}

/// The requests of one protocol; `None` if none is logged.
fn protocol(
    top: &mut YamlFields<'_>,
    name: &'static str,
    general: LogDecision,
    mistakes: &Mistakes,
    mut entry: impl FnMut(&mut YamlFields<'_>) -> Option<String>,
) -> Option<Arc<RequestLog>> {
    let (mut decision, mut only) = (general, None);
    if let Some(node) = top.node(name) {
        let mut fields = YamlFields::new(name, node, mistakes);
        if let Some(own) = fields.node("options") {
            decision = options(&fields.path_of("options"), own, mistakes);
        }
        let names: BTreeSet<String> = fields
            .list("config", |path, node| {
                let mut fields = YamlFields::new(path, node, mistakes);
                let name = entry(&mut fields);
                fields.finish();
                name
            })
            .into_iter()
            .collect();
        only = Some(names).filter(|names| !names.is_empty());
        fields.finish();
    }
    decision.end.then(|| Arc::new(RequestLog { decision, only }))
}

fn options(path: &str, node: &YamlNode, mistakes: &Mistakes) -> LogDecision {
    let mut fields = YamlFields::new(path, node, mistakes);
    let level = fields.optional("level", YamlNode::scalar).unwrap_or_default();
    let (mut start, mut end) = (false, false);
    if let Some(node) = fields.node("decision") {
        let mut decision = YamlFields::new(fields.path_of("decision"), node, mistakes);
        start = decision.optional("log_start", YamlNode::boolean).unwrap_or(false);
        end = decision.optional("log_end", YamlNode::boolean).unwrap_or(false);
        decision.finish();
    }
    if start && !end {
        fields.wrong("decision", "log_start needs log_end");
    }
    let is_known = ["DEBUG", "INFO", "WARNING", "ERROR"].contains(&level.as_str());
    if !is_known && (start || end || !level.is_empty()) {
        fields.wrong("level", format!("{level:?} is unknown, expected DEBUG, INFO, WARNING or ERROR"));
    }
    fields.finish();
    LogDecision { start, end, with_debug: level == "DEBUG" }
}

impl RequestLog {
    /// When lines are written for this request; `None` for never.
    fn decision(&self, name: &str) -> Option<LogDecision> {
        let is_logged = self.only.as_ref().is_none_or(|only| only.contains(name));
        is_logged.then_some(self.decision)
    }
}

/// Logs HTTP requests.
pub(crate) async fn log_http(
    State(log): State<Arc<RequestLog>>,
    request: HttpRequest,
    next: Next,
) -> HttpResponse {
    let facts = HttpFacts::of(&request);
    let Some(decision) = log.decision(&facts.name) else { return next.run(request).await };
    let HttpFacts { method, id, agent, remote, .. } = facts;
    if decision.start && decision.with_debug {
        tracing::debug!(
            protocol = "http",
            http.method = method,
            http.request_id = id,
            http.user_agent = agent,
            "started call"
        );
    }
    let began = Instant::now();
    let answer = next.run(request).await;
    let (status, time_ms) = (answer.status().as_u16(), began.elapsed().as_secs_f64() * 1000.0);
    if status >= 500 {
        tracing::error!(
            protocol = "http",
            http.method = method,
            http.request_id = id,
            http.user_agent = agent,
            http.status_code = status,
            http.time_ms = time_ms,
            http.remote_addr = remote,
            "finished call"
        );
    } else if decision.with_debug {
        tracing::debug!(
            protocol = "http",
            http.method = method,
            http.request_id = id,
            http.user_agent = agent,
            http.status_code = status,
            http.time_ms = time_ms,
            http.remote_addr = remote,
            "finished call"
        );
    }
    answer
}

/// What a line says about an HTTP request.
struct HttpFacts {
    /// `path:port`.
    name: String,
    method: String,
    id: String,
    agent: String,
    remote: String,
}

impl HttpFacts {
    fn of(request: &HttpRequest) -> Self {
        let text = |name: &str| {
            let value = request.headers().get(name).and_then(|value| value.to_str().ok());
            value.unwrap_or("").to_owned()
        };
        let host = text("host");
        let port = host.rsplit_once(':').map_or("", |(_, port)| port);
        Self {
            name: format!("{}:{port}", request.uri().path()),
            method: format!("{} {}", request.method(), request.uri()),
            id: text("x-request-id"),
            agent: text("user-agent"),
            remote: remote(request),
        }
    }
}

/// The client, as a proxy reports it or as it is connected.
fn remote(request: &HttpRequest) -> String {
    let forwarded = request.headers().get("x-forwarded-for").and_then(|value| value.to_str().ok());
    let connected = request.extensions().get::<axum::extract::ConnectInfo<std::net::SocketAddr>>();
    match forwarded {
        Some(forwarded) => forwarded.to_owned(),
        None => connected.map_or(String::new(), |info| info.0.to_string()),
    }
}

/// A gRPC service whose calls are logged.
#[derive(Clone, Debug)]
pub(crate) struct LoggedCalls<S> {
    inner: S,
    log: Option<Arc<RequestLog>>,
}

impl<S> LoggedCalls<S> {
    pub(crate) fn new(inner: S, log: Option<Arc<RequestLog>>) -> Self {
        Self { inner, log }
    }
}

impl<S, B> Service<Request<B>> for LoggedCalls<S>
where
    S: Service<Request<B>, Response = Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response<Body>, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let method = request.uri().path();
        let decision = self.log.as_ref().and_then(|log| log.decision(method));
        let call = decision.map(|decision| LoggedCall::begin(method.to_owned(), decision));
        let answer = self.inner.call(request);
        match call {
            None => Box::pin(answer),
            Some(mut call) => Box::pin(async move {
                let answer = answer.await?;
                call.trailers(answer.headers());
                Ok(answer.map(|body| Body::new(ObservedBody::new(body, call))))
            }),
        }
    }
}

/// A call until the end of its answer; logs it when dropped.
struct LoggedCall {
    method: String,
    with_debug: bool,
    began: Instant,
    /// `None` until it is known. A call that is dropped with `None` was cancelled.
    status: Option<Status>,
}

impl LoggedCall {
    fn begin(method: String, decision: LogDecision) -> Self {
        if decision.start && decision.with_debug {
            tracing::debug!(protocol = "grpc", grpc.method = method, "started call");
        }
        Self { method, with_debug: decision.with_debug, began: Instant::now(), status: None }
    }
}

impl BodyObserver for LoggedCall {
    fn data(&mut self, _: usize) {}

    fn trailers(&mut self, trailers: &HeaderMap) {
        self.status = Status::from_header_map(trailers).or(self.status.take());
    }

    fn end(&mut self) {}

    fn failed(&mut self) {
        self.status.get_or_insert_with(|| Status::unavailable("the answer ended early"));
    }
}

impl Drop for LoggedCall {
    fn drop(&mut self) {
        let status = self.status.take().unwrap_or_else(|| Status::cancelled("the caller has disconnected"));
        let time_ms = self.began.elapsed().as_secs_f64() * 1000.0;
        let (method, error) = (self.method.as_str(), status.message());
        // As in Thanos: codes that are the fault of the server.
        if matches!(status.code(), Code::Unknown | Code::Unimplemented | Code::Internal | Code::DataLoss) {
            tracing::error!(protocol = "grpc", grpc.method = method, grpc.code = ?status.code(), grpc.time_ms = time_ms, error, "finished call");
        } else if self.with_debug {
            tracing::debug!(protocol = "grpc", grpc.method = method, grpc.code = ?status.code(), grpc.time_ms = time_ms, error, "finished call");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<RequestLogs, ConfigMistakes> {
        let text = Some(text.to_owned());
        RequestLogArgs { request_logging_config: text, request_logging_config_file: None }.load()
    }

    #[test]
    fn configuration_of_thanos_is_read() {
        assert_eq!(load("").unwrap(), RequestLogs::default());
        let logs = load(
            "http:\n  config:\n    - path: /api/v1/query\n      port: 10904\n  options:\n    level: DEBUG\n    decision:\n      \
             log_start: true\n      log_end: true\ngrpc:\n  config:\n    - service: thanos.Store\n      method: Info\n  \
             options:\n    level: ERROR\n    decision:\n      log_start: false\n      log_end: true\n",
        )
        .unwrap();
        let (http, grpc) = (logs.http.unwrap(), logs.grpc.unwrap());
        let all = LogDecision { start: true, end: true, with_debug: true };
        assert_eq!(http.decision("/api/v1/query:10904"), Some(all));
        assert_eq!(http.decision("/api/v1/query:10902"), None);
        assert_eq!(
            grpc.decision("/thanos.Store/Info"),
            Some(LogDecision { end: true, ..LogDecision::default() })
        );
        let logs = load("options: {level: INFO, decision: {log_end: true}}\ngrpc: {}\n").unwrap();
        assert!(logs.http.unwrap().decision("/any:1").is_some() && logs.grpc.is_some());
        assert_eq!(load("options: {level: INFO}").unwrap(), RequestLogs::default());
    }

    #[test]
    fn mistakes_are_reported_with_their_lines() {
        let said = load(
            "options:\n  level: loud\n  decision: {log_start: true}\nhttp:\n  config:\n    - path: /x\nftp: {}\n",
        );
        let said = said.unwrap_err().to_string();
        for part in [
            "line 2: options.level: \"loud\" is unknown",
            "line 3: options.decision: log_start needs log_end",
            "http.config[0].port: is missing",
            "line 7: ftp: unknown field",
        ] {
            assert!(said.contains(part), "{part}: {said}");
        }
    }
}
