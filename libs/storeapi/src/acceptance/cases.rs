//! Series: which are selected, in which order, and with which chunks.

use futures::StreamExt;
use model::{Labels, MatchOp, Matcher, Sample, TimeRange, Timestamp};
use series::Series;

use crate::acceptance::{Dataset, INTERVAL_MILLIS, SAMPLES, START_MILLIS, labels_of};
use crate::{Code, SeriesRequest, Shard, Store, collect_series};

const LAST_MILLIS: i64 = START_MILLIS + (SAMPLES as i64 - 1) * INTERVAL_MILLIS;

pub(super) fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

/// The range of all samples of the suite.
pub(super) fn whole() -> TimeRange {
    TimeRange::new(at(START_MILLIS), at(LAST_MILLIS))
}

pub(super) fn matcher(op: MatchOp, name: &str, value: &str) -> Matcher {
    Matcher::new(op, name, value).expect("the suite's matchers are well formed")
}

fn any_name() -> Matcher {
    matcher(MatchOp::Regex, "__name__", ".+")
}

/// Sends a request and checks the rules for every answer: sorted, and without labels that the request asked to remove.
async fn ask(store: &dyn Store, case: &str, request: SeriesRequest) -> Vec<Series> {
    let removed = request.without_replica_labels.clone();
    let stream = store.series(request).await.unwrap_or_else(|e| panic!("{case}: {e}"));
    let (series, warnings) = collect_series(stream).await.unwrap_or_else(|e| panic!("{case}: {e}"));
    assert!(warnings.is_empty(), "{case}: warnings {warnings:?}");
    let labels: Vec<&Labels> = series.iter().map(|s| &s.labels).collect();
    assert!(labels.is_sorted_by(|a, b| a < b), "{case}: series out of order or not adjacent: {labels:?}");
    for name in removed {
        assert!(labels.iter().all(|l| l.get(&name).is_none()), "{case}: {name} is still there: {labels:?}");
    }
    series
}

async fn select(store: &dyn Store, case: &str, matchers: Vec<Matcher>) -> Vec<Series> {
    ask(store, case, SeriesRequest::new(whole(), matchers)).await
}

/// The label sets that an answer to `matchers` must have.
fn expected(dataset: &Dataset, keep: impl Fn(&Labels) -> bool, without: &[&str]) -> Vec<Labels> {
    let extended = dataset.series.iter().map(|(labels, _)| labels.extended(&dataset.external));
    let mut sets: Vec<Labels> = extended.filter(keep).map(|l| l.without(|n| without.contains(&n))).collect();
    sets.sort();
    sets.dedup();
    sets
}

fn sets(series: &[Series]) -> Vec<Labels> {
    series.iter().map(|s| s.labels.clone()).collect()
}

fn floats(case: &str, series: &Series, range: TimeRange) -> Vec<Sample> {
    let (mut times, mut values) = (Vec::new(), Vec::new());
    for chunk in &series.chunks {
        let raw =
            chunk.raw.as_ref().unwrap_or_else(|| panic!("{case}: {}: chunk without raw data", series.labels));
        raw.decode_floats(&mut times, &mut values)
            .unwrap_or_else(|e| panic!("{case}: {}: {e}", series.labels));
    }
    let mut samples: Vec<Sample> = times.iter().zip(values).map(|(t, v)| Sample::new(*t, v)).collect();
    samples.retain(|s| range.contains(s.timestamp));
    samples.sort_by_key(|s| s.timestamp);
    samples.dedup_by_key(|s| s.timestamp);
    samples
}

