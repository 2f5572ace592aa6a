//! The policies in `deploy/policies`: each role can do its work with its policy, and nothing else. moto checks those of S3; no emulator
//! checks those of Google and Azure, whose form is looked at.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use bucket::marks::{self, Mark, MarkKind};
use bucket::readers::{self, ReaderAck};
use bucket::{
    Bucket, BucketConfig, BucketMetrics, DownloadOptions, ErrorKind, delete_block, download, layout, publish,
    store_time,
};
use bytes::Bytes;
use model::Timestamp;
use object_store::ClientOptions;
use object_store::client::{HttpConnector, ReqwestConnector};
use serde_json::Value;

use crate::servers;
use crate::support::{QUICK, block_id, options, write_block};

const ROLES: [&str; 3] = ["reader", "writer", "compactor"];

fn file(store: &str, role: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/policies");
    folder.join(format!("{store}-{role}.json"))
}

fn policy(store: &str, role: &str) -> Value {
    let text = std::fs::read_to_string(file(store, role)).unwrap();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{store}-{role}.json: {error}"))
}

/// Sends a request without a signature, and returns the answer.
async fn send(address: &str, path: &str, service: &str, body: String) -> String {
    let scope = format!("AWS4-HMAC-SHA256 Credential=key/20260101/us-east-1/{service}/aws4_request");
    let request = http::Request::post(format!("http://{address}{path}"))
        .header("authorization", scope)
        // moto reads the text that follows a form only as one.
        .header(
            "content-type",
            if service == "iam" { "application/x-www-form-urlencoded" } else { "text/plain" },
        )
        .body(body.into_bytes().into())
        .unwrap();
    let client = ReqwestConnector::default().connect(&ClientOptions::new().with_allow_http(true)).unwrap();
    let answer = client.execute(request).await.unwrap();
    let status = answer.status();
    let body = answer.into_body().bytes().await.unwrap();
    let text = String::from_utf8_lossy(&body).into_owned();
    assert!(status.is_success(), "{path}: {status}: {text}");
    text
}

