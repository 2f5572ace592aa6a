//! Stores that answer in ways that S3 does not: HTML instead of objects, listings that cannot be continued, names that no
//! object of ours has, and no support for conditional writes.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{Html, IntoResponse, Response};
use bucket::marks::{self, MarkKind, MarkState};
use bucket::{Bucket, BucketConfig, BucketMetrics, ErrorKind, FetchMetrics, FetchOptions, Fetcher, publish};
use bytes::Bytes;
use model::Timestamp;

use crate::support::{QUICK, block_id, options, write_block};

/// How the store differs from S3.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Quirk {
    #[default]
    None,
    /// Each answer is an HTML page with status 200.
    OnlyHtml,
    /// Objects that do not exist are an HTML page with status 200.
    HtmlForAbsent,
    /// Listings announce more pages without a token.
    NoToken,
    /// Listings contain names that cannot be used.
    OddNames,
    /// Conditional writes are answered with this status.
    Refuses(u16),
    /// The next conditional writes are answered with 409, although the object does not exist.
    Concurrent(u32),
}

#[derive(Default)]
struct StoreState {
    quirk: Quirk,
    objects: BTreeMap<String, Bytes>,
}

#[derive(Clone, Default)]
struct QuirkyStore(Arc<Mutex<StoreState>>);

const PAGE: Html<&str> = Html("<!DOCTYPE html><html><body>Please log in</body></html>");

async fn answer(State(store): State<QuirkyStore>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let mut state = store.0.lock().unwrap();
    if state.quirk == Quirk::OnlyHtml {
        return PAGE.into_response();
    }
    let name = head.uri.path().strip_prefix("/blocks").unwrap().trim_start_matches('/').to_owned();
    if name.is_empty() {
        return list(&state, head.uri.query().unwrap_or(""));
    }
    match head.method {
        Method::PUT => put(&mut state, name, &head.headers, body),
        Method::DELETE => {
            state.objects.remove(&name);
            StatusCode::NO_CONTENT.into_response()
        }
        _ => match state.objects.get(&name) {
            Some(content) => get(content, &head.headers),
            None if state.quirk == Quirk::HtmlForAbsent => PAGE.into_response(),
            None => StatusCode::NOT_FOUND.into_response(),
        },
    }
}

fn get(content: &Bytes, headers: &HeaderMap) -> Response {
    let described = [("etag", "\"1\""), ("last-modified", TIME)];
    let range =
        headers.get("range").and_then(|range| range.to_str().ok()?.strip_prefix("bytes=")?.split_once('-'));
    let Some((first, last)) = range else { return (described, content.clone()).into_response() };
    let first: usize = first.parse().unwrap();
    let end = last.parse().map_or(content.len(), |last: usize| (last + 1).min(content.len()));
    let place = format!("bytes {first}-{}/{}", end - 1, content.len());
    let part = content.slice(first..end);
    (StatusCode::PARTIAL_CONTENT, described, [("content-range", place)], part).into_response()
}

const TIME: &str = "Wed, 01 Jan 2025 00:00:00 GMT";

fn put(state: &mut StoreState, name: String, headers: &HeaderMap, body: Bytes) -> Response {
    if headers.contains_key("if-none-match") {
        match state.quirk {
            Quirk::Refuses(status) => return StatusCode::from_u16(status).unwrap().into_response(),
            Quirk::Concurrent(left) if left > 0 => {
                state.quirk = Quirk::Concurrent(left - 1);
                return StatusCode::CONFLICT.into_response();
            }
            _ if state.objects.contains_key(&name) => return StatusCode::PRECONDITION_FAILED.into_response(),
            _ => {}
        }
    }
    state.objects.insert(name, body);
    [("etag", "\"1\"")].into_response()
}

