//! Several replicas of a store as one endpoint: each request goes to one of them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use http::{Request, Response};
use mesh::{Channel, ChannelError};
use tonic::body::Body;
use tower::Service;

use crate::endpoints::repeatable::{RepeatableRequest, is_unavailable};

/// Replicas that are tried for one request, as in Thanos.
const ATTEMPTS: usize = 3;

/// The replicas of an endpoint group, by address. Clones share them.
#[derive(Clone, Default)]
pub(super) struct Members {
    channels: Arc<RwLock<Vec<(String, Channel)>>>,
    next: Arc<AtomicUsize>,
}

impl Members {
    /// Replaces the replicas; those that are known keep their connection.
    pub(super) fn set(
        &self,
        names: Vec<String>,
        open: impl Fn(&str) -> Result<Channel, ChannelError>,
    ) -> Result<(), ChannelError> {
        let known = self.channels();
        let channel = |name: String| {
            let known = known.iter().find(|(other, _)| *other == name);
            let channel = known.map_or_else(|| open(&name), |(_, channel)| Ok(channel.clone()))?;
            Ok::<_, ChannelError>((name, channel))
        };
        let channels = names.into_iter().map(channel).collect::<Result<_, ChannelError>>()?;
        *self.channels.write().unwrap_or_else(PoisonError::into_inner) = channels;
        Ok(())
    }

    /// The channel that spreads requests over the replicas, one after the other. A request that a replica cannot take is
    /// sent to the next one.
    pub(super) fn channel(&self, name: &str) -> Channel {
        Channel::new(name, Balanced(self.clone()))
    }

    fn channels(&self) -> Vec<(String, Channel)> {
        self.channels.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The service of the channel.
#[derive(Clone)]
struct Balanced(Members);

impl Service<Request<Body>> for Balanced {
    type Response = Response<Body>;
    type Error = ChannelError;
    type Future = BoxFuture<'static, Result<Response<Body>, ChannelError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ChannelError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let mut channels = self.0.channels();
        let first = self.0.next.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move {
            if !channels.is_empty() {
                let first = first % channels.len();
                channels.rotate_left(first);
            }
            let request = RepeatableRequest::read(request).await?;
            let mut last = Err(ChannelError::unavailable("no address of this group is known"));
            for (_, channel) in channels.into_iter().take(ATTEMPTS) {
                last = request.send(channel).await;
                if !is_unavailable(&last) {
                    break;
                }
            }
            last
        })
    }
}
