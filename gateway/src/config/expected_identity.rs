//! Which cluster a configuration file is for.
//!
//! A file that was written for one cluster and a token that was written for another one are a mistake that nothing else shows:
//! the gateway would join, and the observability side would read one cluster under the name of another.

use identity::{Name, SpiffeId, TrustDomain};
use pki::JoinToken;
use runtime::yaml::{Mistakes, YamlFields, YamlNode};

/// The cluster that a configuration file is for. What is not given is not compared.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExpectedIdentity {
    trust_domain: Option<TrustDomain>,
    cluster: Option<Name>,
    environment: Option<String>,
}

impl ExpectedIdentity {
    /// Compares it with a token, which need not be used for that. A token does not contain the environment.
    ///
    /// # Errors
    /// The first field that differs, and what to do, in one line.
    pub(crate) fn check_token(&self, token: &JoinToken) -> Result<(), String> {
        self.check_id(&token.subject(), "the token is")
    }

    /// Compares it with the certificate of this gateway and the registered environment.
    ///
    /// # Errors
    /// As for [`check_token`](Self::check_token).
    pub(crate) fn check_member(&self, id: &SpiffeId, environment: &str) -> Result<(), String> {
        self.check_id(id, "the certificate is")?;
        let expected = self.environment.as_deref();
        check("environment", expected, environment, "the certificate is")
    }

    fn check_id(&self, id: &SpiffeId, found_in: &str) -> Result<(), String> {
        let domain = self.trust_domain.as_ref().map(TrustDomain::as_str);
        check("trust_domain", domain, id.trust_domain().as_str(), found_in)?;
        check("cluster", self.cluster.as_ref().map(Name::as_str), id.cluster().as_str(), found_in)
    }
}

fn check(field: &str, expected: Option<&str>, found: &str, found_in: &str) -> Result<(), String> {
    match expected {
        Some(expected) if expected != found => Err(format!(
            "identity.{field}: is {expected:?}, but {found_in} for {found:?}; use the configuration, the token and the data \
             directory of one cluster"
        )),
        _ => Ok(()),
    }
}

pub(super) fn read_expected_identity(node: &YamlNode, mistakes: &Mistakes) -> ExpectedIdentity {
    let mut fields = YamlFields::new("identity", node, mistakes);
    let trust_domain = fields.optional("trust_domain", YamlNode::parsed::<TrustDomain>);
    let cluster = fields.optional("cluster", YamlNode::parsed::<Name>);
    let environment = fields.optional("environment", |node| node.text().map(str::to_owned));
    fields.finish();
    ExpectedIdentity { trust_domain, cluster, environment }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_field_that_differs_is_named() {
        let id = "spiffe://prod.example/cluster/eu-1/gateway".parse().unwrap();
        let check = |yaml: &str, expected: &str| {
            let mistakes = Mistakes::default();
            let identity = read_expected_identity(&YamlNode::parse(yaml).unwrap(), &mistakes);
            assert!(mistakes.into_sorted().is_empty(), "{yaml}");
            let error = identity.check_member(&id, "production").err().unwrap_or_default();
            assert!(
                error.starts_with(expected) && error.is_empty() == expected.is_empty(),
                "{yaml}: {error}"
            );
        };
        check("{}", "");
        check("{trust_domain: prod.example, cluster: eu-1, environment: production}", "");
        check("{trust_domain: staging.example}", "identity.trust_domain: is \"staging.example\", but");
        check("{cluster: us-1}", "identity.cluster: is \"us-1\", but the certificate is for \"eu-1\"");
        check("{environment: testing}", "identity.environment: is \"testing\", but");
    }
}