fn percent_encode(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

/// Creates a user with this policy, and returns the bucket as this user sees it.
async fn user(address: &str, role: &str) -> Bucket {
    let iam = |parameters: String| send(address, "/", "iam", format!("{parameters}&Version=2010-05-08"));
    iam(format!("Action=CreateUser&UserName={role}")).await;
    let document = policy("s3", role).to_string().replace("BUCKET", "blocks");
    let document = percent_encode(&document);
    iam(format!("Action=PutUserPolicy&UserName={role}&PolicyName=p&PolicyDocument={document}")).await;
    let keys = iam(format!("Action=CreateAccessKey&UserName={role}")).await;
    let field = |name: &str| {
        let (_, rest) = keys.split_once(&format!("<{name}>")).unwrap_or_else(|| panic!("{name}: {keys}"));
        rest.split_once('<').unwrap().0.to_owned()
    };
    let yaml = format!(
        "type: S3\nconfig: {{bucket: blocks, endpoint: '{address}', insecure: true, access_key: '{}', secret_key: '{}', \
         region: us-east-1, max_retries: 1, part_size: 5242880}}",
        field("AccessKeyId"),
        field("SecretAccessKey")
    );
    BucketConfig::parse(&yaml).unwrap().open(&BucketMetrics::default()).unwrap()
}

fn mark(number: u64) -> Mark {
    Mark::new(MarkKind::Deletion, block_id(number), Timestamp::from_millis(1_800_000_000_000))
}

fn denied<T>(what: &str, result: Result<T, bucket::BucketError>) {
    match result {
        Ok(_) => panic!("{what} is permitted"),
        Err(error) => assert_eq!(error.kind(), ErrorKind::Denied, "{what}: {error}"),
    }
}

#[tokio::test]
async fn each_role_can_do_its_work_on_s3_and_nothing_else() {
    let Some(server) = servers::s3(false).await else { return };
    let address = server.address.as_str();
    let (reader, writer, compactor) =
        (user(address, "reader").await, user(address, "writer").await, user(address, "compactor").await);
    // From now on, moto checks every request.
    send(address, "/moto-api/reset-auth", "s3", "0".to_owned()).await;

    // A sidecar checks the store and uploads blocks, also in parts.
    assert_eq!(writer.probe(true).await.unwrap().honours_conditions, Some(true));
    let local = tempfile::tempdir().unwrap();
    let meta = write_block(local.path(), 1, 12 << 20);
    publish(&writer, local.path(), meta.clone(), &options()).await.unwrap();
    publish(&writer, local.path(), meta.clone(), &options()).await.unwrap();
    denied("a mark by a writer", marks::create(&writer, &mark(1)).await);
    denied("a removal by a writer", writer.delete(&layout::block_file(block_id(1), "index")).await);
    denied("an index by a writer", writer.put("isthmus/index", Bytes::from_static(b"x")).await);

    // A store reads them, and says which it reads.
    reader.probe(false).await.unwrap();
    let copy = tempfile::tempdir().unwrap();
    let quick = DownloadOptions { retry: QUICK, ..DownloadOptions::default() };
    download(&reader, meta.ulid, copy.path(), &quick).await.unwrap();
    let ack = ReaderAck {
        id: "01M8J9KY000DAS4Q7VMQ5HWWTY".to_owned(),
        name: "store".to_owned(),
        sync_interval: std::time::Duration::from_secs(60),
        expires: std::time::Duration::from_secs(900),
        in_use: vec![block_id(1)],
    };
    readers::acknowledge(&reader, &ack).await.unwrap();
    readers::acknowledge(&reader, &ack).await.unwrap();
    denied("a block by a reader", reader.put(&layout::block_file(block_id(2), "index"), "x".into()).await);
    denied("a removal by a reader", reader.delete(&layout::block_file(block_id(1), "index")).await);
    denied("a mark by a reader", marks::create(&reader, &mark(1)).await);

    // A compactor reads the clock of the store, marks and removes.
    assert_eq!(compactor.probe(true).await.unwrap().honours_conditions, Some(true));
    store_time(&compactor).await.unwrap();
    marks::create(&compactor, &mark(1)).await.unwrap();
    assert!(compactor.exists(&layout::block_file(block_id(1), MarkKind::Deletion.file())).await.unwrap());
    delete_block(&compactor, meta.ulid, QUICK).await.unwrap();
    assert_eq!(compactor.list_dir("").await.unwrap().dirs, ["isthmus"]);
}

fn strings<'a>(value: &'a Value, what: &str) -> BTreeSet<&'a str> {
    let list = value[what].as_array().unwrap_or_else(|| panic!("{what}: {value}"));
    list.iter().map(|one| one.as_str().unwrap_or_else(|| panic!("{what}: {one}"))).collect()
}

/// A role has the rights of those before it, and more.
#[test]
fn policies_of_google_and_azure_have_their_form_and_grow_with_the_role() {
    const BLOBS: &str = "Microsoft.Storage/storageAccounts/blobServices/containers/blobs/";
    for (role, removes) in ROLES.iter().zip([false, true, true]) {
        let azure = policy("azure", role);
        assert_eq!(azure["IsCustom"], true, "{role}");
        assert_eq!(azure["Name"], format!("Isthmus {role}"));
        let actions = strings(&azure, "DataActions");
        assert!(actions.iter().all(|action| action.starts_with(BLOBS)), "{role}: {actions:?}");
        assert!(actions.contains(format!("{BLOBS}read").as_str()), "{role}");
        assert_eq!(actions.contains(format!("{BLOBS}delete").as_str()), removes, "{role}");

        let google = policy("gcs", role);
        let bindings = google["bindings"].as_array().unwrap();
        for binding in bindings {
            let name = binding["role"].as_str().unwrap();
            assert!(name.starts_with("roles/storage.object"), "{role}: {name}");
            assert_eq!(strings(binding, "members").len(), 1, "{role}");
            // Only a compactor may remove what is not its own.
            let is_limited = binding["condition"]["expression"].is_string();
            assert_eq!(
                name == "roles/storage.objectUser" && !is_limited,
                *role == "compactor",
                "{role}: {name}"
            );
        }
    }
}
