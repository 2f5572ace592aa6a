//! Serves a list over gRPC.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use tonic::body::Body;
use tonic::server::{Grpc, NamedService};
use tonic::service::RoutesBuilder;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;
use tower::{Service, service_fn};

use crate::convert::WireListing;
use crate::server::StdError;
use crate::{AnswerMemory, ListingStore};

/// The gRPC service of a list: `thanos.Rules`, `thanos.Targets`, `thanos.Exemplars` or `thanos.Status`.
///
/// Large items are split, so that messages stay small.
pub struct ListingServer<L> {
    store: Arc<dyn ListingStore<L>>,
    memory: Arc<dyn Fn() -> AnswerMemory + Send + Sync>,
}

impl<L> Clone for ListingServer<L> {
    fn clone(&self) -> Self {
        Self { store: Arc::clone(&self.store), memory: Arc::clone(&self.memory) }
    }
}

impl<L: WireListing> ListingServer<L> {
    /// Serves the list of `store`. `memory` makes the memory of each answer, which is kept until the answer is sent.
    pub fn new(
        store: Arc<dyn ListingStore<L>>,
        memory: impl Fn() -> AnswerMemory + Send + Sync + 'static,
    ) -> Self {
        Self { store, memory: Arc::new(memory) }
    }

    /// Adds the service to what a gRPC server serves.
    pub fn register(self, routes: &mut RoutesBuilder) {
        routes.add_service(self);
    }

    async fn answer(
        self,
        request: L::WireRequest,
    ) -> Result<Response<BoxStream<'static, Result<L::WireResponse, Status>>>, Status> {
        let memory = (self.memory)();
        let listed = self.store.list(L::request_from_wire(request)?, memory.clone()).await?;
        let kept = (memory, listed.kept);
        let warnings = listed.warnings.into_iter().map(L::warning_to_wire);
        let messages = warnings.chain(listed.items.into_iter().flat_map(L::to_wire));
        let messages = stream::iter(messages).map(move |message| {
            let _kept = &kept;
            Ok(message)
        });
        Ok(Response::new(messages.boxed()))
    }
}

impl<L: WireListing> NamedService for ListingServer<L> {
    const NAME: &'static str = L::SERVICE;
}

impl<L, B> Service<http::Request<B>> for ListingServer<L>
where
    L: WireListing,
    B: http_body::Body + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let server = self.clone();
        Box::pin(async move {
            let path = request.uri().path();
            if path != L::PATH {
                return Ok(Status::unimplemented(format!("{path}: no such method")).into_http());
            }
            let serve = service_fn(move |request: Request<L::WireRequest>| {
                server.clone().answer(request.into_inner())
            });
            let codec = ProstCodec::<L::WireResponse, L::WireRequest>::default();
            Ok(Grpc::new(codec).server_streaming(serve, request).await)
        })
    }
}
