//! Receivers that fail, and restarts.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use head::{Exemplar, Metadata};
use model::{BucketSpan, FloatHistogram, Labels, MetricKind, RelabelAction, RelabelConfig, Timestamp};

use crate::config::RemoteWriteMessage;
use crate::tests::receivers::{Answer, Samples, TestReceiver, World, config, now, until};

const NAMES: [&str; 7] = ["a", "b", "c", "d", "e", "f", "g"];

/// Appends scrapes of all names, and adds them to what is expected.
fn scrape(world: &World, expected: &mut Samples, times: std::ops::Range<i64>) {
    for time in times {
        let samples: Vec<(&str, f64)> = NAMES.iter().map(|name| (*name, time as f64)).collect();
        world.append(&samples, time);
        for name in NAMES {
            let series = format!("{name}{{cluster=\"eu-1\"}}");
            expected.entry(series).or_default().insert(time, (time as f64).to_string());
        }
    }
}

async fn all_arrive(receiver: &TestReceiver, expected: &Samples) {
    let count: usize = expected.values().map(BTreeMap::len).sum();
    until("all samples have arrived", || receiver.with(|received| received.count() >= count)).await;
    receiver.with(|received| {
        assert_eq!(received.samples, *expected);
        assert_eq!(received.out_of_order, [""; 0], "nothing is sent that a Prometheus refuses");
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_and_nothing_sent_twice_over_failures_and_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let (receiver, address) = TestReceiver::start().await;
    let mut config = config(address);
    config.queue.max_samples_per_send = 10;
    config.queue.min_shards = 3;
    config.queue.retry_on_http_429 = true;
    let (begin, mut expected) = (now(), Samples::new());
    let world = World::start(dir.path(), &config);
    world.begun(dir.path()).await;
    scrape(&world, &mut expected, begin..begin + 50);
    all_arrive(&receiver, &expected).await;

    println!("the receiver fails for a while");
    let failures = [500, 503, 429, 502].into_iter().cycle().take(40);
    receiver.with(|received| received.answers.extend(failures.map(|status| Answer::Fail(status, &[]))));
    scrape(&world, &mut expected, begin + 50..begin + 100);
    all_arrive(&receiver, &expected).await;
    assert!(receiver.with(|received| received.requests.iter().any(|(_, attempt)| *attempt > 0)));
    assert!(world.metric("prometheus_remote_storage_samples_retried_total{") > 0.0);
    world.stop().await;

    println!("it fails while the queue stops and starts, in the middle of a window");
    let mut next = begin + 100;
    for round in 0..12 {
        receiver.with(|received| {
            received.then = Some(Answer::Fail(500, &[]));
            received.answers.extend((0..round % 5).map(|_| Answer::Take));
        });
        let world = World::start(dir.path(), &config);
        scrape(&world, &mut expected, next..next + 30);
        next += 30;
        let requests = receiver.with(|received| received.requests.len());
        until("it was tried", || receiver.with(|received| received.requests.len() > requests + 6)).await;
        match round % 2 {
            0 => world.stop().await,
            // Nothing is under way but requests that fail.
            _ => world.kill().await,
        }
    }
    receiver.with(|received| received.then = None);
    let world = World::start(dir.path(), &config);
    all_arrive(&receiver, &expected).await;
    until("all is counted", || world.metric("prometheus_remote_storage_samples_pending{") == 0.0).await;
    assert_eq!(world.metric("prometheus_remote_storage_samples_failed_total{"), 0.0);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_was_taken_without_an_answer_is_repeated_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let (receiver, address) = TestReceiver::start().await;
    let mut config = config(address);
    config.queue.max_samples_per_send = 10;
    config.queue.min_backoff = Duration::from_secs(60);
    let (begin, mut expected) = (now(), Samples::new());
    let world = World::start(dir.path(), &config);
    world.begun(dir.path()).await;
    receiver.with(|received| received.answers.push_back(Answer::TakeAndFail));
    scrape(&world, &mut expected, begin..begin + 3);
    until("a request was taken", || receiver.with(|received| !received.requests.is_empty())).await;
    world.kill().await;
    let first = receiver.with(|received| received.count());
    let world = World::start(dir.path(), &config);
    scrape(&world, &mut expected, begin + 3..begin + 40);
    let count = NAMES.len() * 40;
    until("all samples have arrived", || receiver.with(|received| received.count() == count)).await;
    receiver.with(|received| {
        assert_eq!(received.samples, expected);
        // A Prometheus refuses the whole repeated request, so it must have nothing that is new.
        assert_eq!(received.out_of_order.len(), first);
    });
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_receiver_decides_when_it_is_asked_again() {
    let dir = tempfile::tempdir().unwrap();
    let (receiver, address) = TestReceiver::start().await;
    let mut config = config(address);
    config.queue.retry_on_http_429 = true;
    let world = World::start(dir.path(), &config);
    world.begun(dir.path()).await;
    receiver.with(|received| received.answers.push_back(Answer::Fail(429, &[("retry-after", "1")])));
    let mut expected = Samples::new();
    scrape(&world, &mut expected, now()..now() + 1);
    all_arrive(&receiver, &expected).await;
    let times = receiver.with(|received| received.times.clone());
    assert!(times[1] - times[0] >= Duration::from_secs(1), "{:?}", times[1] - times[0]);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_refused_or_too_old_is_dropped_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let (receiver, address) = TestReceiver::start().await;
    let mut config = config(address);
    config.queue.sample_age_limit = Some(Duration::from_secs(600));
    let world = World::start(dir.path(), &config);
    world.begun(dir.path()).await;
    // Without the setting, 429 is for good.
    for status in [400, 404, 429] {
        receiver.with(|received| received.answers.push_back(Answer::Fail(status, &[])));
        let before = world.metric("prometheus_remote_storage_samples_failed_total{");
        world.append(&[("a", 1.0), ("b", 1.0)], now());
        until("it was refused", || {
            world.metric("prometheus_remote_storage_samples_failed_total{") == before + 2.0
        })
        .await;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    world.append(&[("old", 1.0)], now() - 700_000);
    world.append(&[("new", 1.0)], now());
    until("the new one has arrived", || receiver.with(|received| received.count() == 1)).await;
    assert!(receiver.with(|received| received.samples.contains_key("new{cluster=\"eu-1\"}")));
    let dropped = r#"prometheus_remote_storage_samples_dropped_total{remote_name="test",url="#;
    until("it is counted", || {
        let url = format!("{dropped}\"http://{address}/write\",reason=\"too_old\"");
        world.metric(&url) == 1.0
    })
    .await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn series_are_relabelled_and_have_external_labels_that_are_not_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let (receiver, address) = TestReceiver::start().await;
    let mut config = config(address);
    let rule = |action, source: &[&str], regex: &str| RelabelConfig {
        action,
        source_labels: source.iter().map(|&name| name.to_owned()).collect(),
        regex: regex.to_owned(),
        ..RelabelConfig::default()
    };
    config.write_relabel_configs = vec![
        rule(RelabelAction::Drop, &["__name__", "cluster"], "dropped;eu-1"),
        rule(RelabelAction::LabelDrop, &[], "pod"),
    ];
    let world = World::start(dir.path(), &config);
    world.begun(dir.path()).await;
    let head = world.database.head();
    let mut appender = head.appender();
    for pairs in [
        &[("__name__", "own"), ("cluster", "mine"), ("pod", "x")][..],
        &[("__name__", "dropped")],
        &[("__name__", "kept")],
    ] {
        let series = head.series(&Labels::from_pairs(pairs.iter().copied()).unwrap());
        appender.append_float(&series, Timestamp::from_millis(now()), Timestamp::EPOCH, 1.0).unwrap();
    }
    appender.commit().unwrap();
    until("they have arrived", || receiver.with(|received| received.count() == 2)).await;
    let names: Vec<String> = receiver.with(|received| received.samples.keys().cloned().collect());
    assert_eq!(names, ["kept{cluster=\"eu-1\"}", "own{cluster=\"mine\"}"]);
    world.stop().await;
}

fn histogram() -> FloatHistogram {
    FloatHistogram {
        count: 3.0,
        sum: 4.5,
        positive_spans: vec![BucketSpan { offset: 0, length: 2 }],
        positive_buckets: vec![2.0, 1.0],
        ..FloatHistogram::default()
    }
}

/// A sample of each kind, with metadata and an exemplar.
fn append_all_kinds(world: &World, time: i64) {
    let head = world.database.head();
    let mut appender = head.appender();
    let at = Timestamp::from_millis(time);
    let series = |name: &str| head.series(&Labels::from_pairs([("__name__", name)]).unwrap());
    let counter = series("requests_total");
    appender.append_float(&counter, at, Timestamp::from_millis(time - 5_000), 7.0).unwrap();
    let metadata =
        Metadata { kind: MetricKind::Counter, unit: "requests".into(), help: "All requests.".into() };
    appender.set_metadata(&counter, &metadata);
    let labels = Labels::from_pairs([("trace_id", "t1")]).unwrap();
    let exemplar = Exemplar { labels, value: 0.5, time: at, has_own_time: true };
    appender.append_exemplar(&counter, exemplar).unwrap();
    appender.append_histogram(&series("latency"), at, Timestamp::EPOCH, true, histogram().into()).unwrap();
    appender.append_float(&series("gone"), at, Timestamp::EPOCH, model::stale_nan()).unwrap();
    appender.commit().unwrap();
}

async fn send_all_kinds(
    dir: &Path,
    message: RemoteWriteMessage,
    first: Option<Answer>,
) -> (TestReceiver, i64) {
    let (receiver, address) = TestReceiver::start().await;
    receiver.with(|received| received.answers.extend(first));
    let mut config = config(address);
    (config.message, config.send_exemplars, config.send_native_histograms) = (message, true, true);
    config.metadata_interval = Some(Duration::from_millis(1));
    let world = World::start(dir, &config);
    world.begun(dir).await;
    let time = now();
    append_all_kinds(&world, time);
    until("samples have arrived", || receiver.with(|received| received.count() == 2)).await;
    if message == RemoteWriteMessage::V1 {
        until("metadata have arrived", || receiver.with(|received| !received.metadata.is_empty())).await;
    }
    world.stop().await;
    (receiver, time)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_kinds_are_sent_as_1_0() {
    let dir = tempfile::tempdir().unwrap();
    let (receiver, time) = send_all_kinds(dir.path(), RemoteWriteMessage::V1, None).await;
    receiver.with(|received| {
        assert_eq!(received.samples["requests_total{cluster=\"eu-1\"}"][&time], "7");
        assert_eq!(received.samples["gone{cluster=\"eu-1\"}"][&time], "stale");
        let (name, histogram) = &received.histograms[0];
        assert_eq!((name.as_str(), histogram.timestamp), ("latency{cluster=\"eu-1\"}", time));
        assert_eq!(histogram.positive_deltas, [2, -1]);
        let exemplar = ("requests_total{cluster=\"eu-1\"}".into(), "{trace_id=\"t1\"}".into(), 0.5);
        assert_eq!(received.exemplars, [exemplar]);
        let metadata = &received.metadata["requests_total"];
        assert_eq!((metadata.r#type, &*metadata.help, &*metadata.unit), (1, "All requests.", "requests"));
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_kinds_are_sent_as_2_0() {
    let dir = tempfile::tempdir().unwrap();
    let (receiver, time) = send_all_kinds(dir.path(), RemoteWriteMessage::V2, None).await;
    receiver.with(|received| {
        assert!(received.requests.iter().all(|(version, _)| version == "2.0.0"));
        let name = "requests_total{cluster=\"eu-1\"}";
        assert_eq!(received.samples[name][&time], "7");
        assert_eq!(received.samples["gone{cluster=\"eu-1\"}"][&time], "stale");
        assert_eq!(received.starts[name], time - 5_000);
        assert_eq!(received.starts["gone{cluster=\"eu-1\"}"], 0);
        assert_eq!(received.described[name], (1, "All requests.".to_owned(), "requests".to_owned()));
        assert_eq!(received.exemplars, [(name.to_owned(), "{trace_id=\"t1\"}".to_owned(), 0.5)]);
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_does_not_know_2_0_gets_1_0() {
    for first in [Answer::Fail(415, &[]), Answer::TakeNothing] {
        let dir = tempfile::tempdir().unwrap();
        let (receiver, time) = send_all_kinds(dir.path(), RemoteWriteMessage::V2, Some(first)).await;
        receiver.with(|received| {
            assert_eq!(received.requests[0].0, "2.0.0");
            assert!(received.requests[1..].iter().all(|(version, _)| version == "0.1.0"));
            assert_eq!(received.samples["requests_total{cluster=\"eu-1\"}"][&time], "7");
        });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_keeps_what_is_the_same_and_forgets_what_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let (receiver, address) = TestReceiver::start().await;
    let mut config = config(address);
    let world = World::start(dir.path(), &config);
    world.begun(dir.path()).await;
    let (begin, mut expected) = (now(), Samples::new());
    receiver.with(|received| received.then = Some(Answer::Fail(500, &[])));
    scrape(&world, &mut expected, begin..begin + 10);
    until("it was tried", || receiver.with(|received| !received.requests.is_empty())).await;
    // The next queue of this name sends what this one could not.
    config.queue.max_samples_per_send = 7;
    world.apply(std::slice::from_ref(&config));
    scrape(&world, &mut expected, begin + 10..begin + 20);
    receiver.with(|received| received.then = None);
    all_arrive(&receiver, &expected).await;
    world.apply(&[]);
    let file = crate::position::path_of(&dir.path().join("remote_write"), "test");
    until("the position is gone", || !file.exists()).await;
    scrape(&world, &mut Samples::new(), begin + 20..begin + 30);
    world.apply(std::slice::from_ref(&config));
    world.begun(dir.path()).await;
    scrape(&world, &mut expected, begin + 30..begin + 40);
    all_arrive(&receiver, &expected).await;
    world.stop().await;
}
