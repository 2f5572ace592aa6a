//! Names in the mesh: trust domains, clusters, components, and the SPIFFE id that contains all three.
//!
//! ```text
//! spiffe://<trust domain>/cluster/<cluster>/<component>     the only URI SAN of a leaf
//! <component>.<cluster>.<trust domain>                      the only DNS SAN, the mirror of the URI
//! ```
//!
//! This grammar is stricter than the SPIFFE specification on purpose. Every part is a DNS label, so that the
//! mirror is unambiguous and stock TLS libraries can restrict it with DNS name constraints (they cannot
//! restrict URIs).

use std::{fmt, str::FromStr, sync::Arc};

/// Longest trust domain. With it a mirrored DNS name has at most 253 characters (63 + 1 + 63 + 1 + 125).
const MAX_TRUST_DOMAIN_LEN: usize = 125;
const MAX_LABEL_LEN: usize = 63;

/// The name of a cluster or component: a DNS label of 1 to 63 characters `a-z 0-9 -`, without `-` at either
/// end.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Arc<str>);

impl Name {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A trust domain, such as `prod.example.org`: DNS labels joined by single dots, 1 to 125 characters in all.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrustDomain(Arc<str>);

impl TrustDomain {
    /// The trust domain as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The identity of a component in the mesh. Identities are compared part by part, never by a string prefix.
///
/// ```
/// let id: identity::SpiffeId = "spiffe://prod.example/cluster/eu-1/gateway".parse()?;
/// assert_eq!(id.cluster().as_str(), "eu-1");
/// assert_eq!(id.dns_name(), "gateway.eu-1.prod.example");
/// # Ok::<(), identity::NameError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpiffeId {
    trust_domain: TrustDomain,
    cluster: Name,
    component: Name,
}

impl SpiffeId {
    /// Makes the identity of a component in a cluster of a trust domain.
    pub fn new(trust_domain: TrustDomain, cluster: Name, component: Name) -> Self {
        Self { trust_domain, cluster, component }
    }

    /// The trust domain.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The cluster.
    pub fn cluster(&self) -> &Name {
        &self.cluster
    }

    /// The component, such as `gateway`.
    pub fn component(&self) -> &Name {
        &self.component
    }

    /// The identity as in the DNS SAN, `<component>.<cluster>.<trust domain>`; at most 253 characters.
    pub fn dns_name(&self) -> String {
        format!("{}.{}.{}", self.component, self.cluster, self.trust_domain)
    }
}

/// Why a text is not a valid name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {text:?}: {reason}")]
pub struct NameError {
    what: &'static str,
    text: String,
    reason: &'static str,
}

impl NameError {
    fn new(what: &'static str, text: &str, reason: &'static str) -> Self {
        // The text is untrusted: it is printed escaped (by `{:?}`) and truncated, so that it cannot forge or
        // flood a log.
        let text = text.chars().take(120).collect();
        Self { what, text, reason }
    }
}

fn check_label(text: &str) -> Result<(), &'static str> {
    if text.is_empty() || text.len() > MAX_LABEL_LEN {
        return Err("each part must have 1 to 63 characters");
    }
    if !text.bytes().all(|c| matches!(c, b'a'..=b'z' | b'0'..=b'9' | b'-')) {
        return Err("use only a-z, 0-9 and '-'");
    }
    if text.starts_with('-') || text.ends_with('-') {
        return Err("must not begin or end with '-'");
    }
    Ok(())
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        check_label(text).map_err(|reason| NameError::new("name", text, reason))?;
        Ok(Self(text.into()))
    }
}

impl FromStr for TrustDomain {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let refuse = |reason| NameError::new("trust domain", text, reason);
        if text.len() > MAX_TRUST_DOMAIN_LEN {
            return Err(refuse("must have at most 125 characters"));
        }
        text.split('.').try_for_each(check_label).map_err(refuse)?;
        Ok(Self(text.into()))
    }
}

