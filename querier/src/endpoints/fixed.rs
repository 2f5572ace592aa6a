//! Endpoints given by address.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use storeapi::{Store, StoreError};

use crate::endpoints::endpoint::Endpoint;
use crate::endpoints::group::EndpointGroup;

/// An endpoint flag: `host:port`, or `dns+host:port` for all addresses of the name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EndpointAddress {
    text: String,
    resolve: bool,
}

/// The text is not an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("endpoint {0:?} is not of the form HOST:PORT, or dns+HOST:PORT for each address of the name")]
pub(crate) struct EndpointAddressError(String);

impl EndpointAddress {
    /// Whether it is resolved to one endpoint per address.
    pub(crate) fn is_resolved(&self) -> bool {
        self.resolve
    }
}

impl FromStr for EndpointAddress {
    type Err = EndpointAddressError;

    fn from_str(text: &str) -> Result<Self, EndpointAddressError> {
        let refuse = || EndpointAddressError(text.chars().take(140).collect());
        let (resolve, rest) = match text.split_once('+') {
            Some(("dns", rest)) => (true, rest),
            Some(_) => return Err(refuse()),
            None => (false, text),
        };
        let authority: http::uri::Authority = rest.parse().map_err(|_| refuse())?;
        if authority.host().is_empty() || authority.port_u16().is_none() || rest.contains('@') {
            return Err(refuse());
        }
        // Names are compared without regard to case, so that a store that is given twice is asked once.
        Ok(Self { text: rest.to_ascii_lowercase(), resolve })
    }
}

impl fmt::Display for EndpointAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.resolve { "dns+" } else { "" })?;
        f.write_str(&self.text)
    }
}

/// Resolves the address and asks each of its endpoints for Info once, with a timeout of `timeout` each.
pub(super) async fn check_endpoints(
    address: &EndpointAddress,
    strict: bool,
    group: &EndpointGroup,
    timeout: Duration,
    linger: Duration,
) {
    let settled = match resolve(address, timeout).await {
        Ok(names) => settle(names, strict, group, linger),
        Err(reason) => {
            tracing::warn!(endpoint = %address, error = %reason, "endpoint name cannot be resolved, keeping the known addresses");
            // The known endpoints are kept.
            Err(reason)
        }
    };
    if let Err(reason) = settled {
        group.write().unknown = Some(reason);
    }
    let all: Vec<Arc<Endpoint>> = group.read().endpoints.values().cloned().collect();
    futures::future::join_all(all.iter().map(|endpoint| check(endpoint, timeout))).await;
}

/// Sets the endpoints of the group to `names`.
///
/// DNS stops returning an address when its store is removed, when the store gets another address, and when
/// the store is temporarily unhealthy. Therefore the endpoint is kept, and reported as missing if it does not
/// answer, until a healthy endpoint announces the same label sets, or for `linger` at most.
pub(super) fn settle(
    names: Vec<String>,
    strict: bool,
    group: &EndpointGroup,
    linger: Duration,
) -> Result<(), String> {
    let known = group.read().endpoints.clone();
    let mut endpoints = BTreeMap::new();
    for name in names {
        let endpoint = match known.get(name.as_str()) {
            Some(endpoint) => Arc::clone(endpoint),
            None => connect(&name, strict, group).map_err(|error| error.to_string())?,
        };
        endpoint.update(|state| state.left = None);
        endpoints.insert(Arc::from(name), endpoint);
    }
    let left = known.into_iter().filter(|(name, _)| !endpoints.contains_key(name)).collect::<Vec<_>>();
    for (name, endpoint) in left {
        let replaced = endpoints.values().any(|other| other.replaces(&endpoint));
        if !replaced && endpoint.left_for() < linger {
            endpoints.insert(name, endpoint);
        } else {
            tracing::info!(store = %name, replaced, "store was removed, DNS no longer returns its address");
        }
    }
    let mut group = group.write();
    group.endpoints = endpoints;
    group.unknown = None;
    Ok(())
}

fn connect(name: &str, strict: bool, group: &EndpointGroup) -> Result<Arc<Endpoint>, mesh::ChannelError> {
    let channel = mesh::direct_with(name, group.channel())?;
    Ok(Arc::new(Endpoint::new(name, channel, strict, group.labels())))
}

