//! A request on the cluster's side: check the policy, find the target's address, forward to the target.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock, atomic::AtomicUsize},
};

use http::{Request, Response, Uri};
use identity::Name;
use mesh::Authority;
use tokio::sync::Notify;
use tonic::{Code, Status, body::Body};

use crate::proxy::{
    grpc,
    relay::{Relay, RelayDirection, RequestPermit},
    target::TargetClient,
};
use crate::{
    config::ClusterTarget,
    metrics::PeerMetrics,
    policy::{MeshMethod, Policy},
    serving::{ServingState, ServingSwitch},
};

/// The targets of a cluster and its policy. Replaced as a whole when the configuration is reloaded.
pub(crate) struct TargetOffer {
    pub(crate) targets: HashMap<Name, Arc<TargetClient>>,
    pub(crate) policy: Policy,
}

/// Serves requests from the observability side.
pub(crate) struct InboundProxy {
    cluster: Name,
    offer: RwLock<Arc<TargetOffer>>,
    running: Arc<AtomicUsize>,
    unavailable: Arc<Notify>,
    switch: ServingSwitch,
}

impl InboundProxy {
    pub(crate) fn new(
        cluster: Name,
        targets: &[ClusterTarget],
        policy: Policy,
        switch: ServingSwitch,
    ) -> Self {
        let targets =
            targets.iter().map(|target| (target.name.clone(), Arc::new(TargetClient::new(target)))).collect();
        Self {
            cluster,
            offer: RwLock::new(Arc::new(TargetOffer { targets, policy })),
            running: Arc::default(),
            unavailable: Arc::default(),
            switch,
        }
    }

    /// The owner's switch.
    pub(crate) fn switch(&self) -> &ServingSwitch {
        &self.switch
    }

    /// Waits until a request failed because a target was unavailable.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub(crate) async fn target_unavailable(&self) {
        self.unavailable.notified().await;
    }

    /// Replaces the targets and the policy. A target with the same address keeps its connection. Running requests are
    /// not affected.
    pub(crate) fn replace(&self, targets: &[ClusterTarget], policy: Policy) {
        let mut offer = self.offer.write().unwrap_or_else(PoisonError::into_inner);
        let targets = targets
            .iter()
            .map(|target| {
                let kept = offer.targets.get(&target.name).filter(|client| client.is_for(target));
                let client = kept.cloned().unwrap_or_else(|| Arc::new(TargetClient::new(target)));
                (target.name.clone(), client)
            })
            .collect();
        *offer = Arc::new(TargetOffer { targets, policy });
    }

    /// The current targets and policy.
    pub(crate) fn offer(&self) -> Arc<TargetOffer> {
        self.offer.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Answers one request.
    pub(crate) async fn serve(&self, metrics: &PeerMetrics, request: Request<Body>) -> Response<Body> {
        let offer = self.offer();
        let authority = request.uri().authority().map(|authority| authority.as_str()).unwrap_or_default();
        let name = authority.parse::<Authority>().ok();
        let method = MeshMethod::of_request(request.uri());
        // Text of the request is not logged as received.
        let shown = name.as_ref().map_or_else(|| "unknown".to_owned(), ToString::to_string);
        let relay = Relay::begin(RelayDirection::Inbound, shown.clone(), method, metrics.clone(), &request);

        if self.switch.state() == ServingState::Paused {
            return relay.refuse(
                Code::Unavailable,
                format!("{shown}: the owner of cluster {} has paused it", self.cluster),
            );
        }
        let Some(method) = method.filter(|method| offer.policy.methods.contains(method)) else {
            return relay.refuse(
                Code::PermissionDenied,
                format!("{shown}: the policy of cluster {} does not allow this method", self.cluster),
            );
        };
        let client = name.filter(|name| *name.cluster() == self.cluster);
        let Some(client) = client.and_then(|name| offer.targets.get(name.target()).cloned()) else {
            return relay.refuse(
                Code::NotFound,
                format!("{shown}: cluster {} has no target of this name", self.cluster),
            );
        };
        let limit = offer.policy.max_concurrent_requests;
        let Some(permit) = RequestPermit::acquire(&self.running, limit) else {
            return relay.refuse(
                Code::ResourceExhausted,
                format!(
                    "cluster {} already serves {limit} requests, the maximum of its policy; retry later",
                    self.cluster
                ),
            );
        };
        let relay = relay.with_permit(permit).notifying(self.unavailable.clone());
        match to_target(&client, method, request) {
            Ok(request) => {
                let request = request.map(|body| relay.count(body));
                let call = async {
                    let answered = client.call(request).await;
                    answered.map_err(|status| {
                        Status::new(status.code(), format!("{shown}: {}", status.message()))
                    })
                };
                relay.run(call).await
            }
            Err(error) => relay.refuse(Code::Internal, format!("{shown}: {error}")),
        }
    }
}

/// The request for the target: the path is our constant and the address is the configured one, never received text.
fn to_target(
    client: &TargetClient,
    method: MeshMethod,
    request: Request<Body>,
) -> Result<Request<Body>, http::Error> {
    let (mut parts, body) = request.into_parts();
    parts.uri = Uri::builder()
        .scheme(client.scheme())
        .authority(client.address().as_str())
        .path_and_query(method.path())
        .build()?;
    parts.version = http::Version::HTTP_2;
    parts.extensions = http::Extensions::new();
    grpc::strip_hop_headers(&mut parts.headers);
    Ok(Request::from_parts(parts, body))
}
