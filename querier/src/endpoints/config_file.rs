//! `--endpoint.sd-config`: endpoints with TLS and compression of their own, in the form of Thanos.
//!
//! ```yaml
//! default_client_config:
//!   tls_config: {enabled: true, ca_file: ca.pem}
//! endpoints:
//! - address: dns+sidecars.monitoring.svc:10901
//! - address: store.example:10901
//!   strict: true
//!   client_config: {server_name: store, compression: snappy, tls_config: {ca_file: other.pem}}
//! ```

use std::path::{Path, PathBuf};
use std::sync::Arc;

use mesh::{ChannelOptions, MessageEncoding};
use runtime::yaml::{Mistake, Mistakes, YamlFields, YamlNode};
use runtime::{ClientTlsFields, ConfigMistakes};
use tls::{Loaded, Watched};

use crate::endpoints::address::{EndpointAddress, EndpointSpec};
use crate::grpc_client::GrpcClientConfig;

/// The flag, without dashes.
const FLAG: &str = "endpoint.sd-config";

/// An endpoint of the file.
#[derive(Clone, Debug)]
pub(crate) struct ConfiguredEndpoint {
    pub(crate) spec: EndpointSpec,
    /// How it is reached, for comparisons.
    pub(crate) client: GrpcClientConfig,
    /// The same, with its files read.
    pub(crate) channel: ChannelOptions,
}

/// The endpoints of the file, which is read again when it changes.
pub(crate) type ConfiguredEndpoints = Arc<Watched<Vec<ConfiguredEndpoint>>>;

/// Reads the YAML of `--endpoint.sd-config`, or of the file of `--endpoint.sd-config-file`; `None` if neither is given.
///
/// `flags` are the settings of endpoints that have none of their own.
///
/// # Errors
/// All mistakes of the YAML, or files of TLS that cannot be used.
pub(crate) fn watch_endpoints(
    content: Option<String>,
    file: Option<PathBuf>,
    flags: GrpcClientConfig,
) -> Result<Option<ConfiguredEndpoints>, ConfigMistakes> {
    let (content, file) =
        (content.filter(|text| !text.is_empty()), file.filter(|path| !path.as_os_str().is_empty()));
    if content.is_none() && file.is_none() {
        return Ok(None);
    }
    let load = move || {
        let text = runtime::load_config(FLAG, content.as_deref(), file.as_deref());
        let text = text.map_err(|mistake| mistake.to_string())?.unwrap_or_default();
        let lines = |mistakes: Vec<Mistake>| {
            let origin = runtime::config_origin(FLAG, file.as_deref());
            let lines: Vec<String> = mistakes.iter().map(|mistake| format!("{origin}: {mistake}")).collect();
            lines.join("\n")
        };
        let value = parse(&text, &flags).map_err(lines)?;
        Ok(Loaded { value, files: file.iter().cloned().collect() })
    };
    let watched = Watched::load(format!("--{FLAG}"), load).map_err(ConfigMistakes::from)?;
    Ok(Some(Arc::new(watched)))
}

fn parse(text: &str, flags: &GrpcClientConfig) -> Result<Vec<ConfiguredEndpoint>, Vec<Mistake>> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let root = YamlNode::parse(text).map_err(|mistake| vec![mistake])?;
    let mistakes = Mistakes::default();
    let mut fields = YamlFields::new("", &root, &mistakes);
    let default = match fields.node("default_client_config") {
        Some(node) => ClientSection::read("default_client_config", node, &mistakes).resolve_default(flags),
        None => Ok(flags.clone()),
    };
    let default = default.unwrap_or_else(|text| {
        fields.wrong("default_client_config", text);
        flags.clone()
    });
    let endpoints = fields.list("endpoints", |path, node| read_endpoint(path, node, &default, &mistakes));
    fields.finish();
    let mistakes = mistakes.into_sorted();
    if mistakes.is_empty() { Ok(endpoints) } else { Err(mistakes) }
}