fn list(state: &StoreState, query: &str) -> Response {
    let parameter = |name: &str| query.split('&').find_map(|p| p.strip_prefix(name)).unwrap_or("");
    let prefix = parameter("prefix=").replace("%2F", "/");
    let is_flat = parameter("delimiter=").is_empty();
    let mut xml = "<?xml version=\"1.0\"?><ListBucketResult>".to_owned();
    let mut folders = std::collections::BTreeSet::new();
    for (name, content) in state.objects.iter().filter(|(name, _)| name.starts_with(&prefix)) {
        match name[prefix.len()..].split_once('/') {
            Some((folder, _)) if !is_flat => drop(folders.insert(format!("{prefix}{folder}/"))),
            _ => entry(&mut xml, name, content.len()),
        }
    }
    if state.quirk == Quirk::OddNames {
        ["a/../b", "bell&#7;", "a//b"].iter().for_each(|name| entry(&mut xml, name, 1));
        folders.insert("../".to_owned());
    }
    for folder in folders {
        let _ = write!(xml, "<CommonPrefixes><Prefix>{folder}</Prefix></CommonPrefixes>");
    }
    let _ = write!(xml, "<IsTruncated>{}</IsTruncated></ListBucketResult>", state.quirk == Quirk::NoToken);
    ([("content-type", "application/xml")], xml).into_response()
}

fn entry(xml: &mut String, name: &str, size: usize) {
    let _ = write!(
        xml,
        "<Contents><Key>{name}</Key><Size>{size}</Size><LastModified>2025-01-01T00:00:00Z</LastModified><ETag>1</ETag></Contents>"
    );
}

/// A bucket in a store that is changed with `set`.
struct QuirkyWorld {
    store: QuirkyStore,
    address: SocketAddr,
    bucket: Bucket,
}

