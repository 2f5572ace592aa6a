use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use model::{Labels, Matcher, TimeRange, Timestamp};
use object_store::memory::InMemory;
use serde_json::{Value, json};
use tsdb::{BlockMeta, ThanosMeta, Ulid};

use super::mark::MAX_BYTES;
use super::*;
use crate::bucket::Bucket;
use crate::fault::{Faults, FaultyStore};
use crate::layout;
use crate::retry::Retry;

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

fn deletion(id: &str, matchers: &[(&str, &str)], min: i64, max: i64) -> Arc<Deletion> {
    Arc::new(Deletion {
        id: id.to_owned(),
        matchers: matchers.iter().map(|(name, value)| Matcher::equal(name, value)).collect(),
        range: TimeRange::new(at(min), at(max)),
        time: at(5),
        details: Some("why".to_owned()),
    })
}

/// A block with the external labels, from 0 to 100.
fn block(number: u128, sources: &[u128], cluster: &str, done: &[&Deletion]) -> Arc<BlockMeta> {
    let mut meta = BlockMeta::new(Ulid::from_parts(1, number), at(0), at(100));
    meta.compaction.sources = sources.iter().map(|source| Ulid::from_parts(1, *source)).collect();
    let mut thanos = ThanosMeta::default();
    thanos.labels.insert("cluster".to_owned(), cluster.to_owned());
    let done: Vec<Value> = done.iter().map(|deletion| deletion.log_entry()).collect();
    thanos.rewrites.push(json!({ "sources": [], "deletions_applied": done }));
    meta.thanos = Some(thanos);
    Arc::new(meta)
}

fn mark(number: u128, deletions: &[&Arc<Deletion>]) -> TombstonesMark {
    let deletions = deletions.iter().map(|deletion| Arc::clone(deletion)).collect();
    TombstonesMark { block: Ulid::from_parts(1, number), deletions }
}

