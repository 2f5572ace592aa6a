//! Endpoints that were given by address.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use storeapi::{Store, StoreError};

use crate::endpoints::{Endpoint, SharedGroup, read, write};

/// An endpoint as the flags give it: `host:port`, or `dns+host:port` for all addresses that the name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    text: String,
    resolve: bool,
}

/// A text that is no endpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("endpoint {0:?}: write HOST:PORT, or dns+HOST:PORT for every address that the name stands for")]
pub(crate) struct AddressError(String);

impl Address {
    /// Whether it stands for as many endpoints as its name has addresses.
    pub(crate) fn is_resolved(&self) -> bool {
        self.resolve
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let refuse = || AddressError(text.chars().take(140).collect());
        let (resolve, rest) = match text.split_once('+') {
            Some(("dns", rest)) => (true, rest),
            Some(_) => return Err(refuse()),
            None => (false, text),
        };
        let authority: http::uri::Authority = rest.parse().map_err(|_| refuse())?;
        if authority.host().is_empty() || authority.port_u16().is_none() || rest.contains('@') {
            return Err(refuse());
        }
        Ok(Self { text: rest.to_owned(), resolve })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.resolve { "dns+" } else { "" })?;
        f.write_str(&self.text)
    }
}

/// Resolves the address and asks every endpoint behind it for Info once, each for at most `timeout`.
pub(super) async fn round(
    address: &Address,
    strict: bool,
    group: &SharedGroup,
    timeout: Duration,
    linger: Duration,
) {
    let settled = match names(address, timeout).await {
        Ok(names) => settle(names, strict, group, linger),
        Err(reason) => {
            tracing::warn!(endpoint = %address, error = %reason, "resolve endpoint");
            // Those that are known stay.
            Err(reason)
        }
    };
    if let Err(reason) = settled {
        write(group).unknown = Some(reason);
    }
    let all: Vec<Arc<Endpoint>> = read(group).endpoints.values().cloned().collect();
    futures::future::join_all(all.iter().map(|endpoint| ask(endpoint, timeout))).await;
}

/// Makes `names` the group's endpoints.
///
/// An address leaves a name when its store goes for good, when it comes back under another address, and when it is merely
/// not well. It stays, and is missed if it does not answer, until a healthy endpoint announces the same label sets, but
/// for `linger` at most: by then it is taken to be gone for good.
pub(super) fn settle(
    names: Vec<String>,
    strict: bool,
    group: &SharedGroup,
    linger: Duration,
) -> Result<(), String> {
    let known = read(group).endpoints.clone();
    let mut endpoints = BTreeMap::new();
    for name in names {
        let endpoint = match known.get(name.as_str()) {
            Some(endpoint) => Arc::clone(endpoint),
            None => connect(&name, strict).map_err(|error| error.to_string())?,
        };
        endpoint.update(|state| state.left = None);
        endpoints.insert(Arc::from(name), endpoint);
    }
    let left = known.into_iter().filter(|(name, _)| !endpoints.contains_key(name)).collect::<Vec<_>>();
    for (name, endpoint) in left {
        let replaced = endpoints.values().any(|other| other.stands_in_for(&endpoint));
        if !replaced && endpoint.left_for() < linger {
            endpoints.insert(name, endpoint);
        } else {
            tracing::info!(store = %name, replaced, "store has left");
        }
    }
    let mut group = write(group);
    group.endpoints = endpoints;
    group.unknown = None;
    Ok(())
}

fn connect(name: &str, strict: bool) -> Result<Arc<Endpoint>, mesh::Error> {
    Ok(Arc::new(Endpoint::new(name, mesh::direct(name)?, strict)))
}

async fn names(address: &Address, timeout: Duration) -> Result<Vec<String>, String> {
    if !address.resolve {
        return Ok(vec![address.text.clone()]);
    }
    let looked_up = tokio::time::timeout(timeout, tokio::net::lookup_host(&address.text)).await;
    match looked_up {
        Ok(Ok(found)) => {
            let names: Vec<String> = found.map(|address| address.to_string()).collect();
            if names.is_empty() { Err("the name has no address".to_owned()) } else { Ok(names) }
        }
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer from DNS in {timeout:?}")),
    }
}