fn read_endpoint(
    path: String,
    node: &YamlNode,
    default: &GrpcClientConfig,
    mistakes: &Mistakes,
) -> Option<ConfiguredEndpoint> {
    let mut fields = YamlFields::new(path.clone(), node, mistakes);
    let address = fields.required("address", YamlNode::parsed::<EndpointAddress>);
    let strict = fields.optional("strict", YamlNode::boolean).unwrap_or(false);
    let replicas = fields.optional("group", YamlNode::boolean).unwrap_or(false);
    // Balancing and retries of gRPC in Go, which are built in here.
    let service_config = fields.optional("service_config", YamlNode::text_if_any).flatten();
    if service_config.is_some() && !replicas {
        fields.wrong("service_config", "is only for endpoints with group: true");
    }
    if strict && !replicas && address.as_ref().is_some_and(EndpointAddress::is_resolved) {
        fields
            .wrong("strict", "is not for addresses that are looked up in DNS; give the address of one store");
    }
    let client = match fields.node("client_config") {
        Some(node) => ClientSection::read(&fields.path_of("client_config"), node, mistakes).resolve(default),
        None => Ok(default.clone()),
    };
    let loaded = client.and_then(|client| Ok((client.load(&format!("--{FLAG}: {path}"))?, client)));
    let loaded = loaded.map_err(|text| fields.wrong("client_config", text)).ok();
    fields.finish();
    let (channel, client) = loaded?;
    Some(ConfiguredEndpoint { spec: EndpointSpec { address: address?, strict, replicas }, client, channel })
}

/// A `client_config` as it is written. `Some` of an empty path is a field that is there and empty.
#[derive(Debug, Default)]
struct ClientSection {
    enabled: Option<bool>,
    tls: ClientTlsFields,
    /// `Some(None)` for `none`.
    compression: Option<Option<MessageEncoding>>,
}

impl ClientSection {
    fn read(path: &str, node: &YamlNode, mistakes: &Mistakes) -> Self {
        let mut fields = YamlFields::new(path, node, mistakes);
        let mut section = Self::default();
        let server_name = fields.optional("server_name", YamlNode::text_if_any).flatten();
        section.compression = fields.optional("compression", |node| match node.text_if_any()? {
            None | Some("none") => Ok(None),
            Some(name) => name.parse().map(Some).map_err(|error: mesh::UnknownEncoding| error.to_string()),
        });
        if let Some(node) = fields.node("tls_config") {
            let mut tls = YamlFields::new(fields.path_of("tls_config"), node, mistakes);
            section.enabled = tls.optional("enabled", YamlNode::boolean);
            section.tls = ClientTlsFields::read(&mut tls);
            tls.finish();
        }
        // In Thanos it is beside `tls_config`.
        section.tls.server_name = server_name.map(str::to_owned).or(section.tls.server_name);
        fields.finish();
        section
    }

    fn has_files_or_skips(&self) -> bool {
        let tls = &self.tls;
        tls.cert.is_some() || tls.key.is_some() || tls.ca.is_some() || tls.skip_verify.is_some()
    }

    fn says_something_about_tls(&self) -> bool {
        self.enabled.is_some()
            || self.has_files_or_skips()
            || self.tls.min_version.is_some()
            || self.tls.server_name.is_some()
    }

    /// The settings of all endpoints without their own: those of the section instead of those of the flags, as in Thanos.
    fn resolve_default(self, flags: &GrpcClientConfig) -> Result<GrpcClientConfig, String> {
        if !self.says_something_about_tls() {
            return Ok(GrpcClientConfig {
                compression: self.compression.unwrap_or(flags.compression),
                ..flags.clone()
            });
        }
        let secure = self.enabled.unwrap_or(self.has_files_or_skips());
        self.over(&GrpcClientConfig { secure, compression: flags.compression, ..GrpcClientConfig::default() })
    }

    /// The settings of one endpoint. With `enabled`, they stand alone; without, they are added to the default.
    fn resolve(self, default: &GrpcClientConfig) -> Result<GrpcClientConfig, String> {
        if !self.says_something_about_tls() {
            return Ok(GrpcClientConfig {
                compression: self.compression.unwrap_or(default.compression),
                ..default.clone()
            });
        }
        let base = match self.enabled {
            Some(secure) => {
                GrpcClientConfig { secure, compression: default.compression, ..GrpcClientConfig::default() }
            }
            None => {
                GrpcClientConfig { secure: self.has_files_or_skips() || default.secure, ..default.clone() }
            }
        };
        self.over(&base)
    }

