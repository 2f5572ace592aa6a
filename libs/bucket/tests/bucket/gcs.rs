//! A mock of the part of GCS' XML API that this crate uses: objects with generations, ranges, paged listings by prefix and
//! delimiter, and uploads in parts.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::any;

/// The only bucket.
pub(crate) const BUCKET: &str = "blocks";

#[derive(Default)]
struct BucketContent {
    /// Names in one page of a listing.
    page: usize,
    objects: BTreeMap<String, Object>,
    uploads: BTreeMap<String, BTreeMap<u32, Bytes>>,
    generation: u64,
}

#[derive(Clone)]
struct Object {
    bytes: Bytes,
    generation: u64,
}

type Shared = Arc<Mutex<BucketContent>>;
type Parameters = Query<BTreeMap<String, String>>;

/// Starts the mock on a free port, with listings in pages of `page` names. It stops with the runtime.
pub(crate) async fn start(page: usize) -> SocketAddr {
    let content = Shared::new(Mutex::new(BucketContent { page, ..BucketContent::default() }));
    let routes = Router::new()
        .route("/{bucket}", any(bucket))
        .route("/{bucket}/{*name}", any(object))
        .layer(DefaultBodyLimit::disable())
        .with_state(content);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(async move { axum::serve(listener, routes).await });
    address
}

fn error(status: StatusCode, code: &str) -> Response {
    (status, format!("<?xml version='1.0'?><Error><Code>{code}</Code></Error>")).into_response()
}

fn xml(body: String) -> Response {
    format!("<?xml version='1.0' encoding='UTF-8'?>{body}").into_response()
}

/// The answer to a request for another bucket.
fn refused(bucket: &str) -> Option<Response> {
    (bucket != BUCKET).then(|| error(StatusCode::NOT_FOUND, "NoSuchBucket"))
}

