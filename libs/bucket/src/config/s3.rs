//! `type: S3`: Amazon's S3 and the stores that use its protocol.

mod creation;

use std::sync::Arc;

use ::http::HeaderName;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey};
use object_store::{Attribute, Attributes, HeaderMap, HeaderValue, ObjectStore, RetryConfig};
use runtime::yaml::{YamlFields, YamlNode, YamlValue};

use crate::bucket::{DEFAULT_PART_BYTES, WriteSettings};
use crate::config::answers::CheckedConnector;
use crate::config::fields::{ConfigNotes, boolean, count, required_text, text, text_or_empty};
use crate::config::http::{self, HttpConfig};
use crate::config::s3::creation::CreationHeaders;

/// Smallest part that S3 accepts, except for the last part of an object.
const MIN_PART_BYTES: i64 = 5 << 20;
/// Largest part that S3 accepts.
const MAX_PART_BYTES: i64 = 5 << 30;

/// Environment variables that can set credentials. Variables for the bucket or its endpoint are left out on purpose, so
/// that the environment never changes which bucket is used.
const CREDENTIAL_VARIABLES: [(&str, AmazonS3ConfigKey); 11] = [
    ("AWS_ACCESS_KEY_ID", AmazonS3ConfigKey::AccessKeyId),
    ("AWS_SECRET_ACCESS_KEY", AmazonS3ConfigKey::SecretAccessKey),
    ("AWS_SESSION_TOKEN", AmazonS3ConfigKey::Token),
    ("AWS_WEB_IDENTITY_TOKEN_FILE", AmazonS3ConfigKey::WebIdentityTokenFile),
    ("AWS_ROLE_ARN", AmazonS3ConfigKey::RoleArn),
    ("AWS_ROLE_SESSION_NAME", AmazonS3ConfigKey::RoleSessionName),
    ("AWS_ENDPOINT_URL_STS", AmazonS3ConfigKey::StsEndpoint),
    ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", AmazonS3ConfigKey::ContainerCredentialsRelativeUri),
    ("AWS_CONTAINER_CREDENTIALS_FULL_URI", AmazonS3ConfigKey::ContainerCredentialsFullUri),
    ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", AmazonS3ConfigKey::ContainerAuthorizationTokenFile),
    ("AWS_EC2_METADATA_SERVICE_ENDPOINT", AmazonS3ConfigKey::MetadataEndpoint),
];

pub(super) struct S3Config {
    pub(super) bucket: String,
    pub(super) endpoint: String,
    region: Option<String>,
    insecure: bool,
    /// `None`: from the environment, or from the machine's identity.
    keys: Option<Keys>,
    sts_endpoint: Option<String>,
    is_virtual_hosted: bool,
    encryption: Option<Encryption>,
    attributes: Attributes,
    /// Headers of the requests that create objects, besides those of the attributes.
    creation_headers: HeaderMap,
    single_put: bool,
    part_bytes: u64,
    retry: RetryConfig,
    http: HttpConfig,
}

struct Keys {
    access_key: String,
    secret_key: String,
    session_token: Option<String>,
}

enum Encryption {
    S3,
    Kms(String),
    /// The customer's key in base64.
    Customer(String),
}