#[test]
fn a_mark_survives_a_round_trip_and_what_is_not_a_mark_is_refused() {
    let mark = mark(1, &[&deletion("a", &[("job", "x")], 0, 9), &deletion("b", &[("job", "y")], -5, 5)]);
    assert_eq!(TombstonesMark::parse(mark.block, &mark.to_json()), Ok(mark.clone()));
    let check = |content: &str, expected: &str| {
        let error = TombstonesMark::parse(mark.block, content.as_bytes()).unwrap_err();
        assert!(error.contains(expected), "{content}: {error}");
    };
    let with = |deletion: &str| format!(r#"{{"version":1,"id":"{}","deletions":[{deletion}]}}"#, mark.block);
    check("<html>", "expected value");
    check(r#"{"version":2,"id":"","deletions":[]}"#, "its version is 2, expected 1");
    check(r#"{"version":1,"id":"","deletions":[]}"#, "expected 00000000");
    check(&with(r#"{"id":"a","matchers":[],"min_time":0,"max_time":1,"time":0}"#), "needs a matcher");
    let one = r#"{"name":"a","op":"=","value":"b"}"#;
    let of = |op: &str, min: i64| {
        let matcher = one.replace('=', op);
        with(&format!(r#"{{"id":"a","matchers":[{matcher}],"min_time":{min},"max_time":1,"time":0}}"#))
    };
    check(&of("=", 2), "a deletion ends at 1, before it begins at 2");
    check(&of("==", 0), "operator \"==\"");
    check(&of("=", 0).replace(r#""id":"a""#, r#""id":"""#), "an id of 0 bytes");
    check(&with(&" ".repeat(MAX_BYTES)), "expected at most 1048576");
    assert!(TombstonesMark::parse(mark.block, of("=~", 0).as_bytes()).is_ok());
    check(&of("=~", 0).replace(r#""value":"b""#, r#""value":"(""#), "");
}

#[test]
fn a_mark_that_was_changed_at_random_is_a_mark_or_an_error_and_never_a_panic() {
    let mark = mark(1, &[&deletion("a", &[("job", "x")], 0, 9)]);
    let bytes = mark.to_json();
    let mut refused = 0;
    for position in 0..bytes.len() {
        for value in [0, b'"', b'9', b'}', 0xff] {
            let mut changed = bytes.to_vec();
            changed[position] = value;
            refused += usize::from(TombstonesMark::parse(mark.block, &changed).is_err());
        }
        refused += usize::from(TombstonesMark::parse(mark.block, &bytes[..position]).is_err());
    }
    assert!(refused > bytes.len(), "{refused}");
}

#[test]
fn a_deletion_holds_for_blocks_that_share_a_source_until_it_is_done_there() {
    let (x, y) =
        (deletion("x", &[("cluster", "a"), ("job", "j")], 50, 200), deletion("y", &[("job", "j")], 100, 200));
    let marks = BTreeMap::from([(Ulid::from_parts(1, 1), mark(1, &[&x, &y]))]);
    let blocks = [
        block(1, &[1], "a", &[]),
        block(2, &[2], "a", &[]),
        block(3, &[1, 2], "a", &[]),
        block(4, &[1, 2], "a", &[&x]),
        block(5, &[1, 2], "b", &[]),
    ];
    let found = effective(&marks, &blocks);
    let ids: Vec<(u128, Vec<&str>)> = found
        .iter()
        .map(|(id, deletions)| (id.random(), deletions.iter().map(|deletion| &*deletion.id).collect()))
        .collect();
    assert_eq!(ids, [(1, vec!["x"]), (3, vec!["x"])]);
    let of = &found[&Ulid::from_parts(1, 1)];
    let job = |value: &str| Labels::from_pairs([("job", value)]).unwrap();
    assert_eq!(of.of_series(&job("j")).collect::<Vec<_>>(), [x.range]);
    assert_eq!(of.of_series(&job("k")).count(), 0);
    assert_eq!(applied(&blocks[3]), BTreeSet::from(["x"]));
}

#[tokio::test]
async fn many_writers_of_one_mark_lose_no_deletion_although_answers_are_lost() {
    let dir = tempfile::tempdir().unwrap();
    let yaml = format!("type: FILESYSTEM\nconfig: {{directory: {}}}", dir.path().display());
    let local = crate::BucketConfig::parse(&yaml).unwrap().open(&crate::BucketMetrics::default()).unwrap();
    let store = FaultyStore::new(Arc::new(InMemory::new()), 3);
    store.set(Faults { lost_answers: 0.1, errors: 0.1, ..Faults::default() });
    for bucket in [local, Bucket::new(store.clone())] {
        let block = Ulid::from_parts(1, 1);
        let retry = Retry { attempts: 10, delay: Duration::from_millis(1) };
        let writers = (0..8).map(|number| {
            let bucket = bucket.clone();
            tokio::spawn(async move {
                let one = deletion(&number.to_string(), &[("a", "b")], 0, 1);
                // Busy is possible among so many, and then the caller tries again.
                while let Err(error) = add(&bucket, block, std::slice::from_ref(&one), retry).await {
                    assert!(
                        matches!(error, TombstonesError::Busy(_) | TombstonesError::Bucket(_)),
                        "{error}"
                    );
                }
            })
        });
        futures::future::try_join_all(writers).await.unwrap();
        store.set(Faults::default());
        let found = load(&bucket, block, retry).await.unwrap().unwrap();
        assert_eq!(found.deletions.len(), 8);
        remove(&bucket, block).await.unwrap();
        assert_eq!(load(&bucket, block, retry).await.unwrap(), None);
    }
}

#[tokio::test]
async fn an_object_that_is_not_a_mark_is_named_and_left_alone() {
    let bucket = Bucket::new(Arc::new(InMemory::new()));
    let block = Ulid::from_parts(1, 1);
    let name = layout::tombstones_mark(block);
    bucket.put(&name, Bytes::from_static(b"<html>")).await.unwrap();
    let error =
        add(&bucket, block, &[deletion("a", &[("a", "b")], 0, 1)], Retry::default()).await.unwrap_err();
    assert!(
        error.to_string().contains(&name) && error.to_string().contains("correct it, or remove it"),
        "{error}"
    );
    assert_eq!(bucket.get(&name).await.unwrap(), "<html>");
}
