//! The TLS of a target.

use std::path::Path;

use runtime::yaml::{Mistakes, YamlFields, YamlNode};
use runtime::{ClientTlsFields, system_tls};
use tls::{ClientTlsOptions, TlsVersion};

/// Reads the field `tls` of a target. An empty mapping means the CAs of the system and the host of the address.
pub(super) fn read_target_tls(
    path: String,
    node: &YamlNode,
    folder: &Path,
    mistakes: &Mistakes,
) -> ClientTlsOptions {
    let base = system_tls(TlsVersion::Tls13, vec![b"h2"]);
    let mut fields = YamlFields::new(path, node, mistakes);
    let options = ClientTlsFields::read_given(&mut fields).over(&base, folder);
    let options = options.map_err(|text| fields.wrong("cert_file", text));
    fields.finish();
    options.unwrap_or(base)
}