pub(super) fn read(mut fields: YamlFields<'_>, notes: &ConfigNotes<'_>) -> Option<S3Config> {
    let bucket = required_text(&mut fields, "bucket");
    let endpoint = fields.required("endpoint", |node| {
        let endpoint = node.text()?.trim_end_matches('/');
        match endpoint.split_once("://") {
            Some((_, host)) => Err(format!(
                "must be a host without scheme: write {host}, and `insecure: true` for plain HTTP"
            )),
            None if endpoint.contains('/') => Err("must be a host without a path".to_owned()),
            None => Ok(endpoint.to_owned()),
        }
    });
    let region = text(&mut fields, "region").or_else(|| region_of(endpoint.as_deref()?).map(str::to_owned));
    let insecure = boolean(&mut fields, "insecure").unwrap_or(false);
    let keys = read_keys(&mut fields);
    let is_virtual_hosted = fields.optional("bucket_lookup_type", |node| match text_or_empty(node)? {
        "" | "auto" => Ok(None),
        "virtual-hosted" => Ok(Some(true)),
        "path" => Ok(Some(false)),
        other => Err(format!("{other:?} is unknown, expected auto, virtual-hosted or path")),
    });
    let encryption = fields
        .node("sse_config")
        .and_then(|node| read_encryption(YamlFields::new("config.sse_config", node, notes.mistakes)));
    let (attributes, creation_headers) = read_metadata(&mut fields);
    let single_put = boolean(&mut fields, "disable_multipart").unwrap_or(false);
    let part_bytes = fields.optional("part_size", |node| node.integer(MIN_PART_BYTES, MAX_PART_BYTES));
    let max_retries = count(&mut fields, "max_retries", 1000);
    let http = http::read(&mut fields, "config", notes);
    refuse(&mut fields, notes);
    let sts_endpoint = text(&mut fields, "sts_endpoint");
    fields.finish();

    let endpoint = endpoint?;
    // For these stores the bucket's name works as a part of the host. Others may lack the DNS entries.
    let by_host = ["amazonaws.com", "amazonaws.com.cn", "googleapis.com", "aliyuncs.com"];
    let is_auto_hosted = by_host.iter().any(|suffix| endpoint.ends_with(suffix));
    let bucket = bucket?;
    // A wildcard certificate does not cover a name with more dots.
    let has_dots = !insecure && bucket.contains('.');
    Some(S3Config {
        bucket,
        region,
        insecure,
        keys,
        sts_endpoint,
        is_virtual_hosted: is_virtual_hosted.flatten().unwrap_or(is_auto_hosted && !has_dots),
        encryption,
        attributes,
        creation_headers,
        single_put,
        part_bytes: part_bytes.map_or(DEFAULT_PART_BYTES, |bytes| bytes as u64),
        retry: http::retry(max_retries),
        http,
        endpoint,
    })
}

/// The region in a host of Amazon's: `s3.eu-west-1.amazonaws.com`, `s3-eu-west-1.amazonaws.com`,
/// `s3.dualstack.eu-west-1.amazonaws.com`, `s3-fips.eu-west-1.amazonaws.com` and so on, each also behind a bucket's name and
/// in China. `s3.amazonaws.com` and `s3-external-1.amazonaws.com` are in us-east-1.
fn region_of(endpoint: &str) -> Option<&str> {
    let host = endpoint.split(':').next().unwrap_or(endpoint);
    let host = host.strip_suffix(".cn").unwrap_or(host).strip_suffix(".amazonaws.com")?;
    let is_service = |part: &str| part == "s3" || part.starts_with("s3-");
    let parts: Vec<&str> = host.split('.').collect();
    // The name of a bucket may contain dots and begin with "s3-", so the last part that names the service counts.
    let service = parts.iter().rposition(|part| is_service(part))?;
    let after: Vec<&str> = parts[service + 1..].iter().copied().filter(|part| *part != "dualstack").collect();
    match (after.as_slice(), parts[service]) {
        ([region], _) => Some(region),
        ([], "s3" | "s3-external-1" | "s3-fips") => Some("us-east-1"),
        ([], service) => service.strip_prefix("s3-fips-").or(service.strip_prefix("s3-")),
        _ => None,
    }
}

fn read_keys(fields: &mut YamlFields<'_>) -> Option<Keys> {
    let is_from_sdk = boolean(fields, "aws_sdk_auth").unwrap_or(false);
    let access_key = text(fields, "access_key");
    let secret_key = text(fields, "secret_key");
    let session_token = text(fields, "session_token");
    match (access_key, secret_key) {
        (Some(_), _) | (_, Some(_)) if is_from_sdk => {
            fields.wrong(
                "aws_sdk_auth",
                "cannot be combined with access_key and secret_key: remove one or the other",
            );
            None
        }
        (Some(access_key), Some(secret_key)) => Some(Keys { access_key, secret_key, session_token }),
        (Some(_), None) => {
            fields.wrong(
                "secret_key",
                "is missing, but access_key is given: give both, or neither to use the environment",
            );
            None
        }
        (None, Some(_)) => {
            fields.wrong(
                "access_key",
                "is missing, but secret_key is given: give both, or neither to use the environment",
            );
            None
        }
        (None, None) => None,
    }
}

