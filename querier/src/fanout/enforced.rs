//! What the context of a request permits it to see.

use model::Matcher;
use runtime::CallContext;

/// Replaces what a request asks about the label of the tenant by what its context permits, as Thanos does.
pub(super) fn enforce(matchers: &mut Vec<Matcher>) {
    if let Some(enforced) = CallContext::current().enforced() {
        matchers.retain(|matcher| matcher.name() != enforced.name());
        matchers.push(enforced.clone());
    }
}