async fn bucket(
    method: Method,
    Path(bucket): Path<String>,
    Query(parameters): Parameters,
    State(content): State<Shared>,
) -> Response {
    if let Some(refused) = refused(&bucket) {
        return refused;
    }
    if method != Method::GET {
        return error(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed");
    }
    let parameter = |name: &str| parameters.get(name).map_or("", String::as_str);
    let (prefix, delimiter) = (parameter("prefix"), parameter("delimiter"));
    let after = parameter("continuation-token").max(parameter("start-after"));

    // Entries, by the name after which the next page begins.
    let mut entries: Vec<(String, String)> = Vec::new();
    let content = content.lock().expect("no request panicked");
    for (name, object) in content.objects.iter().filter(|(name, _)| name.starts_with(prefix)) {
        let rest = &name[prefix.len()..];
        let folder = (!delimiter.is_empty()).then(|| rest.find(delimiter)).flatten();
        let (last, entry) = match folder {
            Some(at) => {
                let folder = format!("{prefix}{}", &rest[..at + delimiter.len()]);
                let entry = format!("<CommonPrefixes><Prefix>{folder}</Prefix></CommonPrefixes>");
                (format!("{folder}\u{10ffff}"), entry)
            }
            None => {
                let entry = format!(
                    "<Contents><Key>{name}</Key><Size>{}</Size><ETag>\"{}\"</ETag>\
                     <LastModified>2026-01-02T03:04:05.678Z</LastModified></Contents>",
                    object.bytes.len(),
                    object.generation
                );
                (name.clone(), entry)
            }
        };
        if last.as_str() > after && entries.last().is_none_or(|(previous, _)| *previous != last) {
            entries.push((last, entry));
        }
    }
    let mut body = String::from("<ListBucketResult>");
    for (_, entry) in entries.iter().take(content.page) {
        body.push_str(entry);
    }
    if entries.len() > content.page {
        write!(body, "<NextContinuationToken>{}</NextContinuationToken>", entries[content.page - 1].0)
            .expect("a text takes all");
    }
    body.push_str("</ListBucketResult>");
    xml(body)
}

async fn object(
    method: Method,
    Path((bucket, name)): Path<(String, String)>,
    Query(parameters): Parameters,
    State(content): State<Shared>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if let Some(refused) = refused(&bucket) {
        return refused;
    }
    let mut content = content.lock().expect("no request panicked");
    let upload = parameters.get("uploadId").cloned();
    match (method, upload) {
        (Method::PUT, Some(upload)) => {
            let part = parameters.get("partNumber").and_then(|part| part.parse().ok()).unwrap_or(0);
            match content.uploads.get_mut(&upload) {
                Some(parts) => {
                    parts.insert(part, body);
                    [("etag", format!("\"part-{part}\""))].into_response()
                }
                None => error(StatusCode::NOT_FOUND, "NoSuchUpload"),
            }
        }
        (Method::POST, None) if parameters.contains_key("uploads") => {
            content.generation += 1;
            let upload = format!("upload-{}", content.generation);
            content.uploads.insert(upload.clone(), BTreeMap::new());
            xml(format!(
                "<InitiateMultipartUploadResult><UploadId>{upload}</UploadId></InitiateMultipartUploadResult>"
            ))
        }
        (Method::POST, Some(upload)) => match content.uploads.remove(&upload) {
            Some(parts) => {
                let whole: Vec<u8> = parts.into_values().flatten().collect();
                let generation = put(&mut content, &name, whole.into());
                let body = format!(
                    "<CompleteMultipartUploadResult><ETag>\"{generation}\"</ETag></CompleteMultipartUploadResult>"
                );
                ([("x-goog-generation", generation.to_string())], xml(body)).into_response()
            }
            None => error(StatusCode::NOT_FOUND, "NoSuchUpload"),
        },
        (Method::DELETE, Some(upload)) => {
            content.uploads.remove(&upload);
            StatusCode::NO_CONTENT.into_response()
        }
        (Method::PUT, None) => {
            let found = content.objects.get(&name).map_or(0, |object| object.generation);
            let wanted =
                headers.get("x-goog-if-generation-match").map(|value| value.to_str().unwrap_or_default());
            if wanted.is_some_and(|wanted| wanted != found.to_string()) {
                return error(StatusCode::PRECONDITION_FAILED, "PreconditionFailed");
            }
            let generation = put(&mut content, &name, body).to_string();
            [("etag", format!("\"{generation}\"")), ("x-goog-generation", generation)].into_response()
        }
        (Method::DELETE, None) => match content.objects.remove(&name) {
            Some(_) => StatusCode::NO_CONTENT.into_response(),
            None => error(StatusCode::NOT_FOUND, "NoSuchKey"),
        },
        (Method::GET | Method::HEAD, None) => match content.objects.get(&name) {
            Some(object) => get(object, &headers),
            None => error(StatusCode::NOT_FOUND, "NoSuchKey"),
        },
        _ => error(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed"),
    }
}

fn put(content: &mut BucketContent, name: &str, bytes: Bytes) -> u64 {
    content.generation += 1;
    let generation = content.generation;
    content.objects.insert(name.to_owned(), Object { bytes, generation });
    generation
}

fn get(object: &Object, headers: &HeaderMap) -> Response {
    let size = object.bytes.len();
    let common = [
        ("etag", format!("\"{}\"", object.generation)),
        ("x-goog-generation", object.generation.to_string()),
        ("last-modified", "Fri, 02 Jan 2026 03:04:05 GMT".to_owned()),
    ];
    let range = headers.get("range").and_then(|range| range.to_str().ok()?.strip_prefix("bytes="));
    let Some((start, end)) = range.and_then(|range| range.split_once('-')) else {
        return (common, object.bytes.clone()).into_response();
    };
    let start: usize = start.parse().unwrap_or(0);
    let end = end.parse().map_or(size, |end: usize| (end + 1).min(size));
    if start >= end {
        return error(StatusCode::RANGE_NOT_SATISFIABLE, "InvalidRange");
    }
    let content_range = [("content-range", format!("bytes {start}-{}/{size}", end - 1))];
    (StatusCode::PARTIAL_CONTENT, common, content_range, object.bytes.slice(start..end)).into_response()
}