fn read_encryption(mut fields: YamlFields<'_>) -> Option<Encryption> {
    let kind = text(&mut fields, "type");
    let kms_key_id = text(&mut fields, "kms_key_id");
    let key_file = text(&mut fields, "encryption_key");
    if let Some(YamlNode { value: YamlValue::Map(entries), .. }) = fields.node("kms_encryption_context")
        && !entries.is_empty()
    {
        fields.wrong(
            "kms_encryption_context",
            "is not supported: use the default encryption of the bucket, or a key policy that needs no context",
        );
    }
    let encryption = match kind.as_deref() {
        None => None,
        Some("SSE-S3") => Some(Encryption::S3),
        Some("SSE-KMS") => {
            if kms_key_id.is_none() {
                fields.wrong("kms_key_id", "is missing: SSE-KMS needs the key's id");
            }
            kms_key_id.map(Encryption::Kms)
        }
        Some("SSE-C") => {
            let key = key_file
                .ok_or_else(|| "is missing: SSE-C needs the path of the file with the key".to_owned());
            match key.and_then(|file| read_customer_key(&file)) {
                Ok(key) => Some(Encryption::Customer(key)),
                Err(text) => {
                    fields.wrong("encryption_key", text);
                    None
                }
            }
        }
        Some(other) => {
            fields.wrong("type", format!("{other:?} is unknown, expected SSE-S3, SSE-KMS or SSE-C"));
            None
        }
    };
    fields.finish();
    encryption
}

fn read_customer_key(file: &str) -> Result<String, String> {
    let key = std::fs::read(file).map_err(|error| format!("read {file}: {error}"))?;
    if key.len() != 32 {
        return Err(format!("{file} has {} bytes, expected 32", key.len()));
    }
    Ok(STANDARD.encode(key))
}

/// How an entry of `put_user_metadata` is sent. As in Thanos, standard headers and those of access rights are sent as such,
/// and other names become metadata of the object.
#[derive(Debug, PartialEq, Eq)]
enum MetadataEntry {
    Attribute(Attribute),
    /// A header of the requests that create objects.
    Header(HeaderName),
}

fn entry_of(name: &str) -> Result<MetadataEntry, String> {
    let lower = name.to_ascii_lowercase();
    if lower == "x-amz-acl" || lower.starts_with("x-amz-grant-") {
        let header =
            HeaderName::try_from(&lower).map_err(|_| format!("{name:?} is not the name of a header"))?;
        return Ok(MetadataEntry::Header(header));
    }
    Ok(MetadataEntry::Attribute(match lower.as_str() {
        "x-amz-storage-class" => Attribute::StorageClass,
        "cache-control" => Attribute::CacheControl,
        "content-disposition" => Attribute::ContentDisposition,
        "content-encoding" => Attribute::ContentEncoding,
        "content-language" => Attribute::ContentLanguage,
        "content-type" => Attribute::ContentType,
        _ if lower.starts_with("x-amz-meta-") => {
            Attribute::Metadata(name["x-amz-meta-".len()..].to_owned().into())
        }
        _ if lower.starts_with("x-amz-") => {
            return Err(format!(
                "{name} is not supported: remove it, and set encryption and retention as defaults of the bucket"
            ));
        }
        _ => Attribute::Metadata(name.to_owned().into()),
    }))
}

