//! The requests to stores for `info()`.

use std::sync::Mutex;

use super::*;

/// A store that records the matchers of its requests.
struct RecordingStore {
    store: Arc<MemoryStore>,
    asked: Arc<Mutex<Vec<Vec<String>>>>,
}

#[tonic::async_trait]
impl Store for RecordingStore {
    async fn info(&self) -> Result<StoreInfo, StoreError> {
        self.store.info().await
    }

    async fn series(&self, request: SeriesRequest) -> Result<SeriesStream, StoreError> {
        let matchers = request.matchers.iter().map(ToString::to_string).collect();
        self.asked.lock().unwrap().push(matchers);
        self.store.series(request).await
    }

    async fn label_names(&self, request: LabelNamesRequest) -> Result<LabelsAnswer, StoreError> {
        self.store.label_names(request).await
    }

    async fn label_values(&self, request: LabelValuesRequest) -> Result<LabelsAnswer, StoreError> {
        self.store.label_values(request).await
    }
}

#[tokio::test]
async fn only_needed_info_series_are_requested() {
    let series = [
        labels(&[("__name__", "target_info"), ("instance", "a:1"), ("job", "api"), ("v", "1")]),
        labels(&[("__name__", "target_info"), ("instance", "b:1"), ("job", "db"), ("v", "2")]),
        labels(&[("__name__", "up"), ("instance", "a:1"), ("job", "api")]),
        labels(&[("__name__", "up"), ("pod", "p")]),
    ];
    let samples: Vec<Sample> = (0..40).map(|i| Sample::new(START + i * 15_000, 1.0)).collect();
    let series = series.into_iter().map(|labels| (labels, samples.clone()));
    let store = Arc::new(MemoryStore::from_samples(labels(&[("cluster", "eu-1")]), series).unwrap());
    let asked = Arc::<Mutex<Vec<Vec<String>>>>::default();
    let address = serve(Arc::new(RecordingStore { store, asked: asked.clone() })).await;
    let flags = ["--enable-feature=promql-experimental-functions", "--query.max-concurrent-select=4"];
    let querier = querier(&[address], &flags).await;
    let count = async |query: &str| {
        let form = format!("query={query}&time={AT}");
        let answer = post(&querier, "/api/v1/query", &form).await.json();
        let value = answer["data"]["result"][0]["value"][1].clone();
        (value, std::mem::take(&mut *asked.lock().unwrap()))
    };
    let (up, infos) = (r#"__name__="up""#, r#"__name__="target_info""#);

    let (value, asked_for) = count("count(info(up,%7Bv=~'.%2B'%7D))").await;
    let identity = [infos, r#"v=~".+""#, r#"instance=~"a:1""#, r#"job=~"api""#];
    assert_eq!(
        (value, asked_for),
        (json!("1"), vec![vec![up.to_owned()], identity.map(str::to_owned).into()])
    );

    // No info series can match this one.
    let (value, asked_for) = count("count(info(up%7Bpod='p'%7D))").await;
    assert_eq!((value, asked_for), (json!("1"), vec![vec![r#"pod="p""#.to_owned(), up.to_owned()]]));

    let path = format!("/api/v1/query_explain?query=info(up)&time={AT}");
    let plan = get(&querier, &path).await.json();
    let late: Vec<_> = plan["data"]["selects"].as_array().unwrap().iter().map(|s| &s["late"]).collect();
    assert_eq!(late, [false, true], "{plan}");
    assert_eq!(
        plan["data"]["children"][1]["name"], "info series target_info of these instances and jobs",
        "{plan}"
    );
}
