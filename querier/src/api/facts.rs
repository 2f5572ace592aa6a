//! What the API reports about the program that it is a part of.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::{HeaderValue, StatusCode, header};
use promapi::{ApiError, ErrorType};

use crate::api::Api;
use crate::api::exchange::respond;

/// Seconds after which a client should repeat a request that was refused at the start.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

/// What the API reports about its program.
pub trait ApiFacts: Send + Sync + 'static {
    /// The effective settings by flag.
    fn flags(&self) -> BTreeMap<String, String>;

    /// Why no request can be answered now; `None` if requests can be answered.
    fn unready(&self) -> Option<String> {
        None
    }

    /// The configuration file in use; empty without one.
    fn configuration(&self) -> String {
        String::new()
    }

    /// Whether the last reload succeeded, and when the configuration in use was read; `None` for the start of the program.
    fn last_reload(&self) -> (bool, Option<SystemTime>) {
        (true, None)
    }

    /// How long and how much is stored, such as `15d or 10GB`; empty if nothing is.
    fn retention(&self) -> String {
        String::new()
    }
}

/// Refuses requests while they cannot be answered, as Prometheus does while it reads its log.
pub(super) async fn when_ready(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    match api.facts.unready() {
        Some(reason) => {
            let mut refused = respond(Err(ApiError::new(ErrorType::Unavailable, reason)));
            *refused.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            refused.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER);
            refused
        }
        None => next.run(request).await,
    }
}
