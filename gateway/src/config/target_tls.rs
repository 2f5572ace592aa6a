//! The TLS of a target.

use std::path::Path;

use runtime::yaml::{Mistakes, YamlFields, YamlNode};
use tls::{ClientTlsOptions, TlsVersion};

/// Reads the field `tls` of a target. An empty mapping means the CAs of the system and the host of the address.
pub(super) fn read_target_tls(
    path: String,
    node: &YamlNode,
    folder: &Path,
    mistakes: &Mistakes,
) -> ClientTlsOptions {
    let mut fields = YamlFields::new(path, node, mistakes);
    let mut file = |name| fields.optional(name, |node| node.text().map(|text| folder.join(text)));
    let (ca, cert, key) = (file("ca_file"), file("cert_file"), file("key_file"));
    let identity = cert.zip(key);
    if identity.is_none() && (fields.node("cert_file").is_some() || fields.node("key_file").is_some()) {
        fields.wrong("cert_file", "and key_file: only one of them is given, give both");
    }
    let server_name = fields.optional("server_name", |node| node.text().map(str::to_owned));
    let skip_verify = fields.optional("insecure_skip_verify", YamlNode::boolean).unwrap_or(false);
    let min_version = fields.optional("min_version", YamlNode::parsed::<TlsVersion>);
    fields.finish();
    let min_version = min_version.unwrap_or(TlsVersion::Tls13);
    ClientTlsOptions { ca, identity, server_name, skip_verify, min_version, alpn: vec![b"h2"] }
}
