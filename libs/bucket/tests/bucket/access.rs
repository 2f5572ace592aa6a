//! Headers of access rights: which requests to S3 have them, and whether they are signed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use bucket::{BucketConfig, BucketMetrics, publish};

use crate::support::{check_blocks_are_whole, options, write_block};

/// A small S3 that records its requests.
#[derive(Clone, Default)]
struct RecordingStore(Arc<Mutex<Records>>);

#[derive(Default)]
struct Records {
    objects: BTreeMap<String, Vec<u8>>,
    parts: BTreeMap<String, BTreeMap<u32, Vec<u8>>>,
    /// What each request does, and its headers.
    requests: Vec<(&'static str, HeaderMap)>,
}

async fn answer(State(store): State<RecordingStore>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 32 << 20).await.unwrap();
    let mut state = store.0.lock().unwrap();
    let state = &mut *state;
    let name = head.uri.path().strip_prefix("/blocks").unwrap().trim_start_matches('/').to_owned();
    let query = head.uri.query().unwrap_or("").to_owned();
    let parameter = |name: &str| query.split('&').find_map(|p| p.strip_prefix(name)?.strip_prefix('='));
    let etag = [("etag", "\"1\"")];
    let (what, answer) = match (&head.method, parameter("partNumber"), name.as_str()) {
        (_, _, "") => ("list", list(state, &parameter("prefix").unwrap_or("").replace("%2F", "/"))),
        (&Method::POST, _, _) if query.contains("uploads") => {
            let xml = "<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>";
            ("create in parts", xml.into_response())
        }
        (&Method::PUT, Some(number), _) => {
            state.parts.entry(name).or_default().insert(number.parse().unwrap(), body.to_vec());
            ("part", etag.into_response())
        }
        (&Method::POST, _, _) => {
            let whole = state.parts.remove(&name).unwrap().into_values().flatten().collect();
            state.objects.insert(name, whole);
            let xml = "<CompleteMultipartUploadResult><ETag>1</ETag></CompleteMultipartUploadResult>";
            ("complete", xml.into_response())
        }
        (&Method::PUT, _, _) => {
            state.objects.insert(name, body.to_vec());
            ("create", etag.into_response())
        }
        (&Method::DELETE, _, _) => {
            state.objects.remove(&name);
            ("delete", StatusCode::NO_CONTENT.into_response())
        }
        _ => match state.objects.get(&name) {
            Some(content) => {
                let described = [("etag", "\"1\""), ("last-modified", "Wed, 01 Jan 2025 00:00:00 GMT")];
                ("get", (described, content.clone()).into_response())
            }
            None => ("get", StatusCode::NOT_FOUND.into_response()),
        },
    };
    state.requests.push((what, head.headers));
    answer
}

fn list(state: &Records, prefix: &str) -> Response {
    let objects = state.objects.iter().filter(|(name, _)| name.starts_with(prefix));
    let entry = |(name, content): (&String, &Vec<u8>)| {
        format!(
            "<Contents><Key>{name}</Key><Size>{}</Size><LastModified>2025-01-01T00:00:00Z</LastModified><ETag>1</ETag></Contents>",
            content.len()
        )
    };
    let entries: String = objects.map(entry).collect();
    let xml = format!("<ListBucketResult>{entries}<IsTruncated>false</IsTruncated></ListBucketResult>");
    ([("content-type", "application/xml")], xml).into_response()
}

#[tokio::test]
async fn access_rights_are_signed_and_sent_with_the_requests_that_create_objects() {
    let store = RecordingStore::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let routes = Router::new().fallback(answer).with_state(store.clone());
    tokio::spawn(async move { axum::serve(listener, routes).await });
    let yaml = format!(
        "type: S3\nconfig:\n  bucket: blocks\n  endpoint: {address}\n  insecure: true\n  region: r\n  access_key: a\n  \
         secret_key: s\n  part_size: 5242880\n  put_user_metadata:\n    X-Amz-Acl: bucket-owner-full-control\n    \
         x-amz-grant-read: id=7\n    team: a\n"
    );
    let bucket = BucketConfig::parse(&yaml).unwrap().open(&BucketMetrics::default()).unwrap();
    let local = tempfile::tempdir().unwrap();
    // The first segment is sent in two parts.
    let meta = write_block(local.path(), 1, 6 << 20);
    publish(&bucket, local.path(), meta, &options()).await.unwrap();
    assert_eq!(check_blocks_are_whole(&bucket).await, 1);
    bucket.delete("some/object").await.unwrap();

    let state = store.0.lock().unwrap();
    let mut seen: BTreeMap<&str, u32> = BTreeMap::new();
    for (what, headers) in &state.requests {
        *seen.entry(what).or_default() += 1;
        let creates = what.starts_with("create");
        let signed = headers.get("authorization").unwrap().to_str().unwrap();
        for (name, value) in [("x-amz-acl", "bucket-owner-full-control"), ("x-amz-grant-read", "id=7")] {
            assert_eq!(
                headers.get(name).map(|value| value.to_str().unwrap()),
                creates.then_some(value),
                "{what}"
            );
            assert_eq!(signed.contains(name), creates, "{what}: {signed}");
        }
        assert_eq!(headers.contains_key("x-amz-meta-team"), creates, "{what}");
    }
    for what in ["create", "create in parts", "part", "complete", "get", "list", "delete"] {
        assert!(seen.get(what).is_some_and(|count| *count > 0), "{what}: {seen:?}");
    }
}
