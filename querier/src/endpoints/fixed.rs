//! Endpoints given by address.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use runtime::DnsResolver;
use storeapi::{Store, StoreError};
use tokio::time::Instant;

use crate::endpoints::address::{EndpointAddress, EndpointSpec};
use crate::endpoints::endpoint::Endpoint;
use crate::endpoints::group::EndpointGroup;
use crate::endpoints::options::EndpointOptions;
use crate::grpc_client::GrpcClientConfig;

/// How long DNS may take for one address.
const DNS_LIMIT: Duration = Duration::from_secs(30);

/// What lists an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum EndpointOrigin {
    /// A flag.
    Flag,
    /// A file of `--store.sd-files`.
    File,
    /// `--endpoint.sd-config`, with these settings.
    Config(GrpcClientConfig),
}

/// A configured endpoint and the endpoints that its address stands for. Clones share them.
#[derive(Clone)]
pub(super) struct FixedSource {
    pub(super) spec: EndpointSpec,
    pub(super) origin: EndpointOrigin,
    pub(super) group: EndpointGroup,
}

impl FixedSource {
    /// Its name in messages.
    pub(super) fn name(&self) -> String {
        format!("endpoint {}", self.spec.address)
    }
}

/// Looks the address up if that is due. Returns whether the endpoints have changed.
pub(super) async fn refresh(source: &FixedSource, options: &EndpointOptions) -> bool {
    let (spec, group) = (&source.spec, &source.group);
    if spec.address.is_resolved() && !group.read().is_due(options.dns_interval) {
        return false;
    }
    let before: Vec<Arc<str>> = group.read().endpoints.keys().cloned().collect();
    let settled = look_up(&spec.address, options).await.and_then(|names| match spec.replicas {
        true => settle_replicas(names, source),
        false => settle(names, spec.strict, group, options.unhealthy_timeout),
    });
    let mut content = group.write();
    match settled {
        Ok(()) => content.looked_up = Some(Instant::now()),
        Err(reason) => {
            if content.unknown.as_ref() != Some(&reason) {
                tracing::warn!(endpoint = %spec.address, error = %reason, "endpoint name cannot be resolved, keeping the known addresses");
            }
            content.unknown = Some(reason);
        }
    }
    !content.endpoints.keys().eq(&before)
}

async fn look_up(address: &EndpointAddress, options: &EndpointOptions) -> Result<Vec<String>, String> {
    if !address.is_resolved() {
        return Ok(vec![address.to_string()]);
    }
    let resolve = async {
        let resolver = match &options.resolver {
            Some(resolver) => resolver.clone(),
            None => DnsResolver::system().map_err(|cause| cause.to_string())?,
        };
        address.resolve(&resolver).await
    };
    let late = |_| Err(format!("DNS did not answer within {DNS_LIMIT:?}"));
    let found = tokio::time::timeout(DNS_LIMIT, resolve).await.unwrap_or_else(late);
    options.dns_metrics.count(found.is_ok());
    found
}

/// Asks each endpoint of the source for Info once, with a timeout of `timeout` each.
pub(super) async fn check_endpoints(source: &FixedSource, timeout: Duration) {
    let all: Vec<Arc<Endpoint>> = source.group.read().endpoints.values().cloned().collect();
    futures::future::join_all(all.iter().map(|endpoint| check(endpoint, timeout))).await;
}

/// Sets the replicas of the one endpoint of the source.
fn settle_replicas(names: Vec<String>, source: &FixedSource) -> Result<(), String> {
    let (name, group) = (source.spec.address.to_string(), &source.group);
    let members = group.read().members.clone();
    let open = |name: &str| mesh::direct_with(name, group.channel());
    members.set(names, open).map_err(|error| error.to_string())?;
    let mut content = group.write();
    if content.endpoints.is_empty() {
        let channel = group.counted(members.channel(&name));
        let endpoint = Endpoint::new(&name, channel, source.spec.strict, group.labels());
        content.endpoints.insert(name.into(), Arc::new(endpoint));
    }
    content.unknown = None;
    Ok(())
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
    let channel = group.counted(mesh::direct_with(name, group.channel())?);
    Ok(Arc::new(Endpoint::new(name, channel, strict, group.labels())))
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
}
