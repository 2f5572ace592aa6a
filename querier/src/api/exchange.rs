//! HTTP requests and responses: parameters, JSON bodies, headers.

use std::convert::Infallible;

use axum::body::Body;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::stream;
use http::{HeaderValue, Method, StatusCode, header};
use promapi::{ApiError, Envelope, ErrorType, Params};

/// Maximum size of a form body, as in Prometheus.
const FORM_BYTES: usize = 10 << 20;

/// A successful answer.
pub(super) struct ApiReply {
    pub(super) body: Vec<Bytes>,
    /// Whether the answer is partial; caches must not keep such an answer.
    pub(super) partial: bool,
}

impl ApiReply {
    /// Creates an answer of serializable data, with the warnings of stores.
    pub(super) fn of(data: &impl serde::Serialize, warnings: &[String]) -> Result<Self, ApiError> {
        let body = Envelope::of(data, warnings, &[]).map_err(|error| {
            ApiError::new(ErrorType::Internal, format!("answer cannot be serialized: {error}"))
        })?;
        Ok(Self { body: vec![body.into()], partial: !warnings.is_empty() })
    }
}

/// The parameters of a request, from its URL and its form body.
pub(super) async fn params(request: Request) -> Result<Params, ApiError> {
    let (head, body) = request.into_parts();
    let query = runtime::query_string(&head.uri, &head.extensions);
    let kind = head.headers.get(header::CONTENT_TYPE).filter(|_| head.method == Method::POST);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or("");
    let media_type = kind.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    let form = async || {
        let too_large = format!("form body is larger than {FORM_BYTES} bytes or incomplete");
        let read = axum::body::to_bytes(body, FORM_BYTES).await;
        read.map_err(|_| ApiError::new(ErrorType::BadData, too_large))
    };
    Ok(match media_type.as_str() {
        "application/x-www-form-urlencoded" => Params::parse(query, Some(&form().await?))?,
        "multipart/form-data" => Params::parse_multipart(query, kind, &form().await?)?,
        _ => Params::parse(query, None)?,
    })
}

/// Creates the HTTP response.
pub(super) fn respond(outcome: Result<ApiReply, ApiError>) -> Response {
    let (status, body, keep) = match outcome {
        Ok(reply) => (StatusCode::OK, reply.body, !reply.partial),
        Err(error) => (error.kind.status(), vec![error.body().into()], false),
    };
    let length: usize = body.iter().map(Bytes::len).sum();
    let mut response =
        Response::new(Body::from_stream(stream::iter(body.into_iter().map(Ok::<_, Infallible>))));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    if !keep {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    response
}

/// The response for an unknown path.
pub(super) async fn not_found(request: Request) -> Response {
    let path = request.uri().path();
    respond(Err(ApiError::new(ErrorType::NotFound, format!("{path}: unknown API endpoint"))))
}

/// Answers `OPTIONS` requests and allows pages of other origins to read answers, as Thanos does.
pub(super) async fn cors(enabled: bool, request: Request, next: Next) -> Response {
    let mut response = match *request.method() {
        Method::OPTIONS => StatusCode::NO_CONTENT.into_response(),
        _ => next.run(request).await,
    };
    if enabled {
        for (name, value) in [
            (
                header::ACCESS_CONTROL_ALLOW_HEADERS,
                "Accept, Accept-Encoding, Authorization, Content-Type, Origin",
            ),
            (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST, OPTIONS"),
            (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
            (header::ACCESS_CONTROL_EXPOSE_HEADERS, "Date"),
        ] {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
    }
    response
}
