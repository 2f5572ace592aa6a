//! Endpoints that were given by address.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use storeapi::{Store, StoreError};

use super::{Endpoint, SharedGroup, read, write};

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
        Ok(Address { text: rest.to_owned(), resolve })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.resolve { "dns+" } else { "" })?;
        f.write_str(&self.text)
    }
}

/// Resolves the address and asks every endpoint behind it for Info once, each for at most `timeout`.
pub(super) async fn round(address: &Address, strict: bool, group: &SharedGroup, timeout: Duration) {
    let names = match names(address, timeout).await {
        Ok(names) => names,
        Err(reason) => {
            tracing::warn!(endpoint = %address, err = %reason, "resolve endpoint");
            // Those that are known stay.
            write(group).unknown = Some(reason);
            read(group).endpoints.keys().map(|name| name.to_string()).collect()
        }
    };
    let mut endpoints = BTreeMap::new();
    for name in names {
        let known = read(group).endpoints.get(name.as_str()).cloned();
        match known.map_or_else(|| connect(&name, strict), Ok) {
            Ok(endpoint) => endpoints.insert(Arc::from(name), endpoint),
            Err(error) => return write(group).unknown = Some(error.to_string()),
        };
    }
    let all: Vec<Arc<Endpoint>> = endpoints.values().cloned().collect();
    if !all.is_empty() {
        let mut group = write(group);
        group.endpoints = endpoints;
        group.unknown = None;
    }
    futures::future::join_all(all.iter().map(|endpoint| ask(endpoint, timeout))).await;
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
    use super::*;

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