impl QuirkyWorld {
    async fn new() -> Self {
        let store = QuirkyStore::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let routes = Router::new().fallback(answer).with_state(store.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        let yaml = format!(
            "type: S3\nconfig:\n  bucket: blocks\n  endpoint: {address}\n  insecure: true\n  region: r\n  access_key: a\n  secret_key: s\n"
        );
        let bucket = BucketConfig::parse(&yaml).unwrap().open(&BucketMetrics::default()).unwrap();
        Self { store, address, bucket }
    }

    fn set(&self, quirk: Quirk) {
        self.store.0.lock().unwrap().quirk = quirk;
    }
}

#[tokio::test]
async fn an_html_page_is_neither_an_object_nor_a_mark_nor_an_empty_bucket() {
    let world = QuirkyWorld::new().await;
    let check = |error: bucket::BucketError| {
        let words = format!("{} answered with an HTML page", world.address);
        assert!(error.to_string().contains(&words), "{error}");
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    };
    world.set(Quirk::OnlyHtml);
    check(world.bucket.list_dir("").await.unwrap_err());
    check(world.bucket.list_all("a").await.unwrap_err());
    check(world.bucket.get("meta.json").await.unwrap_err());
    check(world.bucket.head("meta.json").await.unwrap_err());
    check(world.bucket.exists("meta.json").await.unwrap_err());
    check(world.bucket.get_range("index", 0..4).await.unwrap_err());
    check(marks::load(&world.bucket, block_id(1), MarkKind::Deletion).await.unwrap_err());
    check(world.bucket.probe(true).await.unwrap_err());
    let options = FetchOptions { retry: QUICK, ..FetchOptions::default() };
    let fetcher = Fetcher::new(world.bucket.clone(), options, FetchMetrics::default()).unwrap();
    let error = fetcher.fetch(Timestamp::from_millis(0)).await.unwrap_err().to_string();
    assert!(error.contains("answered with an HTML page"), "{error}");
}

#[tokio::test]
async fn a_block_is_published_only_where_the_store_says_that_it_has_no_mark() {
    let world = QuirkyWorld::new().await;
    let local = tempfile::tempdir().unwrap();
    let meta = write_block(local.path(), 1, 1000);
    let dir = local.path();
    world.set(Quirk::HtmlForAbsent);
    let error = publish(&world.bucket, dir, meta.clone(), &options()).await.unwrap_err().to_string();
    assert!(error.contains("answered with an HTML page"), "{error}");
    world.set(Quirk::None);
    world
        .bucket
        .put(&format!("{}/deletion-mark.json", block_id(1)), Bytes::from_static(b"<html>"))
        .await
        .unwrap();
    let state = marks::load(&world.bucket, block_id(1), MarkKind::Deletion).await.unwrap();
    assert!(matches!(state, MarkState::Unusable(_)), "{state:?}");
    publish(&world.bucket, dir, meta, &options()).await.unwrap();
}

#[tokio::test]
async fn a_listing_that_cannot_be_continued_is_an_error() {
    let world = QuirkyWorld::new().await;
    world.bucket.put("a", Bytes::new()).await.unwrap();
    world.set(Quirk::NoToken);
    let error = world.bucket.list_dir("").await.unwrap_err().to_string();
    assert!(error.contains("has no NextContinuationToken"), "{error}");
    world.set(Quirk::None);
    assert_eq!(world.bucket.list_dir("").await.unwrap().objects.len(), 1);
}

#[tokio::test]
async fn names_that_no_block_has_are_skipped() {
    let world = QuirkyWorld::new().await;
    world.bucket.put("a/b", Bytes::new()).await.unwrap();
    world.bucket.put("c", Bytes::new()).await.unwrap();
    world.set(Quirk::OddNames);
    let listing = world.bucket.list_dir("").await.unwrap();
    assert_eq!(listing.dirs, ["a"]);
    assert_eq!(listing.objects.iter().map(|object| object.name.as_str()).collect::<Vec<_>>(), ["c"]);
    let all = world.bucket.list_all("").await.unwrap();
    assert_eq!(all.iter().map(|object| object.name.as_str()).collect::<Vec<_>>(), ["a/b", "c"]);
}

#[tokio::test]
async fn a_store_without_conditional_writes_is_looked_at_before_each_write() {
    for status in [400, 501] {
        let world = QuirkyWorld::new().await;
        world.set(Quirk::Refuses(status));
        assert_eq!(world.bucket.probe(true).await.unwrap().honours_conditions, Some(false), "{status}");
        world.bucket.put_if_absent("once", Bytes::from_static(b"mine")).await.unwrap();
        let again = world.bucket.put_if_absent("once", Bytes::from_static(b"yours")).await.unwrap_err();
        assert_eq!(again.kind(), ErrorKind::Conflict, "{again}");
        assert_eq!(world.bucket.get("once").await.unwrap(), "mine");

        let local = tempfile::tempdir().unwrap();
        let meta = write_block(local.path(), 2, 1000);
        publish(&world.bucket, local.path(), meta, &options()).await.unwrap();
    }
}

#[tokio::test]
async fn a_conflict_with_a_write_that_is_running_is_retried() {
    let world = QuirkyWorld::new().await;
    world.set(Quirk::Concurrent(3));
    world.bucket.put_if_absent("once", Bytes::from_static(b"mine")).await.unwrap();
    assert_eq!(world.bucket.get("once").await.unwrap(), "mine");
    world.set(Quirk::Concurrent(1));
    let again = world.bucket.put_if_absent("once", Bytes::new()).await.unwrap_err();
    assert_eq!(again.kind(), ErrorKind::Conflict, "{again}");
    world.set(Quirk::Concurrent(1000));
    let error = world.bucket.put_if_absent("other", Bytes::new()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
}

#[tokio::test]
async fn odd_names_in_a_local_directory_are_skipped() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["bell\u{7}", "line\nbreak", "back\\slash", "%41", "blocks/bell\u{7}", "blocks/index"] {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, name).unwrap();
    }
    let yaml = format!("type: FILESYSTEM\nconfig:\n  directory: {}\n", dir.path().display());
    let bucket = BucketConfig::parse(&yaml).unwrap().open(&BucketMetrics::default()).unwrap();
    let listing = bucket.list_dir("").await.unwrap();
    assert_eq!(listing.dirs, ["blocks"]);
    let names: Vec<&str> = listing.objects.iter().map(|object| object.name.as_str()).collect();
    assert_eq!(names, ["%41", "back\\slash"]);
    let inside = bucket.list_all("blocks").await.unwrap();
    assert!(inside.iter().any(|object| object.name == "blocks/index"), "{inside:?}");
}
