//! One suite for every type of store: the behaviour that this crate and the components rely on.

use std::collections::BTreeSet;

use bucket::{
    Bucket, BucketConfig, BucketFile, BucketMetrics, DownloadOptions, ErrorKind, FetchMetrics, FetchOptions,
    Fetcher, PartialVerdict, delete_block, download, judge_partial, layout, publish, store_time,
};
use bytes::Bytes;
use futures::TryStreamExt;
use model::Timestamp;
use tsdb::ReadAt;

use crate::support::{QUICK, block_id, check_blocks_are_whole, noise, options, write_block};
use crate::{gcs, servers};

/// What a type of store does not support.
#[derive(Clone, Copy, Default)]
struct Limits {
    /// Conditional replacement of an object.
    no_update: bool,
    /// Real times in listings.
    fixed_times: bool,
}

fn open(yaml: &str) -> Bucket {
    let config = BucketConfig::parse(yaml).unwrap_or_else(|error| panic!("{error}"));
    config.open(&BucketMetrics::default()).unwrap()
}

/// The suite. A prefix is added to `yaml`, so that every type is tested with one.
async fn run(yaml: &str, limits: Limits) {
    let whole = open(yaml);
    let bucket = open(&format!("{yaml}\nprefix: /a/tenant/"));
    let probe = bucket.probe(true).await.unwrap();
    assert_eq!(probe.honours_conditions, Some(true));
    assert_eq!(bucket.probe(false).await.unwrap().honours_conditions, None);

    objects(&bucket, limits).await;
    listings(&whole, &bucket).await;
    large_objects(&bucket).await;
    blocks(&bucket, limits).await;
}

