//! A source whose stores are unknown, as a store: answers that may need it report it as missing.

use std::sync::Arc;

use storeapi::{
    LabelNamesRequest, LabelValuesRequest, LabelsAnswer, SeriesRequest, SeriesStream, Store, StoreError,
    StoreInfo,
};

use crate::endpoints::endpoint::Candidate;

/// A candidate that represents the unknown stores of a source.
pub(super) fn unknown_stores(name: Arc<str>, reason: &str) -> Candidate {
    Candidate {
        name,
        store: Arc::new(UnknownStores),
        metadata: None,
        lists: None,
        info: None,
        bound: model::Labels::empty(),
        selected: Vec::new(),
        unavailable: Some(reason.to_owned()),
    }
}

struct UnknownStores;

impl UnknownStores {
    fn error() -> StoreError {
        StoreError::unavailable("its stores are unknown")
    }
}

#[tonic::async_trait]
impl Store for UnknownStores {
    async fn info(&self) -> Result<StoreInfo, StoreError> {
        Err(Self::error())
    }
    async fn series(&self, _: SeriesRequest) -> Result<SeriesStream, StoreError> {
        Err(Self::error())
    }
    async fn label_names(&self, _: LabelNamesRequest) -> Result<LabelsAnswer, StoreError> {
        Err(Self::error())
    }
    async fn label_values(&self, _: LabelValuesRequest) -> Result<LabelsAnswer, StoreError> {
        Err(Self::error())
    }
}
