//! What the observability gateway sends about trust on a session: the roots and the denylists.

use bytes::Bytes;
use proto::isthmus::mesh::v1::{Bundle, from_observability::Message as ToCluster};

use crate::trust::issued::TrustNews;

/// What was sent on a session.
#[derive(Default)]
pub(super) struct SentTrust {
    denylists: Vec<Bytes>,
    bundle: Option<u64>,
}

impl SentTrust {
    /// What has changed since the last time.
    pub(super) fn messages(&mut self, news: Option<&TrustNews>) -> Vec<ToCluster> {
        let Some(news) = news else { return Vec::new() };
        let mut messages = Vec::new();
        if self.bundle != Some(news.bundle.sequence()) {
            self.bundle = Some(news.bundle.sequence());
            messages.push(bundle_of(news));
        }
        let new = news.denylists.iter().filter(|list| !self.denylists.contains(list));
        messages.extend(new.cloned().map(ToCluster::Denylist));
        self.denylists = news.denylists.clone();
        messages
    }
}

/// The roots to trust. The answer is also a sign of life.
pub(super) fn bundle_of(news: &TrustNews) -> ToCluster {
    ToCluster::Bundle(Bundle {
        roots: news.bundle.roots().map(|der| der.to_vec().into()).collect(),
        signature: news.bundle.signature_bytes().unwrap_or_default().into(),
    })
}