impl FromStr for SpiffeId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let refuse = |reason| NameError::new("SPIFFE id", text, reason);
        const SHAPE: &str = "must be spiffe://<trust domain>/cluster/<cluster>/<component>";
        let rest = text.strip_prefix("spiffe://").ok_or_else(|| refuse(SHAPE))?;
        let mut parts = rest.split('/');
        let (Some(domain), Some("cluster"), Some(cluster), Some(component), None) =
            (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(refuse(SHAPE));
        };
        let trust_domain = domain.parse().map_err(|e: NameError| refuse(e.reason))?;
        let cluster = cluster.parse().map_err(|e: NameError| refuse(e.reason))?;
        let component = component.parse().map_err(|e: NameError| refuse(e.reason))?;
        Ok(Self { trust_domain, cluster, component })
    }
}

macro_rules! text_form {
    ($type:ty) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}
text_form!(Name);
text_form!(TrustDomain);

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}/cluster/{}/{}", self.trust_domain, self.cluster, self.component)
    }
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_valid_id_is_parsed_and_printed_unchanged() {
        let text = "spiffe://prod.isthmus.test/cluster/eu-1/gateway";
        let id: SpiffeId = text.parse().unwrap();
        assert_eq!(id.trust_domain().as_str(), "prod.isthmus.test");
        assert_eq!((id.cluster().as_str(), id.component().as_str()), ("eu-1", "gateway"));
        assert_eq!(id.dns_name(), "gateway.eu-1.prod.isthmus.test");
        assert_eq!(id.to_string(), text);
    }

    #[test]
    fn an_id_outside_the_grammar_is_rejected() {
        let long_label = format!("spiffe://td/cluster/{}/gateway", "a".repeat(64));
        let long_domain = format!("spiffe://{}x/cluster/c/gateway", "a.".repeat(63));
        for bad in [
            "",
            "spiffe://",
            "spiffe://td",
            "spiffe://td/",
            "spiffe://td/cluster/eu-1",
            "spiffe://td/cluster/eu-1/",
            "spiffe://td/cluster/eu-1/gateway/",
            "spiffe://td/cluster/eu-1/gateway/x",
            "spiffe://td/cluster//gateway",
            "spiffe:///cluster/eu-1/gateway",
            "spiffe://td/node/eu-1/gateway",
            "spiffe://td/cluster/./gateway",
            "spiffe://td/cluster/../gateway",
            "spiffe://td/cluster/EU-1/gateway",
            "spiffe://TD/cluster/eu-1/gateway",
            "SPIFFE://td/cluster/eu-1/gateway",
            "https://td/cluster/eu-1/gateway",
            "spiffe://td:443/cluster/eu-1/gateway",
            "spiffe://user@td/cluster/eu-1/gateway",
            "spiffe://td/cluster/eu%2d1/gateway",
            "spiffe://td/cluster/eu-1/gateway?x=1",
            "spiffe://td/cluster/eu-1/gateway#x",
            "spiffe://td/cluster/eu-1\0/gateway",
            "spiffe://td/cluster/eu_1/gateway",
            "spiffe://td/cluster/eu.1/gateway",
            "spiffe://td/cluster/-eu/gateway",
            "spiffe://td/cluster/eu-/gateway",
            "spiffe://td./cluster/eu-1/gateway",
            "spiffe://.td/cluster/eu-1/gateway",
            "spiffe://a..b/cluster/eu-1/gateway",
            "spiffe://td/cluster/еu-1/gateway", // the first letter is Cyrillic
            " spiffe://td/cluster/eu-1/gateway",
            &long_label,
            &long_domain,
        ] {
            assert!(bad.parse::<SpiffeId>().is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn the_error_quotes_the_text_and_the_rule() {
        let error = "EU".parse::<Name>().unwrap_err();
        assert_eq!(error.to_string(), "name \"EU\": use only a-z, 0-9 and '-'");
        let flood = "a\n".repeat(5000).parse::<TrustDomain>().unwrap_err().to_string();
        assert!(flood.len() < 400 && !flood.contains('\n'), "{flood}");
    }

    proptest! {
        #[test]
        fn parsing_never_panics_and_valid_ids_round_trip(text in "(spiffe://)?[a-z0-9./:%-]{0,80}|.{0,60}") {
            if let Ok(id) = text.parse::<SpiffeId>() {
                prop_assert_eq!(id.to_string(), text);
                prop_assert!(id.dns_name().len() <= 253);
            }
        }
    }
}
