//! The data folder of a Prometheus as a store of its own, beside the sidecar of this Prometheus.

use std::collections::BTreeMap;

use head::{Database, DatabaseOptions};
use localstore::{LocalData, LocalStore, LocalStoreOptions, NoLists};
use storeapi::{Apis, SeriesStream};

use super::*;

/// Samples of all series, without how they are cut into chunks: floats and histograms as text by time.
type AllSamples = BTreeMap<String, BTreeMap<i64, String>>;

async fn samples_of(stream: SeriesStream, range: TimeRange) -> AllSamples {
    let (all, warnings) = collect_series(stream).await.expect("an answer");
    assert!(warnings.is_empty(), "{warnings:?}");
    let names: Vec<&Labels> = all.iter().map(|series| &series.labels).collect();
    assert!(names.is_sorted_by(|a, b| a < b), "sorted");
    let mut out = AllSamples::new();
    for series in &all {
        let samples = out.entry(series.labels.to_string()).or_default();
        for chunk in series.chunks.iter().filter_map(|chunk| chunk.raw.as_ref()) {
            let mut add = |time: i64, value: String| {
                if range.contains(Timestamp::from_millis(time)) {
                    assert_eq!(samples.insert(time, value), None, "{} at {time} twice", series.labels);
                }
            };
            if chunk.encoding.holds_floats() {
                let (mut times, mut values) = (Vec::new(), Vec::new());
                chunk.decode_floats(&mut times, &mut values).expect("floats");
                times
                    .iter()
                    .zip(values)
                    .for_each(|(time, value)| add(*time, format!("{:x}", value.to_bits())));
            } else {
                let mut histograms = Vec::new();
                chunk.decode_histograms(&mut histograms).expect("histograms");
                histograms.iter().for_each(|(time, histogram)| add(*time, format!("{histogram:?}")));
            }
        }
    }
    out
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_folder_answers_as_the_sidecar_of_its_prometheus() {
    if !installed() {
        return;
    }
    let dir = TempDir::new().expect("a folder");
    let dataset = acceptance::dataset();
    load(dir.path(), &dataset);
    let address = free_port();
    let config = format!(
        "global:\n  scrape_interval: 100ms\n  scrape_timeout: 100ms\n  external_labels: {{cluster: eu-1, replica: a}}\n\
         scrape_configs:\n- job_name: prometheus\n  static_configs:\n  - targets: ['{address}']\n"
    );
    fs::write(dir.path().join("prometheus.yml"), config).expect("a file");
    let mut prometheus = Prometheus::run(
        Path::new("prometheus"),
        dir.path(),
        address,
        &["--enable-feature=native-histograms"],
    );
    let sidecar = sidecar(address, "0000-01-01T00:00:00Z");
    until("Prometheus", &sidecar, Result::is_ok).await;
    let scraped = |samples: &AllSamples| samples.values().map(BTreeMap::len).max().unwrap_or(0);
    let recent =
        || TimeRange::new(crate::now() - Duration::from_secs(3600), crate::now() - Duration::from_secs(1));
    let self_scrapes = SeriesRequest::new(recent(), vec![Matcher::equal("__name__", "up")]);
    shipper::testing::wait_until("scrapes", async || {
        let request = SeriesRequest { range: recent(), ..self_scrapes.clone() };
        scraped(&samples_of(sidecar.store.series(request).await.expect("up"), TimeRange::ALL).await) > 20
    })
    .await;
    let until = recent().max;
    let any = Matcher::new(MatchOp::Regex, "__name__", ".+").expect("a matcher");
    let job = Matcher::equal("job", "prometheus");
    let requests = [
        (vec![any.clone()], Vec::new()),
        (vec![any.clone(), job.clone()], vec!["replica".to_owned()]),
        (vec![any, Matcher::equal("cluster", "eu-1")], vec!["job".to_owned()]),
    ];
    let range = TimeRange::new(Timestamp::EPOCH, until);
    let ask = async |store: &dyn Store, requests: &[(Vec<Matcher>, Vec<String>)]| {
        let mut answers = Vec::new();
        for (matchers, without) in requests {
            let mut request = SeriesRequest::new(range, matchers.clone());
            request.without_replica_labels.clone_from(without);
            if without.iter().all(|name| name != "job") {
                answers.push(samples_of(store.series(request.clone()).await.expect("series"), range).await);
            }
            request.skip_chunks = true;
            let (sets, _) = collect_series(store.series(request).await.expect("sets")).await.expect("sets");
            answers.push(sets.into_iter().map(|set| (set.labels.to_string(), BTreeMap::new())).collect());
        }
        let names = store.label_names(LabelNamesRequest::new(range, vec![job.clone()])).await.expect("names");
        let values = LabelValuesRequest::new("__name__", range, vec![]);
        let values = store.label_values(values).await.expect("values");
        (answers, names.values, values.values)
    };
    let expected = ask(&*sidecar.store, &requests).await;
    assert!(expected.0[0].len() > 100 && expected.0[0].values().any(|samples| samples.len() == 300));
    prometheus.kill();

    let (database, opened) =
        Database::open(&dir.path().join("data"), DatabaseOptions::default()).expect("the folder");
    let data = LocalData::new();
    data.opened(Arc::new(database), &opened.damaged);
    let options = LocalStoreOptions {
        component: "sidecar",
        external: watch::channel(labels(&[("cluster", "eu-1"), ("replica", "a")])).1,
        serve_from: watch::channel(Timestamp::MIN).1,
        apis: Apis::default(),
    };
    let store = LocalStore::new(data, options, Arc::new(NoLists));
    let found = ask(&store, &requests).await;
    for (found, expected) in found.0.iter().zip(&expected.0) {
        let differs = expected.iter().find(|(series, samples)| found.get(*series) != Some(samples));
        assert!(
            differs.is_none(),
            "{:?} of {}",
            differs.map(|(series, samples)| (series, samples.len())),
            expected.len()
        );
        assert_eq!(found.len(), expected.len());
    }
    assert_eq!((found.1, found.2), (expected.1, expected.2));
}