async fn ask(endpoint: &Endpoint, timeout: Duration) {
    let answer = tokio::time::timeout(timeout, endpoint.client().info()).await;
    let late = || Err(StoreError::unavailable(format!("no answer to Info in {timeout:?}")));
    endpoint.checked(answer.unwrap_or_else(|_| late()));
}

#[cfg(test)]
mod tests {
    use model::{Labels, TimeRange};
    use storeapi::StoreInfo;
    use tokio::time::advance;

    use super::*;

    const LINGER: Duration = Duration::from_secs(300);

    fn listed(group: &SharedGroup) -> Vec<String> {
        read(group).endpoints.keys().map(|name| name.to_string()).collect()
    }

    fn settle_to(group: &SharedGroup, names: &[&str]) -> Vec<String> {
        settle(names.iter().map(|name| name.to_string()).collect(), false, group, LINGER).unwrap();
        listed(group)
    }

    fn answers(group: &SharedGroup, name: &str, replica: &str) {
        let labels = Labels::from_pairs([("replica", replica)]).unwrap();
        let info = StoreInfo::new("sidecar", vec![labels], TimeRange::ALL);
        read(group).endpoints[name].checked(Ok(info));
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_left_its_name_is_missed_until_another_stands_in_for_it() {
        let group = SharedGroup::default();
        settle_to(&group, &["10.0.0.1:1", "10.0.0.2:1"]);
        answers(&group, "10.0.0.1:1", "0");
        answers(&group, "10.0.0.2:1", "1");
        // Replica 1 is not well, and its address left the name.
        assert_eq!(settle_to(&group, &["10.0.0.1:1"]), ["10.0.0.1:1", "10.0.0.2:1"]);
        advance(LINGER / 2).await;
        // It comes back elsewhere; while nobody knows what is there, the old one is still missed.
        assert_eq!(settle_to(&group, &["10.0.0.1:1", "10.0.0.3:1"]).len(), 3);
        answers(&group, "10.0.0.3:1", "1");
        assert_eq!(settle_to(&group, &["10.0.0.1:1", "10.0.0.3:1"]), ["10.0.0.1:1", "10.0.0.3:1"]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_nothing_replaces_is_gone_after_a_while() {
        let group = SharedGroup::default();
        settle_to(&group, &["10.0.0.1:1", "10.0.0.2:1"]);
        answers(&group, "10.0.0.1:1", "0");
        answers(&group, "10.0.0.2:1", "1");
        settle_to(&group, &["10.0.0.1:1"]);
        advance(LINGER / 2).await;
        // Back for a moment: the time counts from the last leave.
        settle_to(&group, &["10.0.0.1:1", "10.0.0.2:1"]);
        settle_to(&group, &["10.0.0.1:1"]);
        advance(LINGER * 3 / 4).await;
        assert_eq!(settle_to(&group, &["10.0.0.1:1"]).len(), 2);
        advance(LINGER / 4).await;
        assert_eq!(settle_to(&group, &["10.0.0.1:1"]), ["10.0.0.1:1"]);
    }

    #[test]
    fn addresses_are_checked_and_errors_say_how_to_write_them() {
        for good in ["127.0.0.1:10901", "store.example:1", "[::1]:10901", "dns+stores.svc:10901"] {
            assert_eq!(good.parse::<Address>().unwrap().to_string(), good);
        }
        for bad in ["store", ":10901", "http://store:10901", "dnssrv+x:1", "a@b:1", "store:port", ""] {
            let error = bad.parse::<Address>().unwrap_err().to_string();
            assert!(error.contains(&format!("{bad:?}")) && error.contains("HOST:PORT"), "{error}");
        }
    }
}
