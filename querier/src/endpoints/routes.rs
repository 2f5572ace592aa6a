//! Gateways that announce the same store: a request that one of them cannot take is sent through another one.

use std::sync::{Arc, PoisonError, RwLock, Weak};
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use http::{Request, Response};
use mesh::{Authority, Channel, ChannelError, Gateway};
use tonic::body::Body;
use tower::layer::layer_fn;
use tower::{Service, ServiceExt};

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
        let layer = layer_fn(|first| Routed { first, route: self.clone(), target: target.clone() });
        self.gateway.target(target).within(&layer)
    }

    fn others(&self) -> Vec<Announced> {
        let Some(all) = self.all.upgrade() else { return Vec::new() };
        let all = all.read().unwrap_or_else(PoisonError::into_inner);
        let others = all.iter().enumerate().filter(|(number, _)| *number != self.number);
        others.map(|(_, announced)| announced.clone()).collect()
    }
}

/// The service of the channel.
#[derive(Clone)]
struct Routed {
    first: Channel,
    route: GatewayRoute,
    target: Authority,
}

impl Service<Request<Body>> for Routed {
    type Response = Response<Body>;
    type Error = ChannelError;
    type Future = BoxFuture<'static, Result<Response<Body>, ChannelError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ChannelError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let Self { first, route, target } = self.clone();
        let others = route.others();
        if others.is_empty() {
            return Box::pin(first.oneshot(request));
        }
        Box::pin(async move {
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
        })
    }
}