pub(super) async fn all(store: &dyn Store, dataset: &Dataset) {
    info_tells_external_labels_and_times(store, dataset).await;
    series_carry_external_labels_and_all_samples(store, dataset).await;
    matchers_select(store, dataset).await;
    external_labels_answer_matchers(store, dataset).await;
    a_request_without_matchers_is_refused(store).await;
    matchers_may_all_match_the_empty_string_beside_external_labels(store, dataset).await;
    replica_labels_are_removed_before_sorting(store, dataset).await;
    label_sets_alone_come_without_chunks(store, dataset).await;
    both_ends_of_the_range_belong_to_it(store, dataset).await;
    shards_are_a_partition(store, dataset).await;
    a_limit_cuts_the_answer(store, dataset).await;
    a_dropped_answer_leaves_the_store_usable(store, dataset).await;
}

async fn info_tells_external_labels_and_times(store: &dyn Store, dataset: &Dataset) {
    let info = store.info().await.expect("info");
    assert!(info.apis.store, "info: StoreAPI is not announced");
    assert_eq!(info.label_sets, std::slice::from_ref(&dataset.external), "info: label sets");
    let first = at(START_MILLIS);
    assert!(info.range.min <= first && info.range.max >= at(LAST_MILLIS), "info: range {:?}", info.range);
    assert!(info.supports_sharding && info.supports_without_replica_labels, "info: {info:?}");
}

async fn series_carry_external_labels_and_all_samples(store: &dyn Store, dataset: &Dataset) {
    let case = "all series";
    let series = select(store, case, vec![any_name()]).await;
    assert_eq!(sets(&series), expected(dataset, |_| true, &[]), "{case}");
    for (labels, samples) in &dataset.series {
        let labels = labels.extended(&dataset.external);
        let found = series.iter().find(|s| s.labels == labels).expect("its labels were just compared");
        assert_eq!(floats(case, found, whole()), *samples, "{case}: samples of {labels}");
    }
}

async fn matchers_select(store: &dyn Store, dataset: &Dataset) {
    use MatchOp::{Equal, NotEqual, NotRegex, Regex};
    let name = |value| matcher(Equal, "__name__", value);
    for matchers in [
        vec![name("up")],
        vec![name("requests_total"), matcher(Equal, "job", "api")],
        vec![name("requests_total"), matcher(NotEqual, "job", "api")],
        vec![name("requests_total"), matcher(Regex, "instance", "i-1.*")],
        vec![name("requests_total"), matcher(NotRegex, "instance", "i-(1|2)")],
        vec![name("sorts"), matcher(Equal, "zone", "")],
        vec![name("sorts"), matcher(NotEqual, "zone", "")],
        vec![name("text"), matcher(Equal, "job", "a\"b\\c\nd")],
        vec![name("text"), matcher(Regex, "word", "gr.+")],
        vec![name("nothing_has_this_name")],
    ] {
        let case = format!("select {matchers:?}");
        let series = select(store, &case, matchers.clone()).await;
        let keep = |labels: &Labels| matchers.iter().all(|m| m.matches_labels(labels));
        assert_eq!(sets(&series), expected(dataset, keep, &[]), "{case}");
    }
}

async fn external_labels_answer_matchers(store: &dyn Store, dataset: &Dataset) {
    use MatchOp::{Equal, NotEqual, NotRegex, Regex};
    for (matcher, holds) in [
        (matcher(Equal, "cluster", "eu-1"), true),
        (matcher(Equal, "cluster", "us-1"), false),
        (matcher(Equal, "cluster", ""), false),
        // The own value of a series, which the external value overrides.
        (matcher(Equal, "cluster", "liar"), false),
        (matcher(NotEqual, "cluster", "liar"), true),
        (matcher(NotEqual, "cluster", "eu-1"), false),
        (matcher(Regex, "cluster", "eu-.+"), true),
        (matcher(Regex, "cluster", "|us-1"), false),
        (matcher(NotRegex, "replica", "b|c"), true),
        (matcher(NotRegex, "replica", "a|b"), false),
        (matcher(Equal, "region", ""), true),
        (matcher(Equal, "region", "x"), false),
    ] {
        let case = format!("external {matcher}");
        let series = select(store, &case, vec![any_name(), matcher.clone()]).await;
        assert_eq!(sets(&series), expected(dataset, |_| holds, &[]), "{case}");
    }
}

