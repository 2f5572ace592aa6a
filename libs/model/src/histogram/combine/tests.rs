use super::*;
use crate::histogram::{BucketSpan, CUSTOM_BUCKETS_SCHEMA, TrimSide};

fn exponential(schema: i32, offset: i32, buckets: &[f64]) -> FloatHistogram {
    FloatHistogram {
        schema,
        count: buckets.iter().sum(),
        sum: 1.0,
        positive_spans: vec![BucketSpan { offset, length: buckets.len() as u32 }],
        positive_buckets: buckets.to_vec(),
        ..FloatHistogram::default()
    }
}

fn custom(bounds: &[f64], buckets: &[f64]) -> FloatHistogram {
    FloatHistogram { custom_values: bounds.to_vec(), ..exponential(CUSTOM_BUCKETS_SCHEMA, 0, buckets) }
}

fn cells(histogram: &FloatHistogram) -> Vec<(i64, f64)> {
    numbered_buckets(&histogram.positive_spans, &histogram.positive_buckets).collect()
}

#[test]
fn the_sum_has_the_buckets_of_both() {
    let mut sum = exponential(0, 0, &[1.0, 2.0]);
    assert_eq!(sum.add(&exponential(0, 1, &[4.0, 0.0, 8.0])), Ok(Combined::default()));
    assert_eq!(cells(&sum), [(0, 1.0), (1, 6.0), (2, 0.0), (3, 8.0)]);
    assert_eq!((sum.count, sum.sum), (15.0, 2.0));
    sum.compact();
    assert_eq!(cells(&sum), [(0, 1.0), (1, 6.0), (3, 8.0)]);
    assert_eq!(sum.validate(), Ok(()));
}

#[test]
fn the_coarser_schema_and_the_wider_zero_bucket_win() {
    let mut fine = exponential(1, 1, &[1.0, 1.0, 1.0, 1.0]);
    fine.add(&exponential(0, 1, &[10.0])).unwrap();
    assert_eq!((fine.schema, cells(&fine)), (0, vec![(1, 12.0), (2, 2.0)]));
    let mut narrow = exponential(0, 0, &[1.0, 2.0]);
    let wide = FloatHistogram { zero_threshold: 1.0, zero_count: 5.0, ..exponential(0, 1, &[3.0]) };
    narrow.add(&wide).unwrap();
    assert_eq!((narrow.zero_threshold, narrow.zero_count, cells(&narrow)), (1.0, 6.0, vec![(1, 5.0)]));
}

#[test]
fn only_common_custom_bounds_are_kept() {
    let mut sum = custom(&[1.0, 2.0, 4.0], &[1.0, 1.0, 1.0, 1.0]);
    let combined = sum.add(&custom(&[2.0, 3.0], &[5.0, 6.0, 7.0])).unwrap();
    assert!(combined.reconciled);
    assert_eq!((sum.custom_values.as_slice(), cells(&sum)), (&[2.0][..], vec![(0, 7.0), (1, 15.0)]));
    assert_eq!(sum.add(&exponential(0, 0, &[1.0])), Err(IncompatibleSchemas));
}

#[test]
fn kahan_add_collects_what_rounding_loses() {
    let large = exponential(0, 0, &[1e100]);
    let mut negative = large.clone();
    negative.mul(-1.0);
    let (mut sum, mut lost) = (large, None);
    for part in [exponential(0, 0, &[1.0]), negative] {
        sum.kahan_add(&part, &mut lost).unwrap();
    }
    assert_eq!(sum.count, 0.0);
    sum.add(&lost.unwrap()).unwrap();
    assert_eq!((sum.count, cells(&sum)), (1.0, vec![(0, 1.0)]));
}

#[test]
fn contradicting_reset_hints_are_reported() {
    let hinted = |hint| FloatHistogram { counter_reset_hint: hint, ..exponential(0, 0, &[1.0]) };
    let add = |a, b| {
        let mut sum = hinted(a);
        let collision = sum.add(&hinted(b)).unwrap().collision;
        (sum.counter_reset_hint, collision)
    };
    use CounterResetHint::{Gauge, NotReset, Reset, Unknown};
    assert_eq!(add(Reset, NotReset), (Unknown, true));
    assert_eq!(add(NotReset, NotReset), (NotReset, false));
    assert_eq!(add(Unknown, Reset), (Unknown, false));
    assert_eq!(add(Reset, Gauge), (Gauge, false));
}

