//! The HTTP server of a role, and the routes that every role has: metrics, probes, reload.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, Extension, State};
use axum::middleware::from_fn_with_state;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use http::uri::PathAndQuery;
use http::{HeaderMap, Request, StatusCode, Uri, header};
use hyper::body::Incoming;
use tower::ServiceExt;
use tower_http::compression::CompressionLayer;

use crate::address::ListenAddress;
use crate::descriptors::connections_of_server;
use crate::http_service::HttpService;
use crate::metrics::ClosedRegistry;
use crate::probes::Probes;
use crate::refused_connections::RefusedByServer;
use crate::reload::Reload;
use crate::security::HttpSecurity;
use crate::serve::{BindError, FIRST_BYTE, Listener, ServeOptions, server_builder};
use crate::shutdown::Shutdown;
use crate::web_config::{KnownUser, WebGuard};

/// Most bytes of all headers of a request over HTTP/2. The path alone is limited to 64 KiB there.
const MAX_HEADER_BYTES: u32 = 1 << 20;

/// A bound HTTP port. It serves a router over HTTP/1.1 and HTTP/2, with TLS and passwords where `--http.config` says so, and
/// compresses answers with gzip for clients that accept it.
#[derive(Debug)]
pub(crate) struct HttpServer {
    listener: Listener,
    security: HttpSecurity,
    refused: RefusedByServer,
}

impl HttpServer {
    /// Binds an address.
    ///
    /// # Errors
    /// The address cannot be bound; the error names it.
    pub(crate) async fn bind(
        address: &ListenAddress,
        security: HttpSecurity,
        refused: RefusedByServer,
    ) -> Result<Self, BindError> {
        Ok(Self { listener: Listener::bind(address).await?, security, refused })
    }

    /// The bound address, with the port that the system chose for port 0.
    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.listener.local_addr()
    }

    /// Serves until `shutdown`, then lets open requests finish for at most `grace`.
    pub(crate) async fn serve(self, routes: Router, grace: Duration, shutdown: Shutdown) {
        let HttpSecurity { tls, guard } = self.security;
        let routes = match guard {
            Some(guard) => routes.layer(from_fn_with_state(guard, WebGuard::apply)),
            None => routes,
        };
        let routes = routes.layer(CompressionLayer::new());
        // A layer of the router would see the path after the route was chosen.
        let routes = ServiceExt::<Request<Incoming>>::map_request(routes, with_clean_path);
        let options = ServeOptions {
            grace,
            max_age: None,
            tls,
            long_lines: true,
            max_connections: connections_of_server(),
            first_byte: FIRST_BYTE,
            refused: self.refused,
        };
        let mut server = server_builder();
        // Over HTTP/2, a request line is a header.
        server.http2().max_header_list_size(MAX_HEADER_BYTES);
        self.listener.serve(server, HttpService::new(routes), options, shutdown).await;
    }
}

/// Removes repeated slashes, and those at the end of the path. Clients append paths to configured URLs that end in a slash.
fn with_clean_path(mut request: Request<Incoming>) -> Request<Incoming> {
    let uri = request.uri();
    let clean = clean_path(uri.path());
    if clean != uri.path() {
        let query = uri.query().map_or(String::new(), |query| format!("?{query}"));
        let mut parts = uri.clone().into_parts();
        // The text consists of parts of a valid URL, so it is one.
        parts.path_and_query = PathAndQuery::try_from(format!("{clean}{query}")).ok();
        if let Ok(uri) = Uri::from_parts(parts) {
            *request.uri_mut() = uri;
        }
    }
    request
}

fn clean_path(path: &str) -> Cow<'_, str> {
    let has_extra = path.contains("//") || (path.len() > 1 && path.ends_with('/'));
    if !has_extra || !path.starts_with('/') {
        return Cow::Borrowed(path);
    }
    let mut clean = String::with_capacity(path.len());
    for segment in path.split('/').filter(|segment| !segment.is_empty()) {
        clean.push('/');
        clean.push_str(segment);
    }
    Cow::Owned(if clean.is_empty() { "/".to_owned() } else { clean })
}

/// The routes that every role has.
///
/// * `GET /metrics`: text format 0.0.4, or OpenMetrics 1.0 for clients that ask for it;
/// * `GET /-/healthy`, `GET /-/ready`: 200, or 503 with the reason;
/// * `POST|PUT /-/reload`: 200, or 500 with the names and causes of the failed reloads; 403 for clients on other hosts, and
///   for web pages of other origins, that gave no password.
pub(crate) fn admin_routes(metrics: ClosedRegistry, probes: Probes, reload: Reload) -> Router {
    let probe_routes =
        Router::new().route("/-/healthy", get(healthy)).route("/-/ready", get(ready)).with_state(probes);
    Router::new()
        .route("/metrics", get(show_metrics).with_state(metrics))
        .merge(reload_route("", reload))
        .merge(probe_routes)
}

