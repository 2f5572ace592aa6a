//! Sums and means that compensate for rounding.

/// A sum and what rounding has lost of it: Kahan summation in Neumaier's form.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct KahanSum {
    /// The rounded sum.
    pub(crate) sum: f64,
    /// What rounding has lost.
    pub(crate) rest: f64,
}

impl KahanSum {
    /// Adds `value`.
    #[inline(always)]
    pub(crate) fn add(self, value: f64) -> Self {
        let sum = self.sum + value;
        let lost =
            if self.sum.abs() >= value.abs() { (self.sum - sum) + value } else { (value - sum) + self.sum };
        let rest = if sum.is_infinite() { 0.0 } else { self.rest + lost };
        Self { sum, rest }
    }

    /// Adds another sum.
    pub(crate) fn merge(self, other: Self) -> Self {
        let joined = self.add(other.sum);
        if joined.sum.is_infinite() { joined } else { Self { rest: joined.rest + other.rest, ..joined } }
    }

    /// The sum including what rounding has lost.
    #[inline(always)]
    pub(crate) fn value(self) -> f64 {
        self.sum + self.rest
    }
}

/// A mean. It is a compensated sum until that would overflow; then it becomes an incremental mean.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Mean {
    total: KahanSum,
    /// Whether `total` is the mean instead of the sum.
    incremental: bool,
    /// Number of values.
    pub(crate) count: f64,
}

impl Mean {
    /// The mean of a single value.
    pub(crate) fn of(value: f64) -> Self {
        Self { total: KahanSum { sum: value, rest: 0.0 }, incremental: false, count: 1.0 }
    }

    /// Adds a value to the mean.
    #[inline]
    pub(crate) fn add(&mut self, value: f64) {
        self.count += 1.0;
        if !self.incremental {
            let total = self.total.add(value);
            if !total.sum.is_infinite() {
                self.total = total;
                return;
            }
            self.make_incremental(self.count - 1.0);
        }
        let share = (self.count - 1.0) / self.count;
        self.total =
            KahanSum { sum: share * self.total.sum, rest: share * self.total.rest }.add(value / self.count);
    }

    fn make_incremental(&mut self, count: f64) {
        self.incremental = true;
        self.total = KahanSum { sum: self.total.sum / count, rest: self.total.rest / count };
    }

    /// Combines two means.
    pub(crate) fn merge(&mut self, mut other: Self) {
        let count = self.count + other.count;
        if !self.incremental && !other.incremental {
            let total = self.total.merge(other.total);
            if !total.sum.is_infinite() {
                *self = Self { total, incremental: false, count };
                return;
            }
        }
        for mean in [&mut *self, &mut other] {
            if !mean.incremental {
                mean.make_incremental(mean.count);
            }
        }
        let (mine, theirs) = (self.count / count, other.count / count);
        let scaled = |total: KahanSum, by: f64| KahanSum { sum: total.sum * by, rest: total.rest * by };
        self.total = scaled(self.total, mine).merge(scaled(other.total, theirs));
        self.count = count;
    }

    /// The mean.
    pub(crate) fn value(&self) -> f64 {
        if self.incremental {
            self.total.value()
        } else {
            self.total.sum / self.count + self.total.rest / self.count
        }
    }
}

/// The variance of values that are added one at a time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Spread {
    /// Number of values.
    pub(crate) count: f64,
    mean: f64,
    squares: f64,
}

impl Spread {
    /// The variance of a single value: zero, or NaN if it is not finite.
    pub(crate) fn of(value: f64) -> Self {
        Self { count: 1.0, mean: value, squares: if value.is_finite() { 0.0 } else { f64::NAN } }
    }

    /// Adds a value.
    pub(crate) fn add(&mut self, value: f64) {
        self.count += 1.0;
        let delta = value - self.mean;
        self.mean += delta / self.count;
        self.squares += delta * (value - self.mean);
    }

    /// Combines the values of two.
    pub(crate) fn merge(&mut self, other: Self) {
        let count = self.count + other.count;
        let delta = other.mean - self.mean;
        self.squares += other.squares + delta * delta * (self.count * other.count / count);
        self.mean += delta * (other.count / count);
        self.count = count;
    }

    /// The variance of the values.
    pub(crate) fn variance(&self) -> f64 {
        self.squares / self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_values_are_not_lost_between_large_ones() {
        let sum = [1e100, 1.0, -1e100].into_iter().fold(KahanSum::default(), KahanSum::add);
        assert_eq!(sum.value(), 1.0);
        let left = KahanSum::default().add(1e100).add(1.0);
        assert_eq!(left.merge(KahanSum::default().add(-1e100)).value(), 1.0);
    }

    #[test]
    fn means_of_huge_values_do_not_overflow() {
        let mut mean = Mean::of(f64::MAX);
        mean.add(f64::MAX);
        mean.add(f64::MAX);
        assert!((mean.value() / f64::MAX - 1.0).abs() < 1e-15, "{}", mean.value());
        let mut left = Mean::of(f64::MAX);
        left.merge(Mean::of(f64::MAX));
        assert_eq!(left.value(), f64::MAX);
    }

    #[test]
    fn the_variance_of_merged_parts_is_that_of_all_values() {
        let values = [1.0, 4.0, -2.5, 7.0, 0.25];
        let spread = |values: &[f64]| {
            let mut spread = Spread::of(values[0]);
            values[1..].iter().for_each(|v| spread.add(*v));
            spread
        };
        let mut left = spread(&values[..2]);
        left.merge(spread(&values[2..]));
        assert!((left.variance() - spread(&values).variance()).abs() < 1e-12);
    }
}
