//! Several replicas of a store as one endpoint: each request goes to one of them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use futures::FutureExt;
use http::{Request, Response};
use mesh::{Channel, ChannelError};
use tonic::body::Body;
use tower::service_fn;

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
        let members = self.clone();
        Channel::new(name, service_fn(move |request| members.clone().send(request).boxed()))
    }

    async fn send(self, request: Request<Body>) -> Result<Response<Body>, ChannelError> {
        let mut channels = self.channels();
        let first = self.next.fetch_add(1, Ordering::Relaxed);
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
    }

    fn channels(&self) -> Vec<(String, Channel)> {
        self.channels.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
