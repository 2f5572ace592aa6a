use std::collections::BTreeMap;

use super::*;
use crate::testing::{Random, labels, raw};

/// Series of one input: few label sets, so that inputs share many and some repeat within one.
fn random_input(random: &mut Random) -> Vec<Series> {
    let names = ["a", "b", "c"];
    let mut input: Vec<Series> = (0..random.below(40))
        .map(|_| {
            let values: Vec<String> = (0..3).map(|_| random.below(4).to_string()).collect();
            let pairs: Vec<_> = names.iter().copied().zip(values.iter().map(String::as_str)).collect();
            let pairs = &pairs[..1 + random.below(3)];
            let chunks = (0..random.below(3)).map(|_| raw(&[(random.below(1000) as i64, 1.0)])).collect();
            Series { labels: labels(pairs), chunks }
        })
        .collect();
    input.sort_by(|a, b| a.labels.cmp(&b.labels));
    input
}

/// Drives a merge with batches of random size, which are offered in random order.
fn merge(inputs: &[Vec<Series>], random: &mut Random) -> Vec<MergedSeries> {
    let mut left: Vec<&[Series]> = inputs.iter().map(Vec::as_slice).collect();
    let mut merge = Merge::new(inputs.len());
    let mut out = Vec::new();
    loop {
        match merge.step() {
            Step::NeedsBatch(wanted) => {
                let eager = random.below(inputs.len());
                let input = if merge.needs_batch(eager) { eager } else { wanted };
                let (batch, rest) = left[input].split_at(random.below(left[input].len() + 1).min(5));
                if left[input].is_empty() {
                    merge.end(input);
                } else {
                    merge.offer(input, batch.to_vec()).unwrap();
                }
                left[input] = rest;
            }
            Step::Series(series) => out.push(series),
            Step::Done => break,
        }
    }
    assert_eq!(merge.step(), Step::Done);
    out
}

/// The expected result, by sorting everything.
fn merge_slowly(inputs: &[Vec<Series>]) -> Vec<MergedSeries> {
    let mut all: BTreeMap<Labels, BTreeMap<usize, Vec<AggrChunk>>> = BTreeMap::new();
    for (input, series) in inputs.iter().enumerate() {
        for series in series {
            let chunks = all.entry(series.labels.clone()).or_default().entry(input).or_default();
            chunks.extend(series.chunks.iter().cloned());
        }
    }
    let contributions = |by_input: BTreeMap<usize, Vec<AggrChunk>>| {
        by_input.into_iter().map(|(input, chunks)| Contribution { input, chunks }).collect()
    };
    all.into_iter()
        .map(|(labels, by_input)| MergedSeries { labels, contributions: contributions(by_input) })
        .collect()
}

#[test]
fn a_merge_is_the_sorted_concatenation_however_it_is_cut_into_batches() {
    for seed in 0..300 {
        let random = &mut Random::seeded(seed);
        let inputs: Vec<_> = (0..1 + random.below(9)).map(|_| random_input(random)).collect();
        let expected = merge_slowly(&inputs);
        for _ in 0..3 {
            assert_eq!(merge(&inputs, random), expected, "seed {seed}");
        }
    }
}

#[test]
fn a_merge_of_nothing_is_done() {
    assert_eq!(Merge::new(0).step(), Step::Done);
}

fn plain(value: &str) -> Series {
    Series { labels: labels(&[("a", value)]), chunks: Vec::new() }
}

#[test]
fn errors_name_an_unsorted_input_and_the_others_continue() {
    let mut merge = Merge::new(2);
    merge.offer(0, vec![plain("1"), plain("5")]).unwrap();
    merge.offer(1, vec![plain("3")]).unwrap();
    assert!(matches!(merge.step(), Step::Series(series) if series.labels == plain("1").labels));
    assert_eq!(merge.step(), Step::NeedsBatch(1));
    let refused = merge.offer(1, vec![plain("4"), plain("4"), plain("2")]).unwrap_err();
    assert_eq!(refused.to_string(), r#"input 1 is not sorted: {a="2"} came after {a="4"}"#);
    // A batch must also not sort before the one before it.
    let refused = merge.offer(1, vec![plain("2")]).unwrap_err();
    assert_eq!(refused.to_string(), r#"input 1 is not sorted: {a="2"} came after {a="3"}"#);
    merge.end(1);
    assert!(matches!(merge.step(), Step::Series(series) if series.labels == plain("3").labels));
    assert_eq!(merge.step(), Step::NeedsBatch(0));
    merge.end(0);
    assert!(matches!(merge.step(), Step::Series(series) if series.labels == plain("5").labels));
    assert_eq!(merge.step(), Step::Done);
}

#[test]
fn at_most_one_batch_of_an_input_is_in_memory() {
    let mut merge = Merge::new(2);
    assert!(merge.needs_batch(0) && merge.needs_batch(1) && !merge.needs_batch(2));
    merge.offer(0, vec![plain("1")]).unwrap();
    assert!(!merge.needs_batch(0));
    for input in [0, 2] {
        assert_eq!(merge.offer(input, vec![plain("2")]), Err(MergeError::UnexpectedBatch { input }));
    }
    merge.end(1);
    assert_eq!(merge.offer(1, vec![]), Err(MergeError::UnexpectedBatch { input: 1 }));
}
