//! `pki` of the observability role: where the issuing CA is, and how it issues.

use std::path::{Path, PathBuf};
use std::time::Duration;

use identity::{Name, TrustDomain};
use pki::DeliveredIssuer;
use runtime::yaml::{Mistakes, YamlFields, YamlNode};

use crate::config::{LEAF_LIFETIME_BOUNDS, RECOVER_BOUNDS, duration};

/// The settings of `pki`.
pub(super) struct PkiSettings {
    pub(super) state: PathBuf,
    pub(super) delivered: Option<DeliveredIssuer>,
    pub(super) leaf_lifetime: Duration,
    pub(super) recover_expired: Duration,
}

/// Reads `pki`; `None` after a mistake that leaves no settings.
pub(super) fn read_pki(node: &YamlNode, folder: &Path, mistakes: &Mistakes) -> Option<PkiSettings> {
    let mut fields = YamlFields::new("pki", node, mistakes);
    let state = fields.required("state", |node| node.text().map(|text| folder.join(text)));
    let leaf_lifetime = fields.optional("leaf_lifetime", |node| duration(node, LEAF_LIFETIME_BOUNDS));
    let recover_expired = fields.optional("recover_expired", |node| duration(node, RECOVER_BOUNDS));
    let issuer_dir = fields.optional("issuer_dir", |node| node.text().map(|text| folder.join(text)));
    let trust_domain = fields.optional("trust_domain", YamlNode::parsed::<TrustDomain>);
    let cluster = fields.optional("cluster", YamlNode::parsed::<Name>);
    let delivered = match (issuer_dir, trust_domain) {
        (Some(folder), Some(trust_domain)) => {
            let cluster = cluster.unwrap_or_else(|| "observability".parse().expect("a valid name"));
            Some(DeliveredIssuer { folder, trust_domain, cluster })
        }
        (Some(_), None) => {
            fields.wrong("trust_domain", "is missing: issuer_dir needs the trust domain of the PKI");
            None
        }
        (None, trust_domain) => {
            if trust_domain.is_some() || cluster.is_some() {
                fields.wrong("issuer_dir", "is missing: trust_domain and cluster are for an issuing CA that is delivered in this folder");
            }
            None
        }
    };
    fields.finish();
    Some(PkiSettings {
        state: state?,
        delivered,
        leaf_lifetime: leaf_lifetime.unwrap_or(pki::DEFAULT_LEAF_TTL),
        recover_expired: recover_expired.unwrap_or(pki::DEFAULT_RECOVERY),
    })
}
