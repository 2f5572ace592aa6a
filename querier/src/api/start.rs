//! The start page, and the paths at which it is served.

use std::sync::Arc;

use axum::Router;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, Request, State};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use http::{HeaderMap, StatusCode, header};
use serde::Deserialize;

use crate::config::{WebPath, WebPaths};

const PAGE: &str = include_str!("start.html");

/// What the start page says about its program.
#[derive(Clone, Copy, Debug)]
pub struct StartPage {
    /// The title.
    pub title: &'static str,
    /// What is queried, such as `all stores`.
    pub what: &'static str,
    /// The list that the page links to first, in HTML.
    pub list: &'static str,
}

/// The start page, at the root or below the route prefix. With a route prefix, the root redirects to it.
pub(super) fn routes(paths: WebPaths, page: StartPage) -> Router {
    let route = paths.route.clone();
    let page = get(start_page).with_state(Arc::new((paths, page)));
    // Links of alerts lead here: `/graph?g0.expr=EXPRESSION`.
    let routes = Router::new().route(&format!("{}/graph", route.as_str()), page.clone());
    if route.is_root() {
        return routes.route("/", page);
    }
    // Relative, so that it is right behind a proxy that removes or adds a path.
    let from_root = route.as_str()[1..].to_owned();
    routes.route(route.as_str(), page).route("/", get(redirect(from_root)))
}

fn redirect(to: String) -> impl Fn() -> std::future::Ready<Response> + Clone + Send + Sync + 'static {
    move || std::future::ready((StatusCode::FOUND, [(header::LOCATION, to.clone())]).into_response())
}

/// The parameter of Thanos' graph page.
#[derive(Deserialize)]
struct GraphParams {
    #[serde(rename = "g0.expr")]
    expr: Option<String>,
}

async fn start_page(
    State(state): State<Arc<(WebPaths, StartPage)>>,
    params: Result<Query<GraphParams>, QueryRejection>,
    request: Request,
) -> Html<String> {
    let (paths, start) = &*state;
    // The server removes the slash at the end of a path, so links relative to the page would miss its last part.
    let base = external(paths, request.headers()).unwrap_or_else(|| paths.route.clone());
    let base = match base.is_root() {
        true => String::new(),
        false => format!("<base href=\"{}/\">\n", base.as_str()),
    };
    let url = match paths.query_url.as_str() {
        "" => String::new(),
        url => format!("  <li><a href=\"{0}\">{0}</a></li>\n", escaped(url)),
    };
    let expr = params.ok().and_then(|Query(params)| params.expr).unwrap_or_else(|| "up".to_owned());
    let page =
        PAGE.replace("{title}", start.title).replace("{what}", start.what).replace("{list}", start.list);
    let page = page.replace("<!--base-->\n", &base).replace("<!--url-->\n", &url);
    // The root is as many folders above the page as the route prefix has parts.
    let page = page.replace("{root}", &"../".repeat(paths.route.depth()));
    Html(page.replace("{expr}", &escaped(&expr)))
}

/// The path at which a proxy shows the querier; a header that is not a path is ignored.
fn external(paths: &WebPaths, headers: &HeaderMap) -> Option<WebPath> {
    if !paths.external.is_root() {
        return Some(paths.external.clone());
    }
    let header = headers.get(paths.header.as_ref()?)?.to_str().ok()?;
    header.parse().ok().filter(|path: &WebPath| !path.is_root())
}

/// The text as the value of an attribute of HTML.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c => out.push(c),
        }
    }
    out
}
