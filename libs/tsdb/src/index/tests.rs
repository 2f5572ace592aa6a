//! Matchers against trying them on every series, with an index in memory and with one that is read by the page.

use std::collections::BTreeSet;

use bytes::Bytes;
use model::{MatchOp, Matcher};

use super::*;
use crate::{BlockOptions, LocalFile, Workload};

/// Nothing stays in memory, and few offsets.
const NOTHING: Keep = Keep { symbols_bytes: 0, table_bytes: 0, symbol_offsets: 7 };

/// An index of many label values, all of it in memory and none of it.
fn indices() -> (tempfile::TempDir, [Index; 2]) {
    let dir = tempfile::tempdir().unwrap();
    let workload = Workload {
        series: 6_000,
        series_per_target: 2,
        interval: std::time::Duration::from_secs(3600),
        ..Workload::default()
    };
    let meta = workload.write(dir.path(), BlockOptions::new(Ulid::from_parts(1, 1)), &mut |_| {}).unwrap();
    let path = dir.path().join(meta.ulid.to_string()).join("index");
    let name = Arc::from("b");
    let open = |keep| {
        let file = LocalFile::open(&path).unwrap();
        Index::open_keeping(&name, Arc::new(file), keep).unwrap()
    };
    let indices = [open(Keep::default()), open(NOTHING)];
    (dir, indices)
}

fn matcher(op: MatchOp, name: &str, value: &str) -> Matcher {
    Matcher::new(op, name, value).unwrap()
}

#[test]
fn matchers_find_what_trying_every_series_finds() {
    let (_dir, indices) = indices();
    let all: Vec<SeriesEntry> =
        indices[0].scan(indices[0].all_postings().unwrap().into_iter()).collect::<Result<_, _>>().unwrap();
    assert_eq!(all.len(), 6_000);
    let pod = all[17].labels.value("pod");
    let names = ["job", "pod", "instance", "absent", "zone", ""];
    let values = [
        "",
        "api",
        pod,
        ".*",
        ".+",
        "a.*",
        "api|web|none",
        "|api",
        ".*7",
        "10\\.0\\..*",
        "[a-c].*",
        "x",
        "zone-[ab]",
    ];
    let ops = [MatchOp::Equal, MatchOp::NotEqual, MatchOp::Regex, MatchOp::NotRegex];
    let mut matchers = Vec::new();
    for name in names {
        for value in values {
            matchers.extend(ops.iter().map(|op| vec![matcher(*op, name, value)]));
        }
    }
    matchers.push(Vec::new());
    matchers.push(vec![matcher(MatchOp::Equal, "job", "api"), matcher(MatchOp::Regex, "pod", "a.*")]);
    matchers
        .push(vec![matcher(MatchOp::NotEqual, "job", "api"), matcher(MatchOp::NotRegex, "pod", "[a-m].*")]);
    matchers.push(vec![matcher(MatchOp::Equal, "job", "none"), matcher(MatchOp::Regex, "pod", ".+")]);
    matchers.push(vec![
        matcher(MatchOp::Equal, "absent", ""),
        matcher(MatchOp::Regex, "job", "api|web"),
        matcher(MatchOp::NotEqual, "pod", pod),
    ]);
    for matchers in matchers {
        let expected: BTreeSet<SeriesRef> = all
            .iter()
            .filter(|series| matchers.iter().all(|m| m.matches_labels(&series.labels)))
            .map(|series| series.reference)
            .collect();
        for index in &indices {
            let found = index.matching(&matchers).unwrap();
            assert!(found.iter().eq(expected.iter().copied()), "{matchers:?}: {} found", found.len());
        }
    }
}

#[test]
fn an_index_read_by_the_page_is_the_same_as_one_in_memory() {
    let (_dir, [whole, paged]) = indices();
    let names: Vec<(String, u64)> = whole.label_names().map(|(name, n)| (name.to_owned(), n)).collect();
    assert!(paged.label_names().eq(names.iter().map(|(name, n)| (name.as_str(), *n))));
    for (name, count) in names {
        let values = whole.label_values(&name).unwrap();
        assert_eq!(values.len() as u64, count);
        assert!(values.is_sorted_by(|a, b| a < b), "{name}");
        assert_eq!(paged.label_values(&name).unwrap(), values);
        for value in values.iter().step_by(values.len() / 40 + 1) {
            let list = whole.postings(&name, value).unwrap();
            assert!(!list.is_empty());
            assert_eq!(paged.postings(&name, value).unwrap(), list);
            let beside = format!("{value}!");
            assert!(paged.postings(&name, &beside).unwrap().is_empty());
        }
    }
    assert!(whole.label_values("").unwrap().is_empty() && whole.postings("", "").unwrap().is_empty());
    let all = whole.all_postings().unwrap();
    let entries = |index: &Index, series: &Postings| -> Vec<SeriesEntry> {
        index.scan(series.clone().into_iter()).collect::<Result<_, _>>().unwrap()
    };
    assert_eq!(entries(&whole, &all), entries(&paged, &all));
    let some: Postings = all.iter().step_by(701).collect();
    for (entry, reference) in entries(&paged, &some).into_iter().zip(some.iter()) {
        assert_eq!((entry.reference, &entry), (reference, &whole.series(reference).unwrap()));
    }
}

#[test]
fn what_is_no_series_or_no_index_is_refused() {
    let (dir, [index, _]) = indices();
    let last = index.all_postings().unwrap().into_iter().last().unwrap();
    for reference in [SeriesRef(0), SeriesRef(1), SeriesRef(last.0 + 1), SeriesRef(u32::MAX)] {
        let error = index.series(reference).unwrap_err();
        assert_eq!(error.part, BlockPart::Series, "{error}");
        assert!(error.offset.is_some());
    }
    for bytes in [&b""[..], b"no index", &[0; 100]] {
        let error = Index::open(Ulid::nil(), Arc::new(Bytes::copy_from_slice(bytes))).err().unwrap();
        assert!(error.to_string().contains("index, header at byte 0"), "{error}");
    }
    drop(dir);
}
