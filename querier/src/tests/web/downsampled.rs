//! A store whose old raw samples have been retired, so that only windows of 1 hour are left of them.

use std::sync::Mutex;

use series::{AggrChunk, Downsampler};
use tsdb::Chunk;

use super::*;

const HOUR: i64 = 3_600_000;
/// The first sample, at the beginning of an hour.
const BEGIN: i64 = 472_222 * HOUR;
/// From here on there are raw samples.
const RAW: i64 = BEGIN + 20 * HOUR;

/// `up` with one sample a minute for 22 hours. The value is the number of the hour.
struct Retired {
    coarse: Vec<Chunk>,
    raw: Vec<AggrChunk>,
    /// Whether chunks name their resolution, as those of Thanos do not.
    names_resolution: bool,
    requests: Mutex<Vec<SeriesRequest>>,
}

impl Retired {
    fn new(names_resolution: bool) -> Arc<Self> {
        let sample = |minute: i64| Sample::new(BEGIN + minute * 60_000, (minute / 60) as f64);
        let chunks = |minutes: std::ops::Range<i64>| {
            AggrChunk::from_floats(&minutes.map(sample).collect::<Vec<_>>()).unwrap()
        };
        let old: Vec<Chunk> = chunks(0..20 * 60).into_iter().filter_map(|chunk| chunk.raw).collect();
        let coarse = Downsampler::new(Duration::ZERO, Duration::from_secs(3600)).series(&old).unwrap();
        Arc::new(Self { coarse, raw: chunks(20 * 60..22 * 60), names_resolution, requests: Mutex::default() })
    }

    /// The number of requests since the last call.
    fn asked(&self) -> usize {
        std::mem::take(&mut *self.requests.lock().unwrap()).len()
    }
}

#[tonic::async_trait]
impl Store for Retired {
    async fn info(&self) -> Result<StoreInfo, StoreError> {
        Ok(StoreInfo::new("store", vec![labels(&[("cluster", "eu-1"), ("replica", "a")])], TimeRange::ALL))
    }

    async fn series(&self, request: SeriesRequest) -> Result<SeriesStream, StoreError> {
        let hour = Duration::from_secs(3600);
        let named = if self.names_resolution { hour } else { Duration::ZERO };
        let coarse =
            self.coarse.iter().filter(|_| request.coarser_if_needed || request.max_resolution >= hour);
        let coarse = coarse.map(|chunk| {
            AggrChunk::from_block(chunk.clone(), &request.aggregates).unwrap().with_resolution(named)
        });
        let chunks: Vec<AggrChunk> = coarse
            .chain(self.raw.iter().cloned())
            .filter(|chunk| chunk.range().overlaps(&request.range))
            .collect();
        self.requests.lock().unwrap().push(request);
        let labels = labels(&[("__name__", "up"), ("cluster", "eu-1")]);
        let series = (!chunks.is_empty()).then_some(Series { labels, chunks });
        Ok(stream::iter(series.map(|series| Ok(SeriesFrame::Series(vec![series])))).boxed())
    }

    async fn label_names(&self, _: LabelNamesRequest) -> Result<LabelsAnswer, StoreError> {
        Ok(LabelsAnswer::default())
    }

    async fn label_values(&self, _: LabelValuesRequest) -> Result<LabelsAnswer, StoreError> {
        Ok(LabelsAnswer::default())
    }
}

/// The value and the infos of an instant query this many minutes after the begin.
async fn instant(querier: &RunningRole, query: &str, minute: i64, parameters: &str) -> (Value, Value) {
    let at = BEGIN / 1000 + minute * 60;
    let path = format!("/api/v1/query?query={query}&time={at}{parameters}");
    let answer = get(querier, &path).await.json();
    assert!(answer.get("warnings").is_none(), "{answer}");
    (answer["data"]["result"][0]["value"][1].clone(), answer["infos"].clone())
}

const HOURLY: &str = "resolution of the data: 1h from 2023-11-14T22:59:59Z to 2023-11-15T08:30:00Z";

#[tokio::test]
async fn retired_samples_are_answered_with_what_is_left_and_the_answer_says_so() {
    let store = Retired::new(true);
    let address = serve(Arc::clone(&store) as Arc<dyn Store>).await;
    let lower = querier(&[address], &[]).await;
    let upper = querier(&[lower.grpc_address().to_string()], &[]).await;
    for querier in [&lower, &upper] {
        let info = json!([
            "resolution of the data: 1h from 2023-11-15T07:30:00Z to 2023-11-15T08:30:00Z (stores have nothing finer)"
        ]);
        assert_eq!(instant(querier, "up", 630, "").await, (json!("9"), info));
        assert_eq!(store.asked(), 2, "the first answer shows that the lookback must be longer");
        let infos = instant(querier, "up", 630, "&lookback_delta=5m").await;
        assert_eq!((&infos.0, store.asked()), (&Value::Null, 1), "the client chose the lookback");

        println!("with the resolution permitted, there is nothing to find out");
        let (value, infos) = instant(querier, "up", 630, "&max_source_resolution=1h").await;
        assert_eq!((value, store.asked()), (json!("9"), 1));
        assert!(!infos[0].as_str().unwrap().contains("nothing finer"), "{infos}");

        println!("a range has no lookback");
        let (value, infos) = instant(querier, "sum_over_time(up[630m])", 630, "").await;
        assert_eq!((value, store.asked()), (json!(((0..10).sum::<i64>() * 60).to_string()), 1));
        assert_eq!(infos, json!([format!("{HOURLY} (stores have nothing finer)")]));

        println!("raw samples are not mentioned");
        assert_eq!(instant(querier, "up", 21 * 60 + 5, "").await, (json!("21"), Value::Null));
        assert_eq!(store.asked(), 1);
    }
}

#[tokio::test]
async fn a_range_query_has_each_time_in_the_resolution_that_is_left() {
    let store = Retired::new(false);
    let querier = querier(&[serve(Arc::clone(&store) as Arc<dyn Store>).await], &[]).await;
    let (start, end) = (BEGIN / 1000 + 18 * 3600, RAW / 1000 + 3600);
    let path = format!("/api/v1/query_range?query=up&start={start}&end={end}&step=1800&stats=all");
    let answer = get(&querier, &path).await.json();
    let values = answer["data"]["result"][0]["values"].as_array().unwrap();
    let values: Vec<&str> = values.iter().map(|value| value[1].as_str().unwrap()).collect();
    assert_eq!(values, ["17", "17", "18", "18", "20", "20", "21"], "{answer}");
    let expected = "resolution of the data: raw from 2023-11-15T18:00:00Z to 2023-11-15T19:00:00Z, 1h from \
                    2023-11-15T15:00:00Z to 2023-11-15T17:59:00Z (stores have nothing finer)";
    assert_eq!(answer["infos"], json!([expected]));
    let found = &answer["data"]["stats"]["stores"][0]["resolutions"];
    assert_eq!((&found[0]["resolution"], &found[1]["resolution"]), (&json!("raw"), &json!("1h")));
    assert_eq!(found[0]["minTime"], json!(RAW));
}