/// `POST|PUT /-/reload` below a path.
pub(crate) fn reload_route(prefix: &str, reload: Reload) -> Router {
    let handler = post(run_reload).put(run_reload).with_state(reload);
    Router::new().route(&format!("{prefix}/-/reload"), handler)
}

async fn show_metrics(State(metrics): State<ClosedRegistry>, headers: HeaderMap) -> impl IntoResponse {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or("");
    let (content_type, text) = metrics.encode(accept);
    ([(header::CONTENT_TYPE, content_type)], text)
}

async fn healthy(State(probes): State<Probes>) -> impl IntoResponse {
    match probes.health().unhealthy {
        None => (StatusCode::OK, "OK\n".to_owned()),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("unhealthy: {reason}\n")),
    }
}

async fn ready(State(probes): State<Probes>) -> impl IntoResponse {
    match probes.health().not_ready {
        None => (StatusCode::OK, "OK\n".to_owned()),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n")),
    }
}

async fn run_reload(
    State(reload): State<Reload>,
    user: Option<Extension<KnownUser>>,
    ConnectInfo(client): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
) -> (StatusCode, String) {
    if user.is_none() && is_from_other_origin(&headers) {
        let text = "reload: the request comes from a web page of another origin, which may not reload; send SIGHUP\n";
        return (StatusCode::FORBIDDEN, text.to_owned());
    }
    if user.is_none() && !client.ip().to_canonical().is_loopback() {
        let text = format!(
            "reload: {} has no password, expected a client on this host; send SIGHUP, or set basic_auth_users in --http.config\n",
            client.ip()
        );
        return (StatusCode::FORBIDDEN, text);
    }
    // It runs in a task of its own, so that a client that hangs up does not leave the reload half done.
    let outcome = tokio::spawn(async move { reload.run().await }).await;
    match outcome {
        Ok(Ok(())) => (StatusCode::OK, String::new()),
        Ok(Err(error)) => (StatusCode::INTERNAL_SERVER_ERROR, format!("reload failed: {error}\n")),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("reload failed: {error}\n")),
    }
}

/// Whether a browser sent the request for a page of another origin. A browser on this host has a loopback address, whatever page
/// it shows.
fn is_from_other_origin(headers: &HeaderMap) -> bool {
    let text = |name: &header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    headers.contains_key(header::ORIGIN)
        && text(&header::ORIGIN).and_then(|origin| origin.split_once("://")).map(|(_, host)| host)
            != text(&header::HOST)
}

#[cfg(test)]
mod tests {
    use axum::Extension;
    use axum::body::Body;
    use axum::extract::connect_info::MockConnectInfo;
    use http::Request;
    use tower::ServiceExt;

    use super::{admin_routes, clean_path};
    use crate::metrics::ClosedRegistry;
    use crate::probes::Probes;
    use crate::reload::Reload;
    use crate::web_config::KnownUser;

    #[tokio::test]
    async fn only_this_host_and_known_users_may_reload() {
        let check = async |client: &str, is_known: bool, expected: u16| {
            let client: std::net::SocketAddr = client.parse().expect("an address");
            let registry = prometheus_client::registry::Registry::default();
            let routes = admin_routes(ClosedRegistry::new(registry), Probes::new(), Reload::new());
            let mut routes = routes.layer(MockConnectInfo(client));
            if is_known {
                routes = routes.layer(Extension(KnownUser));
            }
            let request = Request::post("/-/reload").body(Body::empty()).expect("a request");
            let answer = routes.oneshot(request).await.expect("an answer");
            assert_eq!(answer.status(), expected, "{client} {is_known}");
        };
        check("127.0.0.1:1", false, 200).await;
        check("[::ffff:127.0.0.1]:1", false, 200).await;
        check("[::1]:1", false, 200).await;
        check("192.0.2.1:1", false, 403).await;
        check("192.0.2.1:1", true, 200).await;
    }

    #[test]
    fn a_page_of_another_origin_is_recognised() {
        let check = |origin: Option<&'static str>, expected: bool| {
            let mut headers = http::HeaderMap::new();
            headers.insert("host", http::HeaderValue::from_static("127.0.0.1:10902"));
            origin.map(|origin| headers.insert("origin", http::HeaderValue::from_static(origin)));
            assert_eq!(super::is_from_other_origin(&headers), expected, "{origin:?}");
        };
        check(None, false);
        check(Some("http://127.0.0.1:10902"), false);
        check(Some("http://127.0.0.1:9090"), true);
        check(Some("http://evil.example"), true);
        check(Some("null"), true);
    }

    #[test]
    fn repeated_and_final_slashes_are_removed() {
        for (path, expected) in [
            ("/", "/"),
            ("//", "/"),
            ("*", "*"),
            ("/api/v1/query", "/api/v1/query"),
            ("//api///v1/query/", "/api/v1/query"),
            ("/a%2F%2Fb/", "/a%2F%2Fb"),
        ] {
            assert_eq!(clean_path(path), expected);
        }
    }
}
