//! `type: AZURE`: Azure Blob Storage.

use std::sync::Arc;
use std::time::Duration;

use object_store::azure::{MicrosoftAzureBuilder, split_sas};
use object_store::{ObjectStore, RetryConfig};
use runtime::yaml::YamlFields;

use crate::bucket::WriteSettings;
use crate::config::answers::CheckedConnector;
use crate::config::fields::{ConfigNotes, boolean, count, duration, required_text, text, text_or_empty};
use crate::config::http::{self, HttpConfig};

const DEFAULT_ENDPOINT: &str = "blob.core.windows.net";

pub(super) struct AzureConfig {
    pub(super) container: String,
    pub(super) account: String,
    /// The URL, with scheme.
    pub(super) endpoint: String,
    credential: Credential,
    try_timeout: Option<Duration>,
    retry: RetryConfig,
    http: HttpConfig,
}

enum Credential {
    Key(String),
    /// The query of a shared access signature.
    Signature(String),
    Client {
        tenant: String,
        id: String,
        secret: String,
    },
    /// The managed identity of the machine; by its client id if the machine has several.
    Managed(Option<String>),
}

pub(super) fn read(mut fields: YamlFields<'_>, notes: &ConfigNotes<'_>) -> Option<AzureConfig> {
    let container = required_text(&mut fields, "container");
    let connection = fields.optional("storage_connection_string", |node| {
        let text = text_or_empty(node)?;
        if text.is_empty() { Ok(None) } else { ConnectionString::parse(text).map(Some) }
    });
    let has_connection = fields.node("storage_connection_string").is_some();
    let connection = connection.flatten().unwrap_or_default();
    let account = text(&mut fields, "storage_account").or(connection.account);
    if account.is_none() {
        fields.wrong("storage_account", "is missing");
    }
    let key = text(&mut fields, "storage_account_key");
    let endpoint = text(&mut fields, "endpoint").unwrap_or_else(|| DEFAULT_ENDPOINT.to_owned());
    if endpoint.contains("://") {
        fields.wrong("endpoint", "must be a host without scheme; the account's name is put before it");
    }
    let tenant = text(&mut fields, "az_tenant_id");
    let client_id = text(&mut fields, "client_id");
    let client_secret = text(&mut fields, "client_secret");
    let managed = text(&mut fields, "user_assigned_id");

    let is_named = |yes: bool, name: &'static str| yes.then_some(name);
    let ways = [
        is_named(key.is_some(), "storage_account_key"),
        is_named(has_connection, "storage_connection_string"),
        is_named(managed.is_some(), "user_assigned_id"),
        is_named(tenant.is_some() || client_id.is_some() || client_secret.is_some(), "client_id"),
    ];
    let ways: Vec<&'static str> = ways.into_iter().flatten().collect();
    if let [first, second, ..] = ways.as_slice() {
        fields.wrong(second, format!("cannot be combined with {first}: give one credential"));
    }
    let credential = match (key.or(connection.key), connection.signature, tenant, client_id, client_secret) {
        (Some(key), ..) => Some(Credential::Key(key)),
        (_, Some(signature), ..) => Some(Credential::Signature(signature)),
        (_, _, Some(tenant), Some(id), Some(secret)) => Some(Credential::Client { tenant, id, secret }),
        (_, _, None, None, None) => Some(Credential::Managed(managed)),
        _ => {
            fields
                .wrong("client_id", "is incomplete: give az_tenant_id, client_id and client_secret together");
            None
        }
    };

    let mut retries = count(&mut fields, "max_retries", 1000).filter(|retries| *retries > 0);
    let mut backoff = (None, None);
    let mut try_timeout = None;
    if let Some(node) = fields.node("reader_config") {
        let mut reader = YamlFields::new("config.reader_config", node, notes.mistakes);
        let tries = count(&mut reader, "max_retry_requests", 1000).filter(|tries| *tries > 0);
        retries = tries.or(retries);
        reader.finish();
    }
    if let Some(node) = fields.node("pipeline_config") {
        let mut pipeline = YamlFields::new("config.pipeline_config", node, notes.mistakes);
        let tries = count(&mut pipeline, "max_tries", 1000).filter(|tries| *tries > 0);
        retries = tries.or(retries);
        try_timeout = duration(&mut pipeline, "try_timeout").filter(|length| !length.is_zero());
        backoff = (duration(&mut pipeline, "retry_delay"), duration(&mut pipeline, "max_retry_delay"));
        pipeline.finish();
    }
    let mut retry = http::retry(retries);
    retry.backoff.init_backoff =
        backoff.0.filter(|delay| !delay.is_zero()).unwrap_or(retry.backoff.init_backoff);
    retry.backoff.max_backoff =
        backoff.1.filter(|delay| !delay.is_zero()).unwrap_or(retry.backoff.max_backoff);

    if boolean(&mut fields, "storage_create_container") == Some(true) {
        let node = fields.node("storage_create_container");
        let why = "this program never creates a container; create it yourself";
        notes.without_effect(&fields, node, "storage_create_container", why);
    }
    if text(&mut fields, "msi_resource").is_some() {
        let node = fields.node("msi_resource");
        notes.without_effect(&fields, node, "msi_resource", "the resource is known; remove the field");
    }
    let http = http::read(&mut fields, "config", notes);
    fields.finish();

    let account = account?;
    Some(AzureConfig {
        container: container?,
        endpoint: connection.endpoint.unwrap_or_else(|| format!("https://{account}.{endpoint}")),
        account,
        credential: credential?,
        try_timeout,
        retry,
        http,
    })
}

