//! A ruler that keeps no samples, because it sends them to other databases: it announces rules and nothing else.

use futures::{StreamExt, stream};
use localstore::LocalStore;
use model::Timestamp;
use storeapi::{
    Apis, LabelNamesRequest, LabelValuesRequest, LabelsAnswer, SeriesRequest, SeriesStream, Store,
    StoreError, StoreInfo,
};

/// Announces the rules of a ruler and none of its samples.
pub(crate) struct RulesOnly(pub(crate) LocalStore);

#[tonic::async_trait]
impl Store for RulesOnly {
    async fn info(&self) -> Result<StoreInfo, StoreError> {
        let mut info = self.0.info().await?;
        info.apis = Apis { rules: true, ..Apis::default() };
        info.range = model::TimeRange::new(Timestamp::MAX, Timestamp::MIN);
        info.tsdbs.clear();
        Ok(info)
    }

    async fn series(&self, _: SeriesRequest) -> Result<SeriesStream, StoreError> {
        Ok(stream::empty().boxed())
    }

    async fn label_names(&self, _: LabelNamesRequest) -> Result<LabelsAnswer, StoreError> {
        Ok(LabelsAnswer::default())
    }

    async fn label_values(&self, _: LabelValuesRequest) -> Result<LabelsAnswer, StoreError> {
        Ok(LabelsAnswer::default())
    }
}
