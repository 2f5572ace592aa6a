//! `type: GCS`: Google Cloud Storage, through its XML API.

use std::sync::Arc;

use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::{ObjectStore, RetryConfig};
use runtime::yaml::YamlFields;

use crate::bucket::{DEFAULT_PART_BYTES, WriteSettings};
use crate::config::answers::CheckedConnector;
use crate::config::fields::{ConfigNotes, boolean, count, required_text, text};
use crate::config::http::{self, HttpConfig};

/// Smallest part that GCS accepts, except for the last part of an object.
const MIN_PART_BYTES: u64 = 5 << 20;

/// The endpoint of GCS.
const DEFAULT_BASE_URL: &str = "https://storage.googleapis.com";

pub(super) struct GcsConfig {
    pub(super) bucket: String,
    /// JSON; `None`: the application default credentials.
    service_account: Option<String>,
    /// The endpoint in the account's JSON, as for emulators.
    base_url: Option<String>,
    part_bytes: u64,
    retry: RetryConfig,
    http: HttpConfig,
}

pub(super) fn read(mut fields: YamlFields<'_>, notes: &ConfigNotes<'_>) -> Option<GcsConfig> {
    let bucket = required_text(&mut fields, "bucket");
    let mut base_url = None;
    let service_account = text(&mut fields, "service_account");
    if let Some(json) = &service_account {
        match serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(json) {
            Ok(account) => {
                // The client reads the refresh token of a person from a file only, and does not support federation.
                let kind = account.get("type").and_then(serde_json::Value::as_str).unwrap_or("");
                if matches!(kind, "authorized_user" | "external_account" | "impersonated_service_account") {
                    fields.wrong(
                        "service_account",
                        format!("is of type {kind}, expected service_account: create a key of a service account, or run where the machine has one"),
                    );
                }
                let base = account.get("gcs_base_url").and_then(serde_json::Value::as_str);
                base_url = base.map(str::to_owned);
            }
            Err(_) => fields.wrong(
                "service_account",
                "is not the JSON of a service account: paste the content of the key file (`service_account: |-`)",
            ),
        }
    }
    if boolean(&mut fields, "use_grpc") == Some(true) {
        let node = fields.node("use_grpc");
        notes.without_effect(&fields, node, "use_grpc", "this program uses the XML API over HTTP");
    }
    if count(&mut fields, "grpc_conn_pool_size", i64::from(i32::MAX)).is_some_and(|size| size > 0) {
        let node = fields.node("grpc_conn_pool_size");
        notes.without_effect(&fields, node, "grpc_conn_pool_size", "this program uses the XML API over HTTP");
    }
    let chunk_bytes = fields.optional("chunk_size_bytes", |node| node.integer(0, 5 << 30));
    let part_bytes = match chunk_bytes {
        None | Some(0) => DEFAULT_PART_BYTES,
        // Thanos accepts smaller chunks than GCS accepts parts.
        Some(bytes) => (bytes as u64).max(MIN_PART_BYTES),
    };
    let max_retries = count(&mut fields, "max_retries", 1000);
    let http = http::read(&mut fields, "config", notes);
    fields.finish();
    // For this type, 1 means "no retries".
    let mut retry = http::retry(max_retries);
    if max_retries == Some(1) {
        retry.max_retries = 0;
    }
    Some(GcsConfig { bucket: bucket?, service_account, base_url, part_bytes, retry, http })
}

impl GcsConfig {
    pub(super) fn open(&self) -> Result<(Arc<dyn ObjectStore>, WriteSettings), object_store::Error> {
        let base_url = self.base_url.as_deref().unwrap_or(DEFAULT_BASE_URL);
        let mut builder = GoogleCloudStorageBuilder::new()
            .with_http_connector(CheckedConnector::new(base_url))
            .with_bucket_name(&self.bucket)
            .with_retry(self.retry.clone())
            .with_client_options(self.http.client_options(base_url.starts_with("http://")));
        if let Some(json) = &self.service_account {
            builder = builder.with_service_account_key(json);
        } else if let Ok(file) = std::env::var("GOOGLE_APPLICATION_CREDENTIALS") {
            builder = builder.with_application_credentials(file);
        }
        let settings = WriteSettings { part_bytes: self.part_bytes, ..WriteSettings::default() };
        Ok((Arc::new(builder.build()?), settings))
    }
}