async fn resolve(address: &EndpointAddress, timeout: Duration) -> Result<Vec<String>, String> {
    if !address.resolve {
        return Ok(vec![address.text.clone()]);
    }
    let looked_up = tokio::time::timeout(timeout, tokio::net::lookup_host(&address.text)).await;
    match looked_up {
        Ok(Ok(found)) => {
            let names: Vec<String> = found.map(|address| address.to_string()).collect();
            if names.is_empty() { Err("DNS has no address for this name".to_owned()) } else { Ok(names) }
        }
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("DNS did not answer within {timeout:?}")),
    }
}

async fn check(endpoint: &Endpoint, timeout: Duration) {
    let answer = tokio::time::timeout(timeout, endpoint.client().info()).await;
    let late = || Err(StoreError::unanswered(format!("no answer to Info within {timeout:?}")));
    endpoint.checked(answer.unwrap_or_else(|_| late()));
}

#[cfg(test)]
mod tests {
    use model::{Labels, TimeRange};
    use storeapi::StoreInfo;
    use tokio::time::advance;

    use super::*;

    const LINGER: Duration = Duration::from_secs(300);

    fn listed(group: &EndpointGroup) -> Vec<String> {
        group.read().endpoints.keys().map(|name| name.to_string()).collect()
    }

    fn settle_to(group: &EndpointGroup, names: &[&str]) -> Vec<String> {
        settle(names.iter().map(|name| name.to_string()).collect(), false, group, LINGER).unwrap();
        listed(group)
    }

    fn answers(group: &EndpointGroup, name: &str, replica: &str) {
        let labels = Labels::from_pairs([("replica", replica)]).unwrap();
        let info = StoreInfo::new("sidecar", vec![labels], TimeRange::ALL);
        group.read().endpoints[name].checked(Ok(info));
    }

    #[tokio::test(start_paused = true)]
    async fn removed_address_is_reported_missing_until_a_store_with_its_labels_appears() {
        let group = EndpointGroup::default();
        settle_to(&group, &["10.0.0.1:1", "10.0.0.2:1"]);
        answers(&group, "10.0.0.1:1", "0");
        answers(&group, "10.0.0.2:1", "1");
        // Replica 1 is unhealthy, and DNS no longer returns its address.
        assert_eq!(settle_to(&group, &["10.0.0.1:1"]), ["10.0.0.1:1", "10.0.0.2:1"]);
        advance(LINGER / 2).await;
        // It gets another address. Until that one answers, the old one is still missing.
        assert_eq!(settle_to(&group, &["10.0.0.1:1", "10.0.0.3:1"]).len(), 3);
        answers(&group, "10.0.0.3:1", "1");
        assert_eq!(settle_to(&group, &["10.0.0.1:1", "10.0.0.3:1"]), ["10.0.0.1:1", "10.0.0.3:1"]);
    }

    #[tokio::test(start_paused = true)]
    async fn removed_address_without_replacement_is_dropped_after_the_timeout() {
        let group = EndpointGroup::default();
        settle_to(&group, &["10.0.0.1:1", "10.0.0.2:1"]);
        answers(&group, "10.0.0.1:1", "0");
        answers(&group, "10.0.0.2:1", "1");
        settle_to(&group, &["10.0.0.1:1"]);
        advance(LINGER / 2).await;
        // It returns for a moment. The time starts again when it is removed again.
        settle_to(&group, &["10.0.0.1:1", "10.0.0.2:1"]);
        settle_to(&group, &["10.0.0.1:1"]);
        advance(LINGER * 3 / 4).await;
        assert_eq!(settle_to(&group, &["10.0.0.1:1"]).len(), 2);
        advance(LINGER / 4).await;
        assert_eq!(settle_to(&group, &["10.0.0.1:1"]), ["10.0.0.1:1"]);
    }

    #[test]
    fn invalid_addresses_are_rejected_with_the_expected_form() {
        for good in ["127.0.0.1:10901", "store.example:1", "[::1]:10901", "dns+stores.svc:10901"] {
            assert_eq!(good.parse::<EndpointAddress>().unwrap().to_string(), good);
        }
        assert_eq!("Store.Example:1".parse::<EndpointAddress>(), "store.example:1".parse());
        for bad in ["store", ":10901", "http://store:10901", "dnssrv+x:1", "a@b:1", "store:port", ""] {
            let error = bad.parse::<EndpointAddress>().unwrap_err().to_string();
            assert!(error.contains(&format!("{bad:?}")) && error.contains("HOST:PORT"), "{error}");
        }
    }
}
