//! What a server answers with.

use std::convert::Infallible;

use axum::body::Body;
use http::{Request, Response};
use hyper::body::Incoming;
use tower::util::BoxCloneSyncService;

/// What a server answers with. Boxed, so that hyper's server is compiled once and not for each kind of service.
pub(crate) type HttpService = BoxCloneSyncService<Request<Incoming>, Response<Body>, Infallible>;
