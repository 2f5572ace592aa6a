//! Compares matchers with a check of every series, and an index that keeps everything in memory with one that keeps little.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use model::{MatchOp, Matcher};

use super::*;
use crate::random::Random;
use crate::{BlockOptions, LocalFile, Workload};

/// Nothing stays in memory, and few offsets.
const NOTHING: IndexMemory =
    IndexMemory { symbols_bytes: 0, postings_table_bytes: 0, symbol_stride: 1 << 10, value_stride: 1 << 10 };

/// Every mode, the one that is kept in memory whole first.
const MODES: [IndexMemory; 4] = [IndexMemory::WHOLE, IndexMemory::SAMPLED, NOTHING, DEFAULT];
const DEFAULT: IndexMemory = IndexMemory {
    symbols_bytes: 24 << 20,
    postings_table_bytes: 16 << 20,
    symbol_stride: 1,
    value_stride: 32,
};

/// An index of many label values, opened in each of [`MODES`].
fn indices() -> (tempfile::TempDir, [Index; 4]) {
    let dir = tempfile::tempdir().unwrap();
    let workload = Workload {
        series: 6_000,
        series_per_target: 2,
        interval: std::time::Duration::from_secs(3600),
        ..Workload::default()
    };
    let meta = workload.write(dir.path(), BlockOptions::new(Ulid::from_parts(1, 1)), &mut |_| {}).unwrap();
    let path = dir.path().join(meta.ulid.to_string()).join("index");
    let indices = MODES
        .map(|memory| Index::open(meta.ulid, Arc::new(LocalFile::open(&path).unwrap()), memory).unwrap());
    (dir, indices)
}

fn matcher(op: MatchOp, name: &str, value: &str) -> Matcher {
    Matcher::new(op, name, value).unwrap()
}

#[test]
fn matchers_find_the_same_as_a_check_of_every_series() {
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
        let found = lazily(&indices[0], &matchers);
        assert!(found.iter().eq(&expected), "{matchers:?}: {} found lazily", found.len());
    }
}

/// The series that satisfy `matchers`, those that are left to the caller compared with the labels.
fn lazily(index: &Index, matchers: &[Matcher]) -> Vec<SeriesRef> {
    let (found, left) = index.matching_lazily(matchers).unwrap();
    let entries = index.scan(found.into_iter()).map(Result::unwrap);
    let kept = entries.filter(|series| left.iter().all(|matcher| matcher.matches_labels(&series.labels)));
    kept.map(|series| series.reference).collect()
}

/// A file that counts its reads and their bytes. Ranges that are read at once are one read.
struct CountedReads {
    file: Bytes,
    reads: AtomicU64,
    bytes: AtomicU64,
}

impl ReadAt for CountedReads {
    fn size_bytes(&self) -> u64 {
        self.file.size_bytes()
    }

    fn read_at(&self, range: std::ops::Range<u64>) -> std::io::Result<Bytes> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(range.end - range.start, Ordering::Relaxed);
        self.file.read_at(range)
    }

    fn read_many(&self, ranges: &[std::ops::Range<u64>]) -> std::io::Result<Vec<Bytes>> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        let bytes = ranges.iter().map(|range| range.end - range.start).sum();
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.file.read_many(ranges)
    }
}

#[test]
fn entries_that_are_far_apart_are_read_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let workload =
        Workload { series: 40_000, interval: std::time::Duration::from_secs(3600), ..Workload::default() };
    let meta = workload.write(dir.path(), BlockOptions::new(Ulid::from_parts(1, 1)), &mut |_| {}).unwrap();
    let file = Bytes::from(std::fs::read(dir.path().join(meta.ulid.to_string()).join("index")).unwrap());
    let counted = Arc::new(CountedReads { file, reads: AtomicU64::new(0), bytes: AtomicU64::new(0) });
    let index = Index::open(Ulid::nil(), counted.clone(), IndexMemory::WHOLE).unwrap();
    let all: Vec<SeriesRef> = index.all_postings().unwrap().iter().collect();
    for (step, most_reads) in [(1, 8), (700, 1), (13_000, 1)] {
        let some: Vec<SeriesRef> = all.iter().copied().step_by(step).collect();
        let before = counted.reads.load(Ordering::Relaxed);
        let found: Vec<SeriesRef> =
            index.scan(some.iter().copied()).map(|entry| entry.unwrap().reference).collect();
        assert_eq!(found, some);
        let reads = counted.reads.load(Ordering::Relaxed) - before;
        assert!(reads <= most_reads, "every {step}th series: {reads} reads");
    }
    // A place that is not an entry is an error in its turn, and the scan goes on.
    let wild = [all[0], SeriesRef(u32::MAX), all[1]];
    let found: Vec<bool> = index.scan(wild.into_iter()).map(|entry| entry.is_ok()).collect();
    assert_eq!(found, [true, false, true]);
}

