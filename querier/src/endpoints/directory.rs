//! Endpoints that a gateway announces in its directory.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mesh::Authority;
use proto::isthmus::mesh::v1 as wire;
use storeapi::{info_from_wire, labels_from_wire};

use crate::endpoints::endpoint::Endpoint;
use crate::endpoints::group::EndpointGroup;
use crate::endpoints::routes::{GatewayRoute, GatewayRoutes};

/// First and maximum delay before the directory is requested again. The delay doubles.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// Maximum size of a message. Gateways send about 1 MiB; those of earlier versions, the whole directory.
const SNAPSHOT_BYTES: usize = 64 << 20;

/// Watches the directory of the gateway at `address` forever. `routes` are those of all gateways. After the gateway has closed its
/// connections, requests wait for it for `patience`.
///
/// While the gateway is unreachable its stores stay known: requests for them fail visibly.
pub(super) async fn follow(address: &str, group: &EndpointGroup, routes: &GatewayRoutes, patience: Duration) {
    let opened = mesh::direct_with(address, group.channel())
        .and_then(|channel| Ok((channel, mesh::Gateway::new(address, group.channel(), patience)?)));
    let (channel, targets) = match opened {
        Ok(opened) => opened,
        Err(error) => return group.write().unknown = Some(error.to_string()),
    };
    let gateway = AnnouncingGateway { address, channel, targets: routes.add(&targets, group) };
    let mut pause = BACKOFF.0;
    loop {
        let outcome = watch(&gateway, group, &mut pause).await;
        let reason = match outcome {
            Ok(()) => "the gateway closed the directory stream".to_owned(),
            Err(status) => storeapi::StoreError::from(status).message().to_owned(),
        };
        tracing::warn!(gateway = address, error = %reason, "lost the directory of the gateway, retrying");
        group.write().unknown = Some(reason);
        // Several queriers that lost the same gateway must not reconnect at the same time.
        tokio::time::sleep(pause.mul_f64(rand::random_range(0.5..1.0))).await;
        pause = (pause * 2).min(BACKOFF.1);
    }
}

/// A gateway, and the connections to its local port.
struct AnnouncingGateway<'a> {
    address: &'a str,
    /// For requests to the gateway itself.
    channel: mesh::Channel,
    /// For requests to its targets, which share connections.
    targets: GatewayRoute,
}

async fn watch(
    gateway: &AnnouncingGateway<'_>,
    group: &EndpointGroup,
    pause: &mut Duration,
) -> Result<(), tonic::Status> {
    let mut client = wire::directory_client::DirectoryClient::new(gateway.channel.clone())
        .max_decoding_message_size(SNAPSHOT_BYTES);
    let mut snapshots = client.watch(wire::WatchRequest { changes: true }).await?.into_inner();
    let mut whole = BTreeMap::new();
    while let Some(snapshot) = snapshots.message().await? {
        *pause = BACKOFF.0;
        apply(gateway, group, &mut whole, snapshot);
    }
    Ok(())
}

/// Applies a message: changes at once, the whole directory when its last message is there. `whole` is what has arrived of it.
/// Endpoints that stay keep their connection.
fn apply(
    gateway: &AnnouncingGateway<'_>,
    group: &EndpointGroup,
    whole: &mut BTreeMap<Arc<str>, Arc<Endpoint>>,
    snapshot: wire::DirectorySnapshot,
) {
    let mut received = BTreeMap::new();
    for entry in snapshot.entries {
        let endpoint = endpoint(gateway, group, entry);
        received.insert(Arc::from(endpoint.name()), endpoint);
    }
    let mut content = group.write();
    let removed: Vec<Arc<str>> = if snapshot.is_change {
        content.endpoints.extend(received);
        snapshot.removed.into_iter().map(Arc::from).collect()
    } else {
        whole.extend(received);
        if snapshot.continues {
            return;
        }
        let before = std::mem::replace(&mut content.endpoints, std::mem::take(whole));
        before.into_keys().filter(|name| !content.endpoints.contains_key(name)).collect()
    };
    content.unknown = None;
    for name in removed {
        content.endpoints.remove(&name);
        tracing::info!(store = %name, gateway = gateway.address, "store was removed from the directory");
    }
}

/// The endpoint of an entry, with its state.
///
/// A name that is not a target is that of a registered cluster that never connected. Its stores are unknown,
/// so the cluster represents them and is reported as missing as a whole. It is never healthy, so its channel
/// is never used.
fn endpoint(
    gateway: &AnnouncingGateway<'_>,
    group: &EndpointGroup,
    mut entry: wire::DirectoryEntry,
) -> Arc<Endpoint> {
    let target = entry.name.parse::<Authority>();
    if let (Err(cause), true) = (&target, entry.healthy) {
        (entry.healthy, entry.last_error) = (false, cause.to_string());
    }
    let known = group.read().endpoints.get(entry.name.as_str()).cloned();
    let endpoint = known.unwrap_or_else(|| {
        let channel = match target {
            Ok(target) => gateway.targets.channel(&target),
            Err(_) => gateway.channel.clone(),
        };
        Arc::new(Endpoint::new(&entry.name, group.counted(channel), true, group.labels()))
    });
    update(&endpoint, entry);
    endpoint
}

fn update(endpoint: &Endpoint, entry: wire::DirectoryEntry) {
    let info = entry.info.map(info_from_wire).transpose();
    let bound = labels_from_wire(entry.bound_labels.as_ref().map_or(&[], |set| &set.labels));
    endpoint.update(|state| {
        state.transport = entry.transport;
        state.round_trip =
            Duration::try_from_secs_f64(entry.round_trip_seconds).ok().filter(|length| !length.is_zero());
        state.last_check = entry.last_check.and_then(|at| SystemTime::try_from(at).ok());
        state.last_error = match entry.healthy {
            true => None,
            false if entry.last_error.is_empty() => {
                Some("its gateway reports it as not healthy, without a cause".to_owned())
            }
            false => Some(entry.last_error),
        };
        match info {
            Ok(Some(info)) => state.info = Some(Arc::new(info)),
            Ok(None) => {}
            Err(error) => state.last_error = Some(error.message().to_owned()),
        }
        match bound {
            Ok(bound) => state.bound = bound,
            Err(error) => state.last_error = Some(format!("bound labels: {error}")),
        }
    });
}
