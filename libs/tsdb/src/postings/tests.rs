//! Compares the operations with those of sets of the standard library.

use std::collections::BTreeSet;

use super::*;
use crate::random::Random;

fn encoded(numbers: &BTreeSet<u32>) -> Postings {
    let bytes: Vec<u8> = numbers.iter().flat_map(|n| n.to_be_bytes()).collect();
    Postings::encoded(bytes.into()).unwrap()
}

fn decoded(numbers: &BTreeSet<u32>) -> Postings {
    numbers.iter().copied().map(SeriesRef).collect()
}

fn set(postings: &Postings) -> BTreeSet<u32> {
    let numbers: Vec<u32> = postings.iter().map(|series| series.0).collect();
    assert!(numbers.is_sorted_by(|a, b| a < b), "series ascend");
    numbers.into_iter().collect()
}

/// A set of `size` numbers: scattered below `bound`, or in runs.
fn random_set(random: &mut Random, size: usize, bound: usize) -> BTreeSet<u32> {
    let mut out = BTreeSet::new();
    while out.len() < size {
        let start = random.below(bound) as u32;
        let run = if random.below(2) == 0 { 1 } else { random.below(50) as u32 + 1 };
        out.extend((start..start.saturating_add(run)).take(size - out.len()));
    }
    out
}

#[test]
fn a_slice_has_the_series_at_its_positions() {
    let numbers: BTreeSet<u32> = (0..10).map(|n| n * 7).collect();
    for postings in [encoded(&numbers), decoded(&numbers)] {
        for (range, expected) in
            [(0..3, 0..3), (3..10, 3..10), (8..99, 8..10), (12..20, 10..10), (4..4, 4..4)]
        {
            let expected: BTreeSet<u32> = expected.map(|n| n * 7).collect();
            assert_eq!(set(&postings.slice(range)), expected);
        }
        assert!(postings.memory_bytes() >= 40);
    }
}

#[test]
fn operations_agree_with_sets() {
    let seed = 17;
    let mut random = Random::seeded(seed);
    for round in 0..300 {
        let sizes = [0, 1, 2, 3, 40, 900, 5_000];
        let bound = [6_000, 100_000, u32::MAX as usize][random.below(3)];
        let sets: Vec<BTreeSet<u32>> = (0..random.below(5))
            .map(|_| {
                let size = sizes[random.below(sizes.len())];
                random_set(&mut random, size, bound)
            })
            .collect();
        let lists: Vec<Postings> =
            sets.iter().map(|set| if random.below(2) == 0 { encoded(set) } else { decoded(set) }).collect();
        let union: BTreeSet<u32> = sets.iter().flatten().copied().collect();
        assert_eq!(set(&Postings::union(&lists)), union, "seed {seed}, round {round}");
        if let ([a, b, ..], [list_a, list_b, ..]) = (sets.as_slice(), lists.as_slice()) {
            assert_eq!(set(&list_a.intersect(list_b)), a & b, "seed {seed}, round {round}");
            assert_eq!(set(&list_a.difference(list_b)), a - b, "seed {seed}, round {round}");
            assert_eq!(list_a == list_b, a == b);
            for &number in a.iter().chain(b).take(50) {
                assert_eq!(list_a.contains(SeriesRef(number)), a.contains(&number));
            }
        }
    }
}

#[test]
fn seeking_finds_the_first_that_is_not_below() {
    let numbers: Vec<u32> = (0..200).map(|n| n * 3).collect();
    let list = numbers.as_slice();
    for from in 0..=numbers.len() {
        for target in 0..620 {
            let expected = (from..numbers.len()).find(|&i| numbers[i] >= target).unwrap_or(numbers.len());
            assert_eq!(list.seek(from, target), expected, "from {from} to {target}");
        }
    }
}

#[test]
fn lists_that_do_not_ascend_are_rejected() {
    for numbers in [&[1u32, 1][..], &[2, 1], &[0, u32::MAX, 5]] {
        let bytes: Vec<u8> = numbers.iter().flat_map(|n| n.to_be_bytes()).collect();
        assert!(Union::default().push_encoded(&bytes).is_none());
        assert!(Postings::encoded(bytes.into()).is_none());
    }
    assert!(Postings::encoded(Bytes::from_static(&[0, 0, 0])).is_none(), "a number is cut off");
}