#[test]
fn a_matcher_that_nearly_every_value_satisfies_costs_as_much_as_one_list() {
    let (dir, _) = indices();
    let block = std::fs::read_dir(dir.path()).unwrap().next().unwrap().unwrap().path();
    let file = Bytes::from(std::fs::read(block.join("index")).unwrap());
    let counted = Arc::new(CountedReads { file, reads: AtomicU64::new(0), bytes: AtomicU64::new(0) });
    let index = Index::open(Ulid::nil(), counted.clone(), IndexMemory::WHOLE).unwrap();
    let read_for = |matchers: &[Matcher]| {
        let before = (counted.reads.load(Ordering::Relaxed), counted.bytes.load(Ordering::Relaxed));
        let (found, left) = index.matching_lazily(matchers).unwrap();
        let reads = counted.reads.load(Ordering::Relaxed) - before.0;
        (found.len(), left.len(), reads, counted.bytes.load(Ordering::Relaxed) - before.1)
    };
    assert!(index.label_values("pod").unwrap().len() > 2_000);
    for every_pod in [matcher(MatchOp::NotEqual, "pod", ""), matcher(MatchOp::Regex, "pod", ".+")] {
        // The lists of all pods have 12 bytes each besides their series; the list of all series has 12 in all.
        assert_eq!(read_for(std::slice::from_ref(&every_pod)), (6_000, 1, 1, 12 + 4 * 6_000));
        let job = matcher(MatchOp::Equal, "job", "api");
        let (found, left, reads, bytes) = read_for(&[every_pod, job.clone()]);
        assert_eq!((found, left, reads), (index.matching(&[job]).unwrap().len(), 1, 1));
        assert_eq!(bytes, 12 + 4 * found as u64);
    }
}

/// The value of a matcher: a value of the label, a part of one, an alternative of several, or another text.
fn random_value(random: &mut Random, values: &[String]) -> String {
    let pick = |random: &mut Random| values[random.below(values.len())].clone();
    match random.below(6) {
        0 => pick(random),
        1 => format!("{}|{}|none", pick(random), pick(random)),
        2 => {
            let value = pick(random);
            format!("{}.*", &value[..1 + random.below(value.len())])
        }
        3 => format!(".*{}", random.below(10)),
        4 => format!("({})?", pick(random)),
        _ => [".+", "", "none", "[a-m].*", ".*-.*"][random.below(5)].to_owned(),
    }
}

#[test]
fn random_matchers_find_the_same_in_every_mode() {
    let (_dir, [whole, others @ ..]) = indices();
    let names: Vec<String> = whole.label_names().map(|(name, _)| name.to_owned()).collect();
    let ops = [MatchOp::Equal, MatchOp::NotEqual, MatchOp::Regex, MatchOp::NotRegex];
    for seed in 0..150 {
        let mut random = Random::seeded(seed);
        let matchers: Vec<Matcher> = (0..1 + random.below(3))
            .map(|_| {
                let name = &names[random.below(names.len())];
                let values = whole.label_values(name).unwrap();
                matcher(ops[random.below(4)], name, &random_value(&mut random, &values))
            })
            .collect();
        let expected = whole.matching(&matchers).unwrap();
        for other in &others {
            assert_eq!(other.matching(&matchers).unwrap(), expected, "seed {seed}: {matchers:?}");
        }
        let found = lazily(&whole, &matchers);
        assert!(found.iter().copied().eq(expected.iter()), "seed {seed}, lazily: {matchers:?}");
    }
}

#[test]
fn each_mode_keeps_no_more_than_it_says() {
    let (dir, indices) = indices();
    let [whole, sampled, nothing, default] = indices.each_ref().map(Index::memory_bytes);
    let size = indices[0].size_bytes() as usize;
    // Both sections are smaller than the limits of the default mode, so it keeps them whole.
    assert!(whole > size / 20 && whole < size && default == whole, "{whole} of {size}");
    let caches = (IndexMemory::SAMPLED.symbols_bytes + IndexMemory::SAMPLED.postings_table_bytes) as usize;
    // Besides caches and label names, memory is at most a hundredth of what the whole sections take.
    assert!(sampled < caches + whole / 100 + 4_000, "{sampled}, caches {caches}, {whole} otherwise");
    assert!(nothing < whole / 500 + 4_000, "{nothing}");

    // The reported memory is an upper bound: it does not grow when everything is read.
    let read_all = |index: &Index| {
        let all = index.all_postings().unwrap();
        assert_eq!(index.scan(all.into_iter()).filter(Result::is_ok).count(), 6_000);
        index.memory_bytes()
    };
    assert_eq!(indices.each_ref().map(read_all), [whole, sampled, nothing, default]);
    assert_eq!(IndexMemory::default(), DEFAULT);
    drop(dir);
}

