//! Accepts HTTP/1 request lines of up to 1 MiB, as Prometheus does.
//!
//! The type of URLs that hyper uses has a limit of 64 KiB, and dashboards send longer queries with GET. [`LongLines`] wraps a
//! connection. It removes the query string of a long request line before hyper reads the line, and the service of the
//! connection ([`with_long_lines`]) attaches it to the request again, where [`query_string`] finds it. A line of more than
//! 1 MiB is answered with status 414.
//!
//! Reading order: `scanner` decides without I/O, `connection` is the wrapper.

mod connection;
mod scanner;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Body;
use bytes::Bytes;
use http::{Extensions, HeaderValue, Request, Response, StatusCode, Uri, header};
use hyper::body::Incoming;
use tower::ServiceExt;

pub(crate) use connection::LongLines;

use crate::http_service::HttpService;

/// Longest request line, in bytes.
const MAX_LINE_BYTES: usize = 1 << 20;

/// The query string of a request line that was too long for a URL.
#[derive(Clone, Debug)]
struct LongQuery(Bytes);

/// The query string of a request, without the `?`. Handlers must use this and not [`Uri::query`], which lacks long ones.
///
/// `None` if there is none, or if it is not valid UTF-8.
pub fn query_string<'a>(uri: &'a Uri, extensions: &'a Extensions) -> Option<&'a str> {
    match extensions.get::<LongQuery>() {
        Some(LongQuery(query)) => std::str::from_utf8(query).ok(),
        None => uri.query(),
    }
}

/// What a request line had that hyper did not see.
#[derive(Debug, PartialEq, Eq)]
enum LineNote {
    Nothing,
    Query(Bytes),
    TooLong,
}

/// The notes of the requests of one connection that hyper has not passed to the service yet, in order. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct LineNotes(Arc<Mutex<VecDeque<LineNote>>>);

impl LineNotes {
    fn add(&self, note: LineNote) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push_back(note);
    }

    /// The note of the next request. Requests that the scanner did not see have none.
    fn take(&self) -> LineNote {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop_front().unwrap_or(LineNote::Nothing)
    }
}

/// The service of one connection whose request lines are noted in `notes`.
pub(crate) fn with_long_lines(service: HttpService, notes: LineNotes) -> HttpService {
    HttpService::new(tower::service_fn(move |mut request: Request<Incoming>| {
        let service = service.clone();
        let note = notes.take();
        async move {
            match note {
                LineNote::TooLong => return Ok(too_long()),
                LineNote::Query(query) => drop(request.extensions_mut().insert(LongQuery(query))),
                LineNote::Nothing => {}
            }
            service.oneshot(request).await
        }
    }))
}

/// The answer to a request line that is too long, in the format of the Prometheus API.
fn too_long() -> Response<Body> {
    let text = format!(
        "{{\"status\":\"error\",\"errorType\":\"bad_data\",\"error\":\"request line: longer than the limit of \
         {MAX_LINE_BYTES} bytes; send the parameters as a form with POST\"}}"
    );
    let mut answer = Response::new(Body::from(text));
    *answer.status_mut() = StatusCode::URI_TOO_LONG;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}