/// The attributes of each object, and the headers of the requests that create objects.
fn read_metadata(fields: &mut YamlFields<'_>) -> (Attributes, HeaderMap) {
    let read = |node: &YamlNode| {
        let YamlValue::Map(entries) = &node.value else {
            return Err(format!("expected a mapping of names to texts, found {}", node.kind()));
        };
        let (mut attributes, mut headers) = (Attributes::new(), HeaderMap::new());
        for (key, node) in entries {
            let value = text_or_empty(node).map_err(|text| format!("{}: {text}", key.name()))?.to_owned();
            match entry_of(key.name())? {
                MetadataEntry::Attribute(attribute) => drop(attributes.insert(attribute, value.into())),
                MetadataEntry::Header(header) => {
                    let value = HeaderValue::try_from(value)
                        .map_err(|_| format!("{}: has characters that no header can have", key.name()))?;
                    headers.insert(header, value);
                }
            }
        }
        Ok((attributes, headers))
    };
    fields.optional("put_user_metadata", read).unwrap_or_default()
}

/// Fields that are not supported, or have no effect.
fn refuse(fields: &mut YamlFields<'_>, notes: &ConfigNotes<'_>) {
    if boolean(fields, "signature_version2") == Some(true) {
        fields.wrong("signature_version2", "is not supported: requests are signed with version 4 only");
    }
    let listing = fields.optional("list_objects_version", |node| match text_or_empty(node)? {
        "" | "v2" => Ok(()),
        "v1" => Err("v1 is not supported, expected v2".to_owned()),
        other => Err(format!("{other:?} is unknown, expected v2")),
    });
    _ = listing;
    if boolean(fields, "disable_dualstack") == Some(false) {
        let node = fields.node("disable_dualstack");
        let why = "the endpoint is used as given; for IPv6, give s3.dualstack.<region>.amazonaws.com";
        notes.without_effect(fields, node, "disable_dualstack", why);
    }
    if boolean(fields, "send_content_md5").is_some() {
        let node = fields.node("send_content_md5");
        let why = "the signature of every upload covers its SHA-256";
        notes.without_effect(fields, node, "send_content_md5", why);
    }
    if let Some(node) = fields.node("trace") {
        let mut trace = YamlFields::new("config.trace", node, notes.mistakes);
        if boolean(&mut trace, "enable") == Some(true) {
            let node = trace.node("enable");
            notes.without_effect(&trace, node, "enable", "use --log.level=debug");
        }
        trace.finish();
    }
}

impl S3Config {
    pub(super) fn open(&self) -> Result<(Arc<dyn ObjectStore>, WriteSettings), object_store::Error> {
        let other = Arc::new(self.client(None)?);
        let store: Arc<dyn ObjectStore> = match self.creation_headers.is_empty() {
            true => other,
            false => {
                let creating = self.client(Some(&self.creation_headers))?;
                Arc::new(CreationHeaders { creating, other })
            }
        };
        let settings = WriteSettings {
            part_bytes: self.part_bytes,
            single_put: self.single_put,
            attributes: self.attributes.clone(),
            folder: None,
        };
        Ok((store, settings))
    }