async fn objects(bucket: &Bucket, limits: Limits) {
    let absent = bucket.get("no/such").await.unwrap_err();
    assert_eq!(absent.kind(), ErrorKind::NotFound, "{absent}");
    assert_eq!(bucket.head("no/such").await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(bucket.get_range("no/such", 0..1).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert!(!bucket.exists("no/such").await.unwrap());
    bucket.delete("no/such").await.unwrap();

    bucket.put("o/plain", Bytes::from_static(b"first")).await.unwrap();
    bucket.put("o/plain", Bytes::from_static(b"0123456789")).await.unwrap();
    assert_eq!(bucket.get("o/plain").await.unwrap(), "0123456789");
    assert_eq!(bucket.head("o/plain").await.unwrap().size_bytes, 10);
    assert!(bucket.exists("o/plain").await.unwrap());
    bucket.put("o/empty", Bytes::new()).await.unwrap();
    assert_eq!(bucket.get("o/empty").await.unwrap(), "");

    assert_eq!(bucket.get_range("o/plain", 2..5).await.unwrap(), "234");
    assert_eq!(bucket.get_range("o/plain", 3..3).await.unwrap(), "");
    let ranges = bucket.get_ranges("o/plain", &[8..10, 0..1, 4..4, 0..4]).await.unwrap();
    assert_eq!(ranges, ["89", "0", "", "0123"]);
    for past_the_end in [5..11, 10..11, 20..30] {
        let error = bucket.get_range("o/plain", past_the_end.clone()).await.unwrap_err();
        assert!(
            matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Unavailable),
            "{past_the_end:?}: {error}"
        );
    }

    bucket.put_if_absent("o/once", Bytes::from_static(b"mine")).await.unwrap();
    let again = bucket.put_if_absent("o/once", Bytes::from_static(b"yours")).await.unwrap_err();
    assert_eq!(again.kind(), ErrorKind::Conflict, "{again}");
    assert_eq!(bucket.get("o/once").await.unwrap(), "mine");

    let (_, info) = bucket.get_versioned("o/once").await.unwrap();
    let updated = bucket.update("o/once", Bytes::from_static(b"second"), info.version.clone()).await;
    if limits.no_update {
        assert_eq!(updated.unwrap_err().kind(), ErrorKind::Unsupported);
    } else {
        updated.unwrap();
        let stale = bucket.update("o/once", Bytes::from_static(b"third"), info.version).await.unwrap_err();
        assert_eq!(stale.kind(), ErrorKind::Conflict, "{stale}");
        assert_eq!(bucket.get("o/once").await.unwrap(), "second");
    }
    for name in ["o/plain", "o/empty", "o/once"] {
        bucket.delete(name).await.unwrap();
        bucket.delete(name).await.unwrap();
        assert!(!bucket.exists(name).await.unwrap(), "{name}");
    }
}

async fn listings(whole: &Bucket, bucket: &Bucket) {
    assert_eq!(bucket.list_all("").await.unwrap(), []);
    assert_eq!(bucket.list_dir("none").await.unwrap(), bucket::FolderListing::default());
    let names = ["b", "l/1", "l/2", "l/3", "l/4/deep/er", "l/5", "lx/1", "m"];
    for name in names {
        bucket.put(name, Bytes::from_static(b"x")).await.unwrap();
    }
    let listed = |objects: Vec<bucket::ObjectInfo>| -> Vec<String> {
        objects.into_iter().map(|object| object.name).collect()
    };
    assert_eq!(listed(bucket.list_all("").await.unwrap()), names);
    let below: Vec<&str> = names.into_iter().filter(|name| name.starts_with("l/")).collect();
    assert_eq!(listed(bucket.list_all("l").await.unwrap()), below);
    let dir = bucket.list_dir("l").await.unwrap();
    assert_eq!(dir.dirs, ["l/4"]);
    assert_eq!(listed(dir.objects), ["l/1", "l/2", "l/3", "l/5"]);
    let top = bucket.list_dir("").await.unwrap();
    assert_eq!(
        (top.dirs, listed(top.objects)),
        (vec!["l".to_owned(), "lx".to_owned()], vec!["b".to_owned(), "m".to_owned()])
    );

    let outside: BTreeSet<String> = listed(whole.list_all("").await.unwrap()).into_iter().collect();
    assert!(names.iter().all(|name| outside.contains(&format!("a/tenant/{name}"))), "{outside:?}");
    for name in names {
        bucket.delete(name).await.unwrap();
    }
    assert_eq!(bucket.list_all("").await.unwrap(), []);
}

/// Objects that are larger than a part, which the store must assemble.
async fn large_objects(bucket: &Bucket) {
    let local = tempfile::tempdir().unwrap();
    let meta = write_block(local.path(), 77, 11 << 20);
    let bucket = bucket.with_part_bytes(5 << 20);
    publish(&bucket, local.path(), meta.clone(), &options()).await.unwrap();
    let name = layout::block_file(meta.ulid, "chunks/000001");
    let content = noise(77 * 3 + 1, 11 << 20);
    let (info, stream) = bucket.get_stream(&name).await.unwrap();
    let pieces: Vec<Bytes> = stream.try_collect().await.unwrap();
    assert!(info.size_bytes == 11 << 20 && pieces.concat() == content);

    let file = BucketFile::open(&bucket, &name).await.unwrap();
    let read = tokio::task::spawn_blocking(move || {
        assert_eq!(file.size_bytes(), 11 << 20);
        assert_eq!(
            file.read_at(file.size_bytes()..file.size_bytes() + 1).unwrap_err().kind(),
            std::io::ErrorKind::UnexpectedEof
        );
        file.read_many(&[5..9, (10 << 20)..(10 << 20) + 7, 100..200, 0..0]).unwrap()
    });
    let read = read.await.unwrap();
    assert_eq!(read, [&content[5..9], &content[10 << 20..(10 << 20) + 7], &content[100..200], &[]]);
    delete_block(&bucket, meta.ulid, QUICK).await.unwrap();
    assert_eq!(bucket.list_all(&meta.ulid.to_string()).await.unwrap(), []);
}

async fn blocks(bucket: &Bucket, limits: Limits) {
    let local = tempfile::tempdir().unwrap();
    let meta = write_block(local.path(), 1, 3_000);
    let published = publish(bucket, local.path(), meta.clone(), &options()).await.unwrap();
    assert_eq!((published.sent_bytes, published.total_bytes), (5_500, 5_500));
    let again = publish(bucket, local.path(), meta.clone(), &options()).await.unwrap();
    assert_eq!((again.sent_bytes, &again.meta), (0, &published.meta));

    let half = block_id(2);
    bucket.put(&layout::block_file(half, "index"), Bytes::from_static(b"x")).await.unwrap();
    for discovery in [bucket::Discovery::Concurrent, bucket::Discovery::Recursive] {
        let fetch = FetchOptions { discovery, ..FetchOptions::default() };
        let fetcher = Fetcher::new(bucket.clone(), fetch, FetchMetrics::default()).unwrap();
        for _ in 0..2 {
            let view = fetcher.fetch(Timestamp::from_millis(1_800_000_000_000)).await.unwrap();
            assert_eq!(view.blocks.keys().collect::<Vec<_>>(), [&meta.ulid], "{discovery:?}");
            assert_eq!(view.partial.iter().collect::<Vec<_>>(), [&half], "{discovery:?}");
        }
    }
    let now = store_time(bucket).await.unwrap();
    if !limits.fixed_times {
        let later = |hours: i64| now.offset_millis(hours * 3_600_000);
        let judged = judge_partial(bucket, half, later(47)).await.unwrap();
        assert_eq!(judged, PartialVerdict::Keep("its upload may still be running"));
        let judged = judge_partial(bucket, half, later(49)).await.unwrap();
        assert!(matches!(judged, PartialVerdict::Abandoned { .. }), "{judged:?}");
    }
    let judged = judge_partial(bucket, meta.ulid, now).await.unwrap();
    assert_eq!(judged, PartialVerdict::Keep("it has a meta.json"));

    let copy = tempfile::tempdir().unwrap();
    let download_options = DownloadOptions { retry: QUICK, ..DownloadOptions::default() };
    download(bucket, meta.ulid, copy.path(), &download_options).await.unwrap();
    for file in ["chunks/000001", "chunks/000002", "index"] {
        let read = |dir: &tempfile::TempDir| std::fs::read(dir.path().join(file)).unwrap();
        assert_eq!(read(&local), read(&copy), "{file}");
    }
    assert_eq!(check_blocks_are_whole(bucket).await, 1);
    delete_block(bucket, meta.ulid, QUICK).await.unwrap();
    delete_block(bucket, half, QUICK).await.unwrap();
    assert_eq!(bucket.list_dir("").await.unwrap().dirs, ["isthmus"]);
}

/// Checks that a bucket cannot be used, with this kind of error and these words in one line.
async fn check_refused(yaml: &str, kind: ErrorKind, exit_code: u8, words: &[&str]) {
    let config = BucketConfig::parse(yaml).unwrap_or_else(|error| panic!("{error}"));
    let error = match config.open(&BucketMetrics::default()) {
        Ok(bucket) => bucket.probe(true).await.unwrap_err(),
        Err(error) => error,
    };
    let text = error.to_string();
    assert_eq!((error.kind(), error.exit_code()), (kind, exit_code), "{text}");
    assert!(!text.contains('\n') && text.len() < 400, "{text}");
    for word in words {
        assert!(text.contains(word), "{text:?} lacks {word:?}");
    }
}

#[tokio::test]
async fn a_local_directory_passes_the_suite() {
    let folder = tempfile::tempdir().unwrap();
    let yaml = format!("type: filesystem\nconfig: {{directory: {:?}}}", folder.path());
    run(&yaml, Limits { no_update: true, ..Limits::default() }).await;
    let missing = format!("type: FILESYSTEM\nconfig: {{directory: {:?}}}", folder.path().join("missing"));
    check_refused(&missing, ErrorKind::NoBucket, 2, &["missing", "does not exist", "create it"]).await;
    let file = folder.path().join("file");
    std::fs::write(&file, "x").unwrap();
    let yaml = format!("type: FILESYSTEM\nconfig: {{directory: {file:?}}}");
    check_refused(&yaml, ErrorKind::Config, 2, &["expected a directory"]).await;
}

fn s3_yaml(address: &str, bucket: &str) -> String {
    format!(
        "type: S3\nconfig: {{bucket: {bucket}, endpoint: '{address}', insecure: true, \
         access_key: key, secret_key: secret, region: us-east-1, max_retries: 1}}"
    )
}

#[tokio::test]
async fn s3_passes_the_suite() {
    let Some(server) = servers::s3(false).await else { return };
    run(&s3_yaml(&server.address, "blocks"), Limits::default()).await;
    let missing = s3_yaml(&server.address, "missing");
    check_refused(&missing, ErrorKind::NoBucket, 2, &["\"missing\"", "create it"]).await;
}

#[tokio::test]
async fn a_wrong_key_for_s3_is_an_error_in_one_line() {
    let Some(server) = servers::s3(true).await else { return };
    let yaml = s3_yaml(&server.address, "blocks");
    check_refused(&yaml, ErrorKind::Denied, 2, &["\"blocks\"", "InvalidAccessKeyId", "check the keys"]).await;
}

#[tokio::test]
async fn an_unreachable_store_is_an_error_in_one_line() {
    // The port was bound and released, so connections to it are refused.
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let yaml = s3_yaml(&address.to_string(), "blocks");
    check_refused(&yaml, ErrorKind::Unavailable, 1, &["cannot be reached", "check the endpoint"]).await;
}

fn azure_yaml(address: &str, container: &str, key: &str) -> String {
    format!(
        "type: AZURE\nconfig: {{container: {container}, max_retries: 1, storage_connection_string: \
         'DefaultEndpointsProtocol=http;AccountName={0};AccountKey={key};BlobEndpoint=http://{address}/{0};'}}",
        servers::AZURE_ACCOUNT
    )
}

#[tokio::test]
async fn azure_passes_the_suite() {
    let Some(server) = servers::azure().await else { return };
    run(&azure_yaml(&server.address, "blocks", servers::AZURE_KEY), Limits::default()).await;
    let missing = azure_yaml(&server.address, "missing", servers::AZURE_KEY);
    check_refused(&missing, ErrorKind::NoBucket, 2, &["\"missing\"", "create it"]).await;
    let wrong = azure_yaml(&server.address, "blocks", "d3Jvbmc=");
    check_refused(&wrong, ErrorKind::Denied, 2, &["\"blocks\"", "check the keys"]).await;
}

fn gcs_yaml(address: std::net::SocketAddr, bucket: &str) -> String {
    let account = format!(
        r#"{{"gcs_base_url": "http://{address}", "disable_oauth": true, "client_email": "", "private_key": "", "private_key_id": ""}}"#
    );
    format!("type: GCS\nconfig: {{bucket: {bucket}, max_retries: 1, service_account: '{account}'}}")
}

#[tokio::test]
async fn gcs_passes_the_suite() {
    // Small pages, so that every listing has several.
    let address = gcs::start(3).await;
    run(&gcs_yaml(address, gcs::BUCKET), Limits { fixed_times: true, ..Limits::default() }).await;
    check_refused(&gcs_yaml(address, "missing"), ErrorKind::NoBucket, 2, &["\"missing\"", "create it"]).await;
}