async fn a_request_without_matchers_is_refused(store: &dyn Store) {
    let answer = match store.series(SeriesRequest::new(whole(), vec![])).await {
        Err(error) => Err(error),
        Ok(stream) => collect_series(stream).await,
    };
    assert_eq!(answer.map_err(|error| error.code()), Err(Code::InvalidArgument), "no matchers");
}

/// Dashboards ask such questions when the user selects all values of a variable.
async fn matchers_may_all_match_the_empty_string_beside_external_labels(
    store: &dyn Store,
    dataset: &Dataset,
) {
    use MatchOp::{Equal, NotEqual, Regex};
    for more in [
        vec![],
        vec![matcher(Equal, "replica", "a")],
        // Before Prometheus 3, the dot does not match the line feed that one job has.
        vec![matcher(Regex, "instance", ".*")],
        vec![matcher(NotEqual, "job", "db")],
        vec![matcher(Equal, "instance", "")],
        vec![matcher(Equal, "pod", ""), matcher(Regex, "instance", "|i-1")],
    ] {
        let case = format!("cluster and {more:?}");
        let matchers: Vec<Matcher> = [Matcher::equal("cluster", "eu-1")].into_iter().chain(more).collect();
        let keep = |labels: &Labels| matchers.iter().all(|m| m.matches_labels(labels));
        for skip_chunks in [false, true] {
            let mut request = SeriesRequest::new(whole(), matchers.clone());
            request.skip_chunks = skip_chunks;
            let series = ask(store, &case, request).await;
            assert_eq!(sets(&series), expected(dataset, keep, &[]), "{case}, skip_chunks {skip_chunks}");
        }
    }
}

async fn replica_labels_are_removed_before_sorting(store: &dyn Store, dataset: &Dataset) {
    for without in
        [&["replica"][..], &["replica", "pod"], &["pod"], &["job", "cluster"], &["nobody_has_this"]]
    {
        let case = format!("without {without:?}");
        let mut request = SeriesRequest::new(whole(), vec![any_name()]);
        request.without_replica_labels = without.iter().map(|name| (*name).to_owned()).collect();
        for skip_chunks in [false, true] {
            request.skip_chunks = skip_chunks;
            let series = ask(store, &case, request.clone()).await;
            assert_eq!(sets(&series), expected(dataset, |_| true, without), "{case}, {skip_chunks}");
        }
    }
    // Series that become equal keep the chunks of both.
    let mut request = SeriesRequest::new(whole(), vec![Matcher::equal("__name__", "twins")]);
    let apart: usize = ask(store, "twins", request.clone()).await.iter().map(|s| s.chunks.len()).sum();
    request.without_replica_labels = vec!["pod".to_owned()];
    let joined = ask(store, "twins", request).await;
    assert_eq!(joined.len(), 1, "twins: {joined:?}");
    assert_eq!(joined[0].chunks.len(), apart, "twins: chunks were lost");
}

async fn label_sets_alone_come_without_chunks(store: &dyn Store, dataset: &Dataset) {
    let mut request = SeriesRequest::new(whole(), vec![any_name()]);
    request.skip_chunks = true;
    let series = ask(store, "skip_chunks", request).await;
    assert_eq!(sets(&series), expected(dataset, |_| true, &[]), "skip_chunks");
    assert!(series.iter().all(|s| s.chunks.is_empty()), "skip_chunks: there are chunks");
}