    /// The fields that are written, and those of `base` for the others. The name of the server is never inherited.
    fn over(self, base: &GrpcClientConfig) -> Result<GrpcClientConfig, String> {
        let mut config = base.clone();
        config.tls.server_name = None;
        config.tls =
            self.tls.over(&config.tls, Path::new("")).map_err(|text| format!("tls_config: {text}"))?;
        config.compression = self.compression.unwrap_or(config.compression);
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags() -> GrpcClientConfig {
        let mut flags = GrpcClientConfig { secure: true, ..GrpcClientConfig::default() };
        flags.tls.skip_verify = true;
        flags
    }

    fn read(text: &str) -> Vec<ConfiguredEndpoint> {
        parse(text, &flags()).unwrap_or_else(|mistakes| panic!("{text}: {mistakes:?}"))
    }

    #[test]
    fn endpoints_have_their_settings_those_of_the_file_or_those_of_the_flags() {
        assert!(read("").is_empty() && read("endpoints: []").is_empty());
        let all = read(
            "endpoints:\n- address: a:1\n- {address: dns+b:2, group: true, strict: true, service_config: '{}'}\n\
             - {address: c:3, strict: true, client_config: {tls_config: {enabled: false}}}\n\
             - {address: d:4, client_config: {compression: zstd}}\n\
             - {address: e:5, client_config: {server_name: x}}\n\
             - {address: f:6, client_config: {tls_config: {enabled: true, insecure_skip_verify: true}}}\n",
        );
        let shown: Vec<_> = all
            .iter()
            .map(|e| (e.spec.address.to_string(), e.spec.strict, e.spec.replicas, e.client.secure))
            .collect();
        let expected = [
            ("a:1", false, false, true),
            ("dns+b:2", true, true, true),
            ("c:3", true, false, false),
            ("d:4", false, false, true),
            ("e:5", false, false, true),
            ("f:6", false, false, true),
        ];
        assert_eq!(shown, expected.map(|(address, a, b, c)| (address.to_owned(), a, b, c)));
        assert_eq!(all[0].client, flags());
        assert!(all[0].channel.tls.is_some() && all[2].channel.tls.is_none());
        assert_eq!(all[3].channel.compression, Some(MessageEncoding::Zstd));
        assert_eq!(all[4].client.tls.server_name.as_deref(), Some("x"));
        assert!(all[4].client.tls.skip_verify, "added to the settings of the flags");

        let defaults = read(
            "default_client_config: {tls_config: {enabled: false}, compression: snappy}\n\
             endpoints: [{address: a:1}, {address: b:2, client_config: {tls_config: {insecure_skip_verify: true}}}]",
        );
        assert_eq!((defaults[0].client.secure, defaults[1].client.secure), (false, true));
        assert_eq!(defaults[0].channel.compression, Some(MessageEncoding::Snappy));
    }

    #[test]
    fn mistakes_name_the_line_and_the_field() {
        for (text, expected) in [
            ("endpoints: [{}]", "line 1: endpoints[0].address: is missing"),
            (
                "endpoints: [{address: nowhere}]",
                "endpoints[0].address: endpoint \"nowhere\" is not of the form",
            ),
            (
                "endpoints: [{address: dns+a:1, strict: true}]",
                "strict: is not for addresses that are looked up",
            ),
            (
                "endpoints: [{address: a:1, service_config: x}]",
                "service_config: is only for endpoints with group",
            ),
            ("endpoints: [{address: a:1, tls_config: {}}]", "endpoints[0].tls_config: unknown field"),
            ("endpoint: []", "endpoint: unknown field; known fields: default_client_config, endpoints"),
            (
                "endpoints: [{address: a:1, client_config: {compression: lz4}}]",
                "client_config.compression: encoding \"lz4\" is not supported",
            ),
            (
                "endpoints: [{address: a:1, client_config: {tls_config: {ca_file: /no/such}}}]",
                "endpoints[0].client_config: ",
            ),
            (
                "endpoints: [{address: a:1, client_config: {tls_config: {cert_file: a}}}]",
                "only one of cert_file and key_file",
            ),
            ("default_client_config: {tls_config: {min_version: '2'}}", "expected 1.2 or 1.3"),
        ] {
            let mut strict = flags();
            strict.tls.skip_verify = false;
            let mistakes = parse(text, &strict).expect_err(text);
            let lines: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
            assert!(lines.iter().any(|line| line.contains(expected)), "{text}: {lines:?}");
        }
    }

    #[test]
    fn a_changed_file_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("endpoints.yaml");
        std::fs::write(&file, "endpoints: [{address: a:1}]").unwrap();
        let watched =
            watch_endpoints(None, Some(file.clone()), GrpcClientConfig::default()).unwrap().unwrap();
        let listed = || {
            let current = watched.current();
            current.iter().map(|endpoint| endpoint.spec.address.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(listed(), ["a:1"]);
        std::fs::write(&file, "endpoints: [{address: a:1}, {address: b:2}]").unwrap();
        assert_eq!(listed(), ["a:1", "b:2"]);
        std::fs::write(&file, "endpoints: {").unwrap();
        assert_eq!(listed(), ["a:1", "b:2"], "a file with a mistake is not used");
        let both = watch_endpoints(Some("x".to_owned()), Some(file), GrpcClientConfig::default())
            .map(drop)
            .unwrap_err();
        assert!(both.to_string().contains("are both given"), "{both}");
        assert!(watch_endpoints(Some(String::new()), None, GrpcClientConfig::default()).unwrap().is_none());
    }
}
