//! The order of requests to stores.

use std::sync::Mutex;

use futures::{StreamExt, stream};

use super::*;

/// A store that records its requests and never answers.
struct Silent {
    asked: Arc<Mutex<Vec<String>>>,
}

#[tonic::async_trait]
impl Store for Silent {
    async fn info(&self) -> Result<StoreInfo, StoreError> {
        Ok(StoreInfo::new("sidecar", vec![labels(&[("cluster", "eu-1")])], TimeRange::ALL))
    }

    async fn series(&self, request: SeriesRequest) -> Result<SeriesStream, StoreError> {
        let matchers: Vec<String> = request.matchers.iter().map(ToString::to_string).collect();
        self.asked.lock().unwrap().push(matchers.join(","));
        Ok(stream::pending().boxed())
    }

    async fn label_names(&self, _: LabelNamesRequest) -> Result<LabelsAnswer, StoreError> {
        Err(StoreError::internal("silent"))
    }

    async fn label_values(&self, _: LabelValuesRequest) -> Result<LabelsAnswer, StoreError> {
        Err(StoreError::internal("silent"))
    }
}

#[tokio::test]
async fn selects_are_read_ahead_in_evaluation_order() {
    let asked = Arc::<Mutex<Vec<String>>>::default();
    let address = serve(Arc::new(Silent { asked: asked.clone() })).await;
    let querier = querier(&[address], &["--query.max-concurrent-select=1"]).await;
    let query = format!("/api/v1/query?query=a/b/c/d/e&time={AT}");
    let waiting = async { get(&querier, &query).await };
    let both = wait_for("two selects are open", || asked.lock().unwrap().len() == 2);
    tokio::select! {
        answer = waiting => panic!("a silent store answered: {:?}", answer.json()),
        () = both => {}
    }
    let mut open = asked.lock().unwrap().clone();
    open.sort();
    assert_eq!(open, [r#"__name__="a""#, r#"__name__="b""#]);
}
