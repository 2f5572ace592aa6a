//! Quantiles of a list of values.

use std::cmp::Ordering;

/// Compares two values. NaN sorts before all other values.
pub(crate) fn nan_first(a: &f64, b: &f64) -> Ordering {
    match (a.is_nan(), b.is_nan()) {
        (true, true) => Ordering::Equal,
        (true, false) => Ordering::Less,
        (false, true) => Ordering::Greater,
        // Neither value is NaN, so the comparison has a result.
        (false, false) => a.partial_cmp(b).unwrap_or(Ordering::Equal),
    }
}

/// The `q`-quantile of `values`, interpolated linearly between two of them. Reorders `values`.
///
/// NaN if there are no values or `q` is NaN. Minus infinity if `q` is below 0, plus infinity if it is above
/// 1.
pub(crate) fn quantile(q: f64, values: &mut [f64]) -> f64 {
    if values.is_empty() || q.is_nan() {
        return f64::NAN;
    }
    if q < 0.0 {
        return f64::NEG_INFINITY;
    }
    if q > 1.0 {
        return f64::INFINITY;
    }
    let last = values.len() - 1;
    let rank = q * last as f64;
    let lower = (rank.floor().max(0.0) as usize).min(last);
    let weight = rank - rank.floor();
    // NaN sorts first. The other values need not be sorted to find the two that are interpolated.
    let mut nans = 0;
    for at in 0..values.len() {
        if values[at].is_nan() {
            values.swap(at, nans);
            nans += 1;
        }
    }
    let (below, at) = if lower < nans {
        (values[lower], None)
    } else {
        let (_, found, above) = values[nans..].select_nth_unstable_by(lower - nans, f64::total_cmp);
        (*found, above.iter().copied().min_by(f64::total_cmp))
    };
    let above = match at {
        Some(above) => above,
        None if lower == last => below,
        None if lower + 1 < nans => values[lower + 1],
        None => values[nans..].iter().copied().min_by(f64::total_cmp).unwrap_or(below),
    };
    below * (1.0 - weight) + above * weight
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_interpolated_between_values() {
        assert_eq!(quantile(0.5, &mut [3.0, 1.0, 2.0]), 2.0);
        assert_eq!(quantile(0.25, &mut [0.0, 1.0, 2.0]), 0.5);
        assert_eq!(quantile(1.0, &mut [0.0, 1.0]), 1.0);
        assert_eq!(quantile(2.0, &mut [0.0]), f64::INFINITY);
        assert!(quantile(0.5, &mut []).is_nan());
        assert!(quantile(0.0, &mut [1.0, f64::NAN]).is_nan());
        assert!(quantile(0.4, &mut [1.0, f64::NAN, 0.0]).is_nan());
    }

    #[test]
    fn selecting_gives_the_same_result_as_sorting() {
        let mut seed = 7u64;
        let mut next = move || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            seed >> 33
        };
        for _ in 0..2000 {
            let odd = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1.5];
            let values: Vec<f64> = (0..1 + next() % 9)
                .map(|_| if next() % 4 == 0 { odd[next() as usize % 4] } else { (next() % 5) as f64 })
                .collect();
            let q = (next() % 11) as f64 / 10.0;
            let mut sorted = values.clone();
            sorted.sort_by(nan_first);
            let rank = q * (sorted.len() - 1) as f64;
            let (lower, weight) = (rank.floor() as usize, rank - rank.floor());
            let upper = (lower + 1).min(sorted.len() - 1);
            let expected = sorted[lower] * (1.0 - weight) + sorted[upper] * weight;
            let found = quantile(q, &mut values.clone());
            assert!(found == expected || (found.is_nan() && expected.is_nan()), "{q} of {values:?}");
        }
    }
}