/// Prints the memory of each mode, for the documentation: `cargo test -p tsdb --lib million_series -- --ignored --nocapture`.
#[test]
#[ignore = "writes blocks of a million series, which takes a minute"]
fn memory_of_a_block_of_a_million_series() {
    for series_per_target in [100, 1] {
        let dir = tempfile::tempdir().unwrap();
        let workload = Workload {
            series: 1_000_000,
            series_per_target,
            interval: std::time::Duration::from_secs(3600),
            ..Workload::default()
        };
        let meta = workload.write(dir.path(), BlockOptions::new(Ulid::nil()), &mut |_| {}).unwrap();
        let path = dir.path().join(meta.ulid.to_string()).join("index");
        let file = Arc::new(LocalFile::open(&path).unwrap());
        println!("{series_per_target} series of a target, index of {} bytes", file.size_bytes());
        for memory in MODES {
            let index = Index::open(meta.ulid, file.clone(), memory).unwrap();
            println!("{:>9} bytes: {memory:?}", index.memory_bytes());
        }
    }
}

/// Counts reads of a file.
struct Counted {
    file: LocalFile,
    reads: std::sync::atomic::AtomicUsize,
}

impl ReadAt for Counted {
    fn size_bytes(&self) -> u64 {
        self.file.size_bytes()
    }

    fn read_at(&self, range: std::ops::Range<u64>) -> std::io::Result<Bytes> {
        self.reads.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.file.read_at(range)
    }
}

#[test]
fn opening_takes_four_reads_and_a_lookup_at_most_one_more_for_each_part() {
    let (dir, [index, ..]) = indices();
    let pod = index.label_values("pod").unwrap().remove(1_000);
    let path = std::fs::read_dir(dir.path()).unwrap().next().unwrap().unwrap().path().join("index");
    for (memory, lookup) in MODES.into_iter().zip([1, 2, 2, 1]) {
        let file = LocalFile::open(&path).unwrap();
        let file = Arc::new(Counted { file, reads: 0.into() });
        let reads = || file.reads.swap(0, std::sync::atomic::Ordering::Relaxed);
        let index = Index::open(Ulid::nil(), file.clone(), memory).unwrap();
        assert_eq!(reads(), 4, "{memory:?}");
        assert!(!index.postings("pod", &pod).unwrap().is_empty());
        let most = if memory == NOTHING { 2 * lookup } else { lookup };
        assert!((lookup..=most).contains(&reads()), "{memory:?}");
    }
}

#[test]
fn an_index_read_by_the_page_is_the_same_as_one_in_memory() {
    let (_dir, [whole, sampled, nothing, _]) = indices();
    compare(&whole, &sampled);
    compare(&whole, &nothing);
}

fn compare(whole: &Index, paged: &Index) {
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
    assert_eq!(entries(whole, &all), entries(paged, &all));
    let some: Postings = all.iter().step_by(701).collect();
    for (entry, reference) in entries(paged, &some).into_iter().zip(some.iter()) {
        assert_eq!((entry.reference, &entry), (reference, &whole.series(reference).unwrap()));
    }
}

#[test]
fn what_is_not_a_series_or_not_an_index_is_rejected() {
    let (dir, [index, ..]) = indices();
    let last = index.all_postings().unwrap().into_iter().last().unwrap();
    for reference in [SeriesRef(0), SeriesRef(1), SeriesRef(last.0 + 1), SeriesRef(u32::MAX)] {
        let error = index.series(reference).unwrap_err();
        assert_eq!(error.part, BlockPart::Series, "{error}");
        assert!(error.offset.is_some());
    }
    for bytes in [&b""[..], b"no index", &[0; 100]] {
        let error = Index::open(Ulid::nil(), Arc::new(Bytes::copy_from_slice(bytes)), DEFAULT).err().unwrap();
        assert!(error.to_string().contains("index, header at byte 0"), "{error}");
    }
    drop(dir);
}
