//! The tenant of a request.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;

use crate::api::exchange::respond;
use crate::api::{Api, bad_data};

/// Answers a request in the context of its tenant: stores receive the tenant, and if tenancy is enforced, each
/// request to them has the matcher of the tenant.
pub(super) async fn in_tenant(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    let Some(tenancy) = &api.tenancy else { return next.run(request).await };
    match tenancy.context(request.headers(), request.extensions()) {
        Ok(context) => context.scope(next.run(request)).await,
        Err(why) => respond(Err(bad_data(why))),
    }
}