/// Account and key of the emulator, which its documentation publishes.
const EMULATOR_ACCOUNT: &str = "devstoreaccount1";
const EMULATOR_KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// The fields of a connection string: `Name=value` pairs, separated by semicolons.
#[derive(Default)]
struct ConnectionString {
    account: Option<String>,
    key: Option<String>,
    signature: Option<String>,
    endpoint: Option<String>,
}

impl ConnectionString {
    fn parse(text: &str) -> Result<Self, String> {
        let mut connection = Self::default();
        let (mut scheme, mut suffix) = ("https".to_owned(), "core.windows.net".to_owned());
        let (mut is_emulator, mut proxy) = (false, None);
        for pair in text.split(';').map(str::trim).filter(|pair| !pair.is_empty()) {
            let (name, value) = pair
                .split_once('=')
                .ok_or("is not a connection string: expected Name=value pairs, separated by semicolons")?;
            let value = value.to_owned();
            match name {
                "DefaultEndpointsProtocol" => scheme = value,
                "EndpointSuffix" => suffix = value,
                "AccountName" => connection.account = Some(value),
                "AccountKey" => connection.key = Some(value),
                "SharedAccessSignature" => connection.signature = Some(value),
                "BlobEndpoint" => connection.endpoint = Some(value.trim_end_matches('/').to_owned()),
                "UseDevelopmentStorage" => is_emulator = value.eq_ignore_ascii_case("true"),
                "DevelopmentStorageProxyUri" => proxy = Some(value.trim_end_matches('/').to_owned()),
                // Endpoints of other services of the account.
                "QueueEndpoint" | "TableEndpoint" | "FileEndpoint" | "BlobSecondaryEndpoint" => {}
                other => return Err(format!("{other:?} is not a known name in a connection string")),
            }
        }
        if is_emulator {
            let host = proxy.unwrap_or_else(|| "http://127.0.0.1".to_owned());
            connection.account.get_or_insert_with(|| EMULATOR_ACCOUNT.to_owned());
            connection.key.get_or_insert_with(|| EMULATOR_KEY.to_owned());
            connection.endpoint.get_or_insert_with(|| format!("{host}:10000/{EMULATOR_ACCOUNT}"));
        }
        if connection.key.is_none() && connection.signature.is_none() {
            return Err("has no credential: add AccountKey or SharedAccessSignature".to_owned());
        }
        if let (None, Some(account)) = (&connection.endpoint, &connection.account) {
            connection.endpoint = Some(format!("{scheme}://{account}.blob.{suffix}"));
        }
        Ok(connection)
    }
}

impl AzureConfig {
    pub(super) fn open(&self) -> Result<(Arc<dyn ObjectStore>, WriteSettings), object_store::Error> {
        let mut options = self.http.client_options(self.endpoint.starts_with("http://"));
        if let Some(timeout) = self.try_timeout {
            options = options.with_timeout(timeout);
        }
        let builder = MicrosoftAzureBuilder::new()
            .with_container_name(&self.container)
            .with_account(&self.account)
            .with_endpoint(self.endpoint.clone())
            .with_http_connector(CheckedConnector::new(&self.endpoint))
            .with_retry(self.retry.clone())
            .with_client_options(options);
        let builder = match &self.credential {
            Credential::Key(key) => builder.with_access_key(key),
            Credential::Signature(query) => builder.with_sas_authorization(split_sas(query)?),
            Credential::Client { tenant, id, secret } => {
                builder.with_client_secret_authorization(id, secret, tenant)
            }
            Credential::Managed(id) => managed(builder, id.as_deref()),
        };
        Ok((Arc::new(builder.build()?), WriteSettings::default()))
    }
}

/// A workload's federated identity if the environment has one, otherwise the machine's managed identity.
fn managed(builder: MicrosoftAzureBuilder, id: Option<&str>) -> MicrosoftAzureBuilder {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    if id.is_none()
        && let (Some(file), Some(client), Some(tenant)) =
            (variable("AZURE_FEDERATED_TOKEN_FILE"), variable("AZURE_CLIENT_ID"), variable("AZURE_TENANT_ID"))
    {
        return builder.with_federated_token_file(file).with_client_id(client).with_tenant_id(tenant);
    }
    match id {
        Some(id) => builder.with_client_id(id),
        None => builder,
    }
}
