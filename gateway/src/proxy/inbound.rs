//! A request on the cluster's side: check the policy, find the target's address, forward to the target.

use std::{
    collections::HashMap,
    convert::Infallible,
    sync::{Arc, PoisonError, RwLock, atomic::AtomicUsize},
    time::{Instant, SystemTime},
};

use compression::ServerCompressionLayer;
use futures::TryFutureExt;
use http::{Request, Response, Uri};
use http_body_util::Full;
use identity::Name;
use mesh::{Authority, Peer};
use tokio::sync::Notify;
use tonic::{Code, Status, body::Body};
use tower::{Layer, ServiceExt};

use crate::proxy::{
    grpc,
    messages::{MAX_REQUEST_BYTES, SeriesCounter, whole_request},
    relay::{AccessEntry, Relay, RelayDirection, RequestPermit},
    target::TargetClient,
};
use crate::{
    access_log::AccessLog,
    config::ClusterTarget,
    metrics::PeerMetrics,
    policy::{MeshMethod, NarrowedRequest, Policy, RateLimit, matchers_of},
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
    rate: RateLimit,
    log: RwLock<Option<AccessLog>>,
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
            rate: RateLimit::default(),
            log: RwLock::default(),
        }
    }

    /// Logs requests from now on; `None` ends that.
    pub(crate) fn log_to(&self, log: Option<AccessLog>) {
        *self.log.write().unwrap_or_else(PoisonError::into_inner) = log;
    }

    fn access_entry(&self, peer: &Peer) -> Option<AccessEntry> {
        let log = self.log.read().unwrap_or_else(PoisonError::into_inner).clone()?;
        let identity = peer.identity().map(ToString::to_string).unwrap_or_default();
        let transport = peer.transport().as_str();
        Some(AccessEntry { log, peer: identity, transport, matchers: None, series: SeriesCounter::default() })
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
    pub(crate) async fn serve(
        self: &Arc<Self>,
        metrics: &PeerMetrics,
        request: Request<Body>,
    ) -> Response<Body> {
        if !(self.offer().policy.narrowing.is_any() && grpc::is_compressed(request.headers())) {
            return self.serve_plain(metrics, request).await;
        }
        // The owner's conditions can be added to a plain message only.
        let (this, metrics) = (self.clone(), metrics.clone());
        let plain = tower::service_fn(move |request| {
            let (this, metrics) = (this.clone(), metrics.clone());
            async move { Ok::<_, Infallible>(this.serve_plain(&metrics, request).await) }
        });
        let layer = ServerCompressionLayer::new(MAX_REQUEST_BYTES);
        // A large future, and rarely needed: that of a plain request does not contain it.
        Box::pin(layer.layer(plain).oneshot(request)).await.unwrap_or_else(|never| match never {})
    }

    async fn serve_plain(&self, metrics: &PeerMetrics, request: Request<Body>) -> Response<Body> {
        let offer = self.offer();
        let authority = request.uri().authority().map(|authority| authority.as_str()).unwrap_or_default();
        let name = authority.parse::<Authority>().ok();
        let method = MeshMethod::of_request(request.uri());
        // Text of the request is not logged as received.
        let shown = name.as_ref().map_or_else(|| "unknown".to_owned(), ToString::to_string);
        let entry = self.access_entry(&Peer::of(request.extensions()));
        let relay = Relay::begin(RelayDirection::Inbound, shown.clone(), method, metrics.clone(), &request);
        let relay = relay.logged(entry);

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
        if let Some(limit) = offer.policy.max_requests_per_second
            && !self.rate.admit(limit, Instant::now())
        {
            let why = format!(
                "the policy of cluster {} allows {limit} requests a second; retry later",
                self.cluster
            );
            return relay.refuse(Code::ResourceExhausted, why);
        }
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
        let mut relay = relay.with_permit(permit).notifying(self.unavailable.clone());
        let request = match conditioned(&offer.policy, method, request, &mut relay).await {
            Ok(Some(request)) => request,
            Ok(None) => return relay.answer_nothing(method == MeshMethod::Series),
            Err(refused) => return relay.refuse(refused.code(), refused.message()),
        };
        match to_target(&client, method, request) {
            Ok(request) => {
                let request = request.map(|body| relay.count(body));
                let call = client
                    .call(request)
                    .map_err(|status| Status::new(status.code(), format!("{shown}: {}", status.message())));
                relay.run(call).await
            }
            Err(error) => relay.refuse(Code::Internal, format!("{shown}: {error}")),
        }
    }
}

/// The request with the owner's conditions, where there are any; `None` if nothing that may be read can match. The matchers are
/// noted for the access log.
///
/// # Errors
/// The request cannot be read.
async fn conditioned(
    policy: &Policy,
    method: MeshMethod,
    request: Request<Body>,
    relay: &mut Relay,
) -> Result<Option<Request<Body>>, Status> {
    if !policy.narrowing.is_any() && !relay.is_logged() {
        return Ok(Some(request));
    }
    let (mut head, body) = request.into_parts();
    let message = whole_request(body).await?;
    relay.asked_for(matchers_of(method, &message));
    if !policy.narrowing.is_any() {
        return Ok(Some(Request::from_parts(head, Body::new(Full::new(message)))));
    }
    head.headers.remove(http::header::CONTENT_LENGTH);
    match policy.narrowing.narrow(method, &message, SystemTime::now())? {
        NarrowedRequest::Send(message) => Ok(Some(Request::from_parts(head, Body::new(Full::new(message))))),
        NarrowedRequest::Empty => Ok(None),
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
