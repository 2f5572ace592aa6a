//! The TLS of a client in a configuration file.

use std::path::Path;

use tls::{ClientTlsOptions, PemSource, TlsVersion};

use crate::yaml::{YamlFields, YamlNode};

/// The fields of `tls_config` as Prometheus and Thanos have them. `Some` of an empty text is a field that is there and empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientTlsFields {
    /// `ca_file`.
    pub ca: Option<String>,
    /// `cert_file`.
    pub cert: Option<String>,
    /// `key_file`.
    pub key: Option<String>,
    /// `server_name`.
    pub server_name: Option<String>,
    /// `insecure_skip_verify`.
    pub skip_verify: Option<bool>,
    /// `min_version`.
    pub min_version: Option<TlsVersion>,
    /// CAs, certificate and key that are texts of the file itself, instead of paths. They are read by the caller.
    pub inline_ca: Option<PemSource>,
    /// The same for the certificate.
    pub inline_cert: Option<PemSource>,
    /// The same for its key.
    pub inline_key: Option<PemSource>,
}

impl ClientTlsFields {
    /// Reads the fields, of which each is optional and may be empty, as in Prometheus and Thanos.
    pub fn read(fields: &mut YamlFields<'_>) -> Self {
        // An empty version is that of the base.
        let version = fields.node("min_version");
        let has_version = version.is_some_and(|node| !matches!(node.text_if_any(), Ok(None)));
        Self::read_with(fields, |node| Ok(node.text_if_any()?.unwrap_or_default().to_owned()), has_version)
    }

    /// Reads the fields, of which each is optional. Empty texts are mistakes.
    pub fn read_given(fields: &mut YamlFields<'_>) -> Self {
        Self::read_with(fields, |node| node.text().map(str::to_owned), true)
    }

    fn read_with(
        fields: &mut YamlFields<'_>,
        text: fn(&YamlNode) -> Result<String, String>,
        has_version: bool,
    ) -> Self {
        let mut text = |name| fields.optional(name, text);
        Self {
            ca: text("ca_file"),
            cert: text("cert_file"),
            key: text("key_file"),
            server_name: text("server_name"),
            skip_verify: fields.optional("insecure_skip_verify", YamlNode::boolean),
            min_version: if has_version {
                fields.optional("min_version", YamlNode::parsed::<TlsVersion>)
            } else {
                None
            },
            inline_ca: None,
            inline_cert: None,
            inline_key: None,
        }
    }

    /// The settings, with those of `base` for the fields that are missing. Paths are relative to `folder`.
    ///
    /// # Errors
    /// Only one of certificate and key is given.
    pub fn over(&self, base: &ClientTlsOptions, folder: &Path) -> Result<ClientTlsOptions, String> {
        let pem = |inline: &Option<PemSource>, text: &Option<String>, base: Option<&PemSource>| {
            inline.clone().or_else(|| match text.as_deref() {
                None => base.cloned(),
                Some("") => None,
                Some(path) => Some(PemSource::File(folder.join(path))),
            })
        };
        let (base_cert, base_key) = base.identity.as_ref().map(|(cert, key)| (cert, key)).unzip();
        let cert = pem(&self.inline_cert, &self.cert, base_cert);
        let identity = match (cert, pem(&self.inline_key, &self.key, base_key)) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            _ => return Err("only one of cert_file and key_file is given, give both".to_owned()),
        };
        let server_name = self.server_name.clone().or_else(|| base.server_name.clone());
        Ok(ClientTlsOptions {
            ca: pem(&self.inline_ca, &self.ca, base.ca.as_ref()),
            identity,
            server_name: server_name.filter(|name| !name.is_empty()),
            skip_verify: self.skip_verify.unwrap_or(base.skip_verify),
            min_version: self.min_version.unwrap_or(base.min_version),
            alpn: base.alpn.clone(),
        })
    }
}

/// Settings that trust the CAs of the system, for a client that speaks the protocols `alpn` and at least `min_version`.
pub fn system_tls(min_version: TlsVersion, alpn: Vec<&'static [u8]>) -> ClientTlsOptions {
    ClientTlsOptions { ca: None, identity: None, server_name: None, skip_verify: false, min_version, alpn }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml::Mistakes;

    fn read(text: &str) -> ClientTlsFields {
        let (node, mistakes) = (YamlNode::parse(text).unwrap(), Mistakes::default());
        let mut fields = YamlFields::new("tls", &node, &mistakes);
        let read = ClientTlsFields::read(&mut fields);
        fields.finish();
        assert!(mistakes.into_sorted().is_empty(), "{text}");
        read
    }

    #[test]
    fn fields_replace_those_of_the_base_and_empty_ones_remove_them() {
        let mut base = system_tls(TlsVersion::Tls13, vec![b"h2"]);
        base.ca = Some("/base/ca".into());
        base.identity = Some(("/base/cert".into(), "/base/key".into()));
        let over = |text: &str| read(text).over(&base, Path::new("/dir"));
        assert_eq!(over("{}").unwrap(), base);
        let all = "{ca_file: ca, cert_file: /c, key_file: k, server_name: store, insecure_skip_verify: true, min_version: '1.2'}";
        let expected = ClientTlsOptions {
            ca: Some("/dir/ca".into()),
            identity: Some(("/c".into(), "/dir/k".into())),
            server_name: Some("store".to_owned()),
            skip_verify: true,
            min_version: TlsVersion::Tls12,
            alpn: vec![b"h2"],
        };
        assert_eq!(over(all).unwrap(), expected);
        assert_eq!(over("{min_version: ''}").unwrap(), base);
        let none = over("{ca_file: '', cert_file: '', key_file: ''}").unwrap();
        assert_eq!((none.ca, none.identity), (None, None));
        assert!(over("{cert_file: ''}").unwrap_err().contains("only one of cert_file and key_file"));
    }
}
