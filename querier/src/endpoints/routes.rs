//! Gateways that announce the same store: a request that one of them cannot take is sent through another one.

use std::sync::{Arc, PoisonError, RwLock, Weak};

use futures::FutureExt;
use http::{Request, Response};
use mesh::{Authority, Channel, ChannelError, Gateway};
use tonic::body::Body;
use tower::layer::layer_fn;
use tower::{ServiceExt, service_fn};

use crate::endpoints::group::EndpointGroup;
use crate::endpoints::repeatable::{RepeatableRequest, is_unavailable};

/// All gateways of a querier, with what each of them announces.
#[derive(Default)]
pub(super) struct GatewayRoutes(Arc<RwLock<Vec<Announced>>>);

#[derive(Clone)]
struct Announced {
    gateway: Gateway,
    group: EndpointGroup,
}

impl GatewayRoutes {
    /// Adds a gateway.
    pub(super) fn add(&self, gateway: &Gateway, group: &EndpointGroup) -> GatewayRoute {
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        all.push(Announced { gateway: gateway.clone(), group: group.clone() });
        GatewayRoute { gateway: gateway.clone(), number: all.len() - 1, all: Arc::downgrade(&self.0) }
    }
}

/// The way through one gateway.
#[derive(Clone)]
pub(super) struct GatewayRoute {
    gateway: Gateway,
    number: usize,
    /// Weak, because what a gateway announces has the channels that are made here.
    all: Weak<RwLock<Vec<Announced>>>,
}

impl GatewayRoute {
    /// The channel to a target through this gateway, or through another one that reads the target if this one is not available.
    pub(super) fn channel(&self, target: &Authority) -> Channel {
        let layer = layer_fn(|first: Channel| {
            let (route, target) = (self.clone(), target.clone());
            service_fn(move |request| route.clone().send(first.clone(), target.clone(), request).boxed())
        });
        self.gateway.target(target).within(&layer)
    }

    async fn send(
        self,
        first: Channel,
        target: Authority,
        request: Request<Body>,
    ) -> Result<Response<Body>, ChannelError> {
        let others = self.others();
        if others.is_empty() {
            return first.oneshot(request).await;
        }
        let request = RepeatableRequest::read(request).await?;
        let mut last = request.send(first).await;
        for Announced { gateway, group } in others {
            if !is_unavailable(&last) {
                break;
            }
            if group.has_healthy(target.as_str()) {
                last = request.send(gateway.target(&target)).await;
            }
        }
        last
    }

    fn others(&self) -> Vec<Announced> {
        let Some(all) = self.all.upgrade() else { return Vec::new() };
        let all = all.read().unwrap_or_else(PoisonError::into_inner);
        let others = all.iter().enumerate().filter(|(number, _)| *number != self.number);
        others.map(|(_, announced)| announced.clone()).collect()
    }
}
