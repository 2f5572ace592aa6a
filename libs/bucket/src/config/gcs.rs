//! `type: GCS`: Google Cloud Storage, through its XML API.

mod token;

use std::sync::Arc;

use object_store::client::{HttpConnector, ReqwestConnector};
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::{ObjectStore, RetryConfig};
use runtime::yaml::YamlFields;

use crate::bucket::{DEFAULT_PART_BYTES, WriteSettings};
use crate::config::answers::CheckedConnector;
use crate::config::fields::{ConfigNotes, boolean, count, required_text, text};
use crate::config::gcs::token::TokenSource;
use crate::config::http::{self, HttpConfig};

/// Smallest part that GCS accepts, except for the last part of an object.
const MIN_PART_BYTES: u64 = 5 << 20;

/// The endpoint of GCS.
const DEFAULT_BASE_URL: &str = "https://storage.googleapis.com";

pub(super) struct GcsConfig {
    pub(super) bucket: String,
    /// JSON; `None`: the application default credentials.
    service_account: Option<String>,
    /// How tokens are fetched for a `service_account` that is none, such as a federated identity.
    tokens: Option<TokenSource>,
    /// The endpoint in the account's JSON, as for emulators.
    pub(super) base_url: Option<String>,
    part_bytes: u64,
    retry: RetryConfig,
    http: HttpConfig,
}

pub(super) fn read(mut fields: YamlFields<'_>, notes: &ConfigNotes<'_>) -> Option<GcsConfig> {
    let bucket = required_text(&mut fields, "bucket");
    let (mut base_url, mut tokens) = (None, None);
    let service_account = text(&mut fields, "service_account");
    if let Some(json) = &service_account {
        match serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(json) {
            Ok(account) => {
                match TokenSource::parse(json) {
                    Some(Ok(source)) => tokens = Some(source),
                    Some(Err(why)) => fields.wrong("service_account", why),
                    None => {}
                }
                let base = account.get("gcs_base_url").and_then(serde_json::Value::as_str);
                base_url = base.map(str::to_owned);
            }
            Err(_) => fields.wrong(
                "service_account",
                "is not the JSON of a credential: paste the content of the file (`service_account: |-`)",
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
    Some(GcsConfig { bucket: bucket?, service_account, tokens, base_url, part_bytes, retry, http })
}

impl GcsConfig {
    pub(super) fn open(&self) -> Result<(Arc<dyn ObjectStore>, WriteSettings), object_store::Error> {
        let base_url = self.base_url.as_deref().unwrap_or(DEFAULT_BASE_URL);
        let mut builder = GoogleCloudStorageBuilder::new()
            .with_http_connector(CheckedConnector::new(base_url))
            .with_bucket_name(&self.bucket)
            .with_retry(self.retry.clone())
            .with_client_options(self.http.client_options(base_url.starts_with("http://")));
        let file = std::env::var("GOOGLE_APPLICATION_CREDENTIALS").ok();
        let tokens = match (&self.service_account, &file) {
            (None, Some(file)) => tokens_of_file(file)?,
            _ => self.tokens.clone(),
        };
        builder = match (tokens, &self.service_account, file) {
            (Some(tokens), _, _) => {
                // The token of this machine, or of the workload, may come from a URL without TLS.
                let client = ReqwestConnector::default().connect(&self.http.client_options(true))?;
                builder.with_base_url(base_url).with_credentials(Arc::new(tokens.provider(client)))
            }
            (None, Some(json), _) => builder.with_service_account_key(json),
            (None, None, Some(file)) => builder.with_application_credentials(file),
            (None, None, None) => builder,
        };
        let settings = WriteSettings { part_bytes: self.part_bytes, ..WriteSettings::default() };
        Ok((Arc::new(builder.build()?), settings))
    }
}

/// The token source in a file of credentials; `None` if the library reads the file itself.
fn tokens_of_file(file: &str) -> Result<Option<TokenSource>, object_store::Error> {
    // The library reports a file that cannot be read.
    let Ok(json) = std::fs::read_to_string(file) else { return Ok(None) };
    let wrong = |why: String| object_store::Error::Generic {
        store: "GCS",
        source: format!("GOOGLE_APPLICATION_CREDENTIALS: {file} {why}").into(),
    };
    TokenSource::parse(&json).transpose().map_err(wrong)
}