async fn both_ends_of_the_range_belong_to_it(store: &dyn Store, dataset: &Dataset) {
    let matchers = vec![Matcher::equal("__name__", "up")];
    let (_, samples) = dataset.series.last().expect("the data set has series");
    for (min, max) in [
        (START_MILLIS, START_MILLIS),
        (LAST_MILLIS, LAST_MILLIS),
        (START_MILLIS - 3_600_000, START_MILLIS),
        (LAST_MILLIS, LAST_MILLIS + 3_600_000),
        (START_MILLIS + 100 * INTERVAL_MILLIS, START_MILLIS + 150 * INTERVAL_MILLIS),
    ] {
        let case = format!("range {min}..={max}");
        let range = TimeRange::new(at(min), at(max));
        let series = ask(store, &case, SeriesRequest::new(range, matchers.clone())).await;
        assert_eq!(series.len(), 1, "{case}: {series:?}");
        let within: Vec<Sample> = samples.iter().filter(|s| range.contains(s.timestamp)).copied().collect();
        assert_eq!(floats(&case, &series[0], range), within, "{case}");
    }
    for (min, max) in [
        (START_MILLIS - 7_200_000, START_MILLIS - 3_600_000),
        (LAST_MILLIS + 3_600_000, LAST_MILLIS + 7_200_000),
    ] {
        let case = format!("range {min}..={max}, outside");
        let range = TimeRange::new(at(min), at(max));
        let series = ask(store, &case, SeriesRequest::new(range, matchers.clone())).await;
        assert!(series.is_empty(), "{case}: {series:?}");
    }
}

async fn shards_are_a_partition(store: &dyn Store, dataset: &Dataset) {
    for (by, labels) in
        [(false, vec![]), (true, vec!["job".to_owned()]), (false, vec!["instance".to_owned()])]
    {
        for skip_chunks in [false, true] {
            let case = format!("shard by {by} {labels:?}, skip_chunks {skip_chunks}");
            let mut found = Vec::new();
            for index in 0..3 {
                let mut request = SeriesRequest::new(whole(), vec![any_name()]);
                request.skip_chunks = skip_chunks;
                request.without_replica_labels = vec!["replica".to_owned()];
                let shard = Shard { index, total: 3, by, labels: labels.clone() };
                request.shard = Some(shard.clone());
                let part = sets(&ask(store, &case, request).await);
                let want = expected(dataset, |l| shard.keeps(&l.without(|n| n == "replica")), &["replica"]);
                assert_eq!(part, want, "{case}: part {index}");
                found.extend(part);
            }
            found.sort();
            assert_eq!(found, expected(dataset, |_| true, &["replica"]), "{case}");
        }
    }
}

async fn a_limit_cuts_the_answer(store: &dyn Store, dataset: &Dataset) {
    let every = expected(dataset, |_| true, &[]);
    for (limit, skip_chunks) in [(2, false), (2, true), (1000, false), (1000, true)] {
        let case = format!("limit {limit}, skip_chunks {skip_chunks}");
        let mut request = SeriesRequest::new(whole(), vec![any_name()]);
        request.limit = Some(limit);
        request.skip_chunks = skip_chunks;
        let series = ask(store, &case, request).await;
        assert_eq!(series.len(), limit.min(every.len()), "{case}");
        assert!(series.iter().all(|s| every.contains(&s.labels)), "{case}: {:?}", sets(&series));
    }
}

async fn a_dropped_answer_leaves_the_store_usable(store: &dyn Store, dataset: &Dataset) {
    for _ in 0..20 {
        let request = SeriesRequest::new(whole(), vec![any_name()]);
        let mut stream = store.series(request).await.expect("cancelled answer");
        stream.next().await.expect("cancelled answer: first frame").expect("cancelled answer: first frame");
    }
    let series = select(store, "after cancelled answers", vec![any_name()]).await;
    assert_eq!(series.len(), dataset.series.len(), "after cancelled answers");
}

pub(super) async fn empty(store: &dyn Store) {
    let series = select(store, "empty store", vec![any_name()]).await;
    assert!(series.is_empty(), "empty store: {series:?}");
    let unmatched = labels_of(&[("cluster", "eu-1")]);
    let info = store.info().await.expect("info of an empty store");
    assert!(info.label_sets.iter().all(|set| set.get("cluster") == unmatched.get("cluster")), "{info:?}");
}
