//! Metadata: what the metrics of series are.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use model::MetricKind;

/// What a target says about a metric.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Metadata {
    /// Its type.
    pub kind: MetricKind,
    /// Its unit; often empty.
    pub unit: Box<str>,
    /// A description for people.
    pub help: Box<str>,
}

/// Metadata of all series. Most series share theirs with others.
#[derive(Default)]
pub(crate) struct MetadataPool(Mutex<HashSet<Arc<Metadata>>>);

impl MetadataPool {
    /// The shared copy.
    pub(crate) fn share(&self, metadata: Metadata) -> Arc<Metadata> {
        let mut pool = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(shared) = pool.get(&metadata) {
            return Arc::clone(shared);
        }
        let shared = Arc::new(metadata);
        pool.insert(Arc::clone(&shared));
        shared
    }

    /// Frees what no series has.
    pub(crate) fn free_unused(&self) {
        let mut pool = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pool.retain(|metadata| Arc::strong_count(metadata) > 1);
        pool.shrink_to_fit();
    }
}
