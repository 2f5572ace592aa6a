//! Serves the admin socket of a gateway, with the reports of its role.

use std::{path::Path, sync::Arc, time::SystemTime};

use identity::Name;
use proto::isthmus::mesh::v1::{DirectoryEntry, Target, Targets};
use runtime::{Shutdown, Startup};
use tokio::sync::watch;

use crate::admin::{
    report::TargetReport,
    server::AdminSocket,
    view::{GatewayView, label_texts},
};
use crate::{
    clock::rfc3339,
    control::verdicts::TargetVerdicts,
    directory::Directory,
    proxy::inbound::InboundProxy,
    serving::{ServingState, ServingSwitch},
    transport::{CloseReason, MeshLinks},
};

/// Serves the socket until `stop` is triggered. A gateway whose socket cannot be bound works without it, and says so.
pub(super) fn spawn_admin(startup: &mut Startup, data_dir: &Path, view: GatewayView, stop: Shutdown) {
    match AdminSocket::bind(data_dir) {
        Ok(socket) => startup.spawn("admin socket", async move {
            stop.until_triggered(socket.serve(Arc::new(view))).await;
        }),
        Err(error) => {
            tracing::warn!(%error, "there is no admin socket: `isthmus gateway status` and the like do not work");
        }
    }
}

/// Cuts all requests when the owner pauses the cluster.
pub(super) fn spawn_pause(startup: &mut Startup, switch: &ServingSwitch, links: MeshLinks, stop: Shutdown) {
    let mut state = switch.watch();
    if switch.state() == ServingState::Paused {
        tracing::warn!(
            "the cluster is paused by its owner: no request is served; `isthmus gateway resume` ends that"
        );
    }
    startup.spawn("pause", async move {
        let cutting = async {
            while state.changed().await.is_ok() {
                if *state.borrow_and_update() == ServingState::Paused {
                    links.close_where(CloseReason::Paused, |_| true);
                }
            }
        };
        stop.until_triggered(cutting).await;
    });
}

/// The targets of a cluster, with their addresses.
pub(super) fn own_targets(
    inbound: Arc<InboundProxy>,
    polled: watch::Receiver<Targets>,
    verdicts: Arc<TargetVerdicts>,
) -> impl Fn() -> Vec<TargetReport> + Send + Sync + 'static {
    move || {
        let offer = inbound.offer();
        let report = |target: &Target| {
            let name: Name = target.name.parse().ok()?;
            let client = offer.targets.get(&name)?;
            Some(TargetReport {
                name: target.name.clone(),
                address: Some(client.address().to_string()),
                healthy: target.healthy,
                error: target.last_error.clone(),
                tried: client.tried(),
                refused: verdicts.refused(&name).unwrap_or_default(),
                labels: label_texts(target.info.as_ref()),
                last_check: target.last_check.and_then(|time| SystemTime::try_from(time).ok()).map(rfc3339),
            })
        };
        polled.borrow().targets.iter().filter_map(report).collect()
    }
}

/// The targets of all clusters, as the directory has them.
pub(super) fn all_targets(
    directory: Arc<Directory>,
) -> impl Fn() -> Vec<TargetReport> + Send + Sync + 'static {
    move || {
        let report = |entry: &DirectoryEntry| TargetReport {
            name: entry.name.clone(),
            address: None,
            healthy: entry.healthy,
            error: entry.last_error.clone(),
            tried: String::new(),
            refused: String::new(),
            labels: label_texts(entry.info.as_ref()),
            last_check: entry.last_check.and_then(|time| SystemTime::try_from(time).ok()).map(rfc3339),
        };
        let mut targets: Vec<_> = directory.changes(0).entries.iter().map(|entry| report(entry)).collect();
        targets.sort_by(|a, b| a.name.cmp(&b.name));
        targets
    }
}