#[test]
fn a_lower_count_or_a_finer_layout_is_a_reset() {
    let check = |before: &FloatHistogram, now: &FloatHistogram, reset| {
        assert_eq!(now.detect_reset(before), reset, "{before:?} {now:?}");
    };
    let base = exponential(0, 0, &[1.0, 2.0]);
    check(&base, &base, false);
    check(&base, &exponential(0, 0, &[2.0, 1.0]), true);
    check(&base, &exponential(0, 0, &[3.0]), true);
    check(&base, &exponential(0, -1, &[1.0, 1.0, 2.0]), false);
    check(&base, &exponential(1, 0, &[2.0, 2.0, 2.0]), true);
    check(&exponential(1, 1, &[1.0, 1.0]), &exponential(0, 1, &[2.0]), false);
    let wider = FloatHistogram { zero_threshold: 1.0, zero_count: 1.0, ..exponential(0, 1, &[2.0]) };
    let wider = FloatHistogram { count: 3.0, ..wider };
    check(&base, &wider, false);
    check(&wider, &base, true);
    check(&custom(&[1.0, 2.0], &[1.0, 1.0]), &custom(&[2.0], &[2.0]), false);
    check(&custom(&[1.0, 2.0], &[1.0, 1.0]), &custom(&[2.0], &[1.0, 1.0]), true);
    let told = FloatHistogram { counter_reset_hint: CounterResetHint::Reset, ..base.clone() };
    check(&base, &told, true);
}

#[test]
fn trimming_keeps_the_part_of_a_bucket_on_one_side() {
    let mut below = custom(&[0.0, 10.0], &[0.0, 10.0]);
    below.trim(4.0, TrimSide::Below);
    assert_eq!((below.count, below.sum, cells(&below)), (4.0, 8.0, vec![(1, 4.0)]));
    let mut above = custom(&[0.0, 10.0], &[0.0, 10.0]);
    above.trim(4.0, TrimSide::Above);
    assert_eq!((above.count, above.sum), (6.0, 42.0));
    let mut untouched = exponential(0, 1, &[1.0]);
    untouched.trim(100.0, TrimSide::Below);
    assert_eq!(untouched.sum, 1.0, "the sum is estimated only if a bucket is cut");
}

#[test]
fn adding_equal_layouts_gives_the_same_bits_as_adding_any_layouts() {
    let odd = [0.0, -0.0, 1.0, -2.5, 1e16, 1e-300, f64::INFINITY, f64::NEG_INFINITY, f64::NAN];
    let bits = |histogram: &FloatHistogram| -> Vec<u64> {
        let counts = [&histogram.positive_buckets, &histogram.negative_buckets].into_iter().flatten();
        counts.chain([&histogram.zero_count]).map(|count| count.to_bits()).collect()
    };
    for (at, a) in odd.iter().enumerate() {
        for (turn, b) in odd.iter().enumerate() {
            let two_sided = |counts: [f64; 3]| FloatHistogram {
                negative_spans: vec![BucketSpan { offset: 2, length: 1 }],
                negative_buckets: vec![counts[2]],
                zero_count: counts[0],
                ..exponential(1, -3, &[counts[0], counts[1], counts[2]])
            };
            let mine = two_sided([*a, odd[(at + 1) % odd.len()], 3.0]);
            let theirs = two_sided([*b, odd[(turn + 5) % odd.len()], *a]);
            for (sign, compensated) in [(1.0, false), (-1.0, false), (1.0, true)] {
                let (mut short, mut long) = (mine.clone(), mine.clone());
                let (mut lost_short, mut lost_long) = (FloatHistogram::default(), FloatHistogram::default());
                for _ in 0..2 {
                    short.combine_alike(&theirs, sign, compensated.then_some(&mut lost_short));
                    assert!(!long.combine_sides(&theirs, sign, compensated, &mut lost_long));
                }
                assert_eq!(bits(&short), bits(&long), "{a} and {b}, {sign}");
                assert_eq!(short.positive_spans, long.positive_spans);
                if compensated {
                    assert_eq!(bits(&lost_short), bits(&lost_long), "{a} and {b}");
                    assert_eq!(lost_short.negative_spans, lost_long.negative_spans);
                }
            }
        }
    }
}

#[test]
fn malformed_histograms_make_no_operation_panic_or_hang() {
    let odd = [
        FloatHistogram { schema: 40, ..exponential(0, i32::MAX, &[1.0, 1.0]) },
        FloatHistogram { schema: -40, ..exponential(0, i32::MIN, &[1.0]) },
        FloatHistogram { zero_threshold: f64::NAN, ..exponential(2, 0, &[1.0]) },
        FloatHistogram { zero_threshold: f64::INFINITY, ..exponential(2, 0, &[f64::NAN]) },
        FloatHistogram {
            positive_spans: vec![BucketSpan { offset: 0, length: u32::MAX }],
            ..exponential(0, 0, &[1.0])
        },
        FloatHistogram { positive_spans: Vec::new(), ..exponential(0, 0, &[1.0]) },
        custom(&[f64::NAN, 1.0, 1.0], &[1.0, 1.0, 1.0, 1.0, 1.0]),
    ];
    for a in &odd {
        for b in &odd {
            let mut sum = a.clone();
            let _ = sum.add(b);
            let _ = a.clone().kahan_add(b, &mut None);
            let _ = (a.detect_reset(b), a.equals(b), sum.buckets().len());
            sum.trim(1.0, TrimSide::Above);
            sum.to_schema(-4).compact();
        }
    }
}