    /// A client that sends `headers` with each request.
    fn client(&self, headers: Option<&HeaderMap>) -> Result<AmazonS3, object_store::Error> {
        let scheme = if self.insecure { "http" } else { "https" };
        let endpoint = if self.is_virtual_hosted {
            format!("{scheme}://{}.{}", self.bucket, self.endpoint)
        } else {
            format!("{scheme}://{}", self.endpoint)
        };
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(&self.bucket)
            .with_http_connector(CheckedConnector::new(&endpoint))
            .with_endpoint(endpoint)
            .with_virtual_hosted_style_request(self.is_virtual_hosted)
            // Some stores do not support bulk removals.
            .with_disable_bulk_delete(true)
            .with_retry(self.retry.clone())
            .with_client_options(match headers {
                Some(headers) => {
                    self.http.client_options(self.insecure).with_default_headers(headers.clone())
                }
                None => self.http.client_options(self.insecure),
            });
        let region = self.region.clone().or_else(|| std::env::var("AWS_REGION").ok());
        if let Some(region) = region {
            builder = builder.with_region(region);
        }
        if let Some(keys) = &self.keys {
            builder = builder.with_access_key_id(&keys.access_key).with_secret_access_key(&keys.secret_key);
            if let Some(token) = &keys.session_token {
                builder = builder.with_token(token);
            }
        } else {
            for (name, key) in CREDENTIAL_VARIABLES {
                if let Ok(value) = std::env::var(name) {
                    builder = builder.with_config(key, value);
                }
            }
            if let Some(endpoint) = &self.sts_endpoint {
                builder = builder.with_config(AmazonS3ConfigKey::StsEndpoint, endpoint);
            }
        }
        builder = match &self.encryption {
            None => builder,
            Some(Encryption::S3) => {
                let key = "aws_server_side_encryption".parse::<AmazonS3ConfigKey>()?;
                builder.with_config(key, "AES256")
            }
            Some(Encryption::Kms(key)) => builder.with_sse_kms_encryption(key),
            Some(Encryption::Customer(key)) => builder.with_ssec_encryption(key),
        };
        builder.build()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_region_is_found_in_every_form_of_amazons_hosts() {
        for (host, region) in [
            ("s3.eu-west-1.amazonaws.com", Some("eu-west-1")),
            ("s3-eu-west-1.amazonaws.com", Some("eu-west-1")),
            ("s3.dualstack.eu-west-1.amazonaws.com:443", Some("eu-west-1")),
            ("s3-fips.us-gov-west-1.amazonaws.com", Some("us-gov-west-1")),
            ("s3-fips.dualstack.us-east-2.amazonaws.com", Some("us-east-2")),
            ("s3-fips-us-gov-west-1.amazonaws.com", Some("us-gov-west-1")),
            ("my.bucket.s3.eu-west-1.amazonaws.com", Some("eu-west-1")),
            ("s3.cn-north-1.amazonaws.com.cn", Some("cn-north-1")),
            ("s3.amazonaws.com", Some("us-east-1")),
            ("s3-external-1.amazonaws.com", Some("us-east-1")),
            ("amazonaws.com", None),
            ("s3.eu-west-1.example.com", None),
            ("127.0.0.1:9000", None),
        ] {
            assert_eq!(region_of(host), region, "{host}");
        }
    }

    #[test]
    fn headers_of_s3_that_cannot_be_sent_are_rejected() {
        for (name, attribute) in [
            ("X-Amz-Storage-Class", Attribute::StorageClass),
            ("Content-Type", Attribute::ContentType),
            ("team", Attribute::Metadata("team".into())),
            ("X-Amz-Meta-team", Attribute::Metadata("team".into())),
        ] {
            assert_eq!(entry_of(name), Ok(MetadataEntry::Attribute(attribute)), "{name}");
        }
        for name in ["x-amz-acl", "X-Amz-Grant-Read", "x-amz-grant-full-control"] {
            let header = HeaderName::try_from(name.to_ascii_lowercase()).unwrap();
            assert_eq!(entry_of(name), Ok(MetadataEntry::Header(header)), "{name}");
        }
        for name in ["x-amz-object-lock-mode", "X-Amz-Server-Side-Encryption", "x-amz-grant- read"] {
            assert!(entry_of(name).is_err_and(|error| error.contains(name)), "{name}");
        }
    }

    #[test]
    fn a_bucket_with_dots_is_not_a_part_of_a_host_with_tls() {
        let hosted = |yaml: &str| match &crate::BucketConfig::parse(yaml).expect("a configuration").provider {
            crate::config::Provider::S3(config) => config.is_virtual_hosted,
            _ => panic!("not S3"),
        };
        let yaml = |bucket: &str, more: &str| {
            format!("type: S3\nconfig: {{bucket: {bucket}, endpoint: s3.eu-west-1.amazonaws.com{more}}}")
        };
        assert!(hosted(&yaml("metrics", "")));
        assert!(!hosted(&yaml("metrics.example.com", "")));
        assert!(hosted(&yaml("metrics.example.com", ", insecure: true")));
        assert!(hosted(&yaml("metrics.example.com", ", bucket_lookup_type: virtual-hosted")));
    }
}
