//! Functions of a single float.

use std::f64::consts::{LN_2, PI};

use crate::syntax::functions::FunctionId;

/// A function of one float, with its scalar arguments.
#[derive(Clone, Copy, Debug)]
pub(crate) enum FloatFunction {
    /// A function without further arguments.
    Plain(fn(f64) -> f64),
    /// `round(v, to)`
    Round(f64),
    /// `clamp(v, min, max)`. `None` if `min` is greater than `max`; then every sample is dropped.
    Clamp(Option<(f64, f64)>),
}

impl FloatFunction {
    /// The function `id` with its scalar arguments; a missing argument is NaN. `None` if it is not one of
    /// these functions.
    pub(crate) fn new(id: FunctionId, first: Option<f64>, second: Option<f64>) -> Option<Self> {
        use FunctionId as F;
        let clamp = |min: f64, max: f64| {
            // Written so that NaN bounds are accepted. Every value is then clamped to NaN.
            Self::Clamp(if max < min { None } else { Some((min, max)) })
        };
        let plain: fn(f64) -> f64 = match id {
            F::Round => return Some(Self::Round(first.unwrap_or(1.0))),
            F::Clamp => return Some(clamp(first?, second?)),
            F::ClampMin => return Some(clamp(first?, f64::INFINITY)),
            F::ClampMax => return Some(clamp(f64::NEG_INFINITY, first?)),
            F::Abs => f64::abs,
            F::Ceil => f64::ceil,
            F::Floor => f64::floor,
            F::Exp => f64::exp,
            F::Sqrt => f64::sqrt,
            F::Ln => f64::ln,
            F::Log2 => f64::log2,
            F::Log10 => f64::log10,
            F::Sin => f64::sin,
            F::Cos => f64::cos,
            F::Tan => f64::tan,
            F::Asin => f64::asin,
            F::Acos => f64::acos,
            F::Atan => f64::atan,
            F::Sinh => sinh,
            F::Cosh => cosh,
            F::Tanh => f64::tanh,
            F::Asinh => asinh,
            F::Acosh => acosh,
            F::Atanh => atanh,
            F::Rad => |v| v * PI / 180.0,
            F::Deg => |v| v * 180.0 / PI,
            F::Sgn => |v| {
                if v < 0.0 {
                    -1.0
                } else if v > 0.0 {
                    1.0
                } else {
                    v
                }
            },
            _ => return None,
        };
        Some(Self::Plain(plain))
    }

    /// The value of the function, or `None` if the sample is dropped.
    #[inline]
    pub(crate) fn apply(&self, value: f64) -> Option<f64> {
        match *self {
            Self::Plain(function) => Some(function(value)),
            Self::Round(to) => {
                // Multiplying by the inverse is more exact: `1 / 0.1` is exact although 0.1 is not.
                let inverse = 1.0 / to;
                Some((value * inverse + 0.5).floor() / inverse)
            }
            Self::Clamp(bounds) => bounds.map(|(min, max)| go_max(min, go_min(max, value))),
        }
    }
}

/// The lesser of two numbers, like Go's `math.Min`: NaN wins except against minus infinity, and -0 is less
/// than 0.
pub(crate) fn go_min(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() {
        let infinite = a == f64::NEG_INFINITY || b == f64::NEG_INFINITY;
        return if infinite { f64::NEG_INFINITY } else { f64::NAN };
    }
    if a == b {
        return if a.is_sign_negative() { a } else { b };
    }
    if a < b { a } else { b }
}

/// The greater of two numbers, like Go's `math.Max`: NaN wins except against infinity, and 0 is greater than
/// -0.
pub(crate) fn go_max(a: f64, b: f64) -> f64 {
    -go_min(-a, -b)
}

/// Squares of numbers above this are so large that adding 1 does not change them.
const LARGE: f64 = (1u64 << 28) as f64;
/// Squares of numbers below this are so small that adding them to 1 does not change it.
const SMALL: f64 = 1.0 / LARGE;

/// `sinh`. Above 21 it is half of `exp` and overflows where `exp` does, as in Go.
fn sinh(value: f64) -> f64 {
    if value.abs() > 21.0 { (value.abs().exp() * 0.5).copysign(value) } else { value.sinh() }
}

/// `cosh`. Above 21 it is half of `exp` and overflows where `exp` does, as in Go.
fn cosh(value: f64) -> f64 {
    if value.abs() > 21.0 { value.abs().exp() * 0.5 } else { value.cosh() }
}

// The following functions replace those of std, which square large numbers and subtract where digits cancel.

fn asinh(value: f64) -> f64 {
    let size = value.abs();
    let result = if size > LARGE {
        size.ln() + LN_2
    } else if size > 2.0 {
        (2.0 * size + 1.0 / ((size * size + 1.0).sqrt() + size)).ln()
    } else if size < SMALL {
        size
    } else {
        (size + size * size / (1.0 + (1.0 + size * size).sqrt())).ln_1p()
    };
    result.copysign(value)
}

fn acosh(value: f64) -> f64 {
    if value < 1.0 {
        f64::NAN
    } else if value >= LARGE {
        value.ln() + LN_2
    } else if value > 2.0 {
        (2.0 * value - 1.0 / (value + (value * value - 1.0).sqrt())).ln()
    } else {
        let beyond = value - 1.0;
        (beyond + (2.0 * beyond + beyond * beyond).sqrt()).ln_1p()
    }
}

fn atanh(value: f64) -> f64 {
    let size = value.abs();
    let result = if size < SMALL {
        size
    } else if size < 0.5 {
        0.5 * (2.0 * size + 2.0 * size * size / (1.0 - size)).ln_1p()
    } else {
        0.5 * (2.0 * size / (1.0 - size)).ln_1p()
    };
    result.copysign(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_are_rounded_up_to_any_unit() {
        let round = |to, value| FloatFunction::Round(to).apply(value);
        assert_eq!(round(1.0, 2.5), Some(3.0));
        assert_eq!(round(1.0, -2.5), Some(-2.0));
        assert_eq!(round(0.1, 0.26), Some(0.3));
    }

    #[test]
    fn clamping_with_min_above_max_drops_the_sample() {
        let clamp = |min, max| FloatFunction::new(FunctionId::Clamp, Some(min), Some(max)).unwrap();
        assert_eq!(clamp(1.0, 0.0).apply(0.5), None);
        assert_eq!(clamp(0.0, 1.0).apply(5.0), Some(1.0));
        assert!(clamp(f64::NAN, 1.0).apply(5.0).unwrap().is_nan());
    }

    #[test]
    fn hyperbolic_functions_overflow_and_cancel_only_where_go_does() {
        use FunctionId as F;
        const INF: f64 = f64::INFINITY;
        const NAN: f64 = f64::NAN;
        // The results of Go's `math` package.
        for (id, value, expected) in [
            (F::Asinh, -0.0, -0.0),
            (F::Asinh, 5e-324, 5e-324),
            (F::Asinh, -1e-10, -1e-10),
            (F::Asinh, 3e-09, 3e-09),
            (F::Asinh, 0.3, 0.29567304756342244),
            (F::Asinh, 2.0, 1.4436354751788103),
            (F::Asinh, -2.0, -1.4436354751788103),
            (F::Asinh, 10.0, 2.99822295029797),
            (F::Asinh, 2.68435457e08, 20.1012682399637),
            (F::Asinh, -3e08, -20.212440213180418),
            (F::Asinh, 1e308, 709.889355822726),
            (F::Asinh, -1e308, -709.889355822726),
            (F::Asinh, 1.7976931348623157e308, 710.4758600739439),
            (F::Asinh, INF, INF),
            (F::Asinh, NAN, NAN),
            (F::Acosh, 0.5, NAN),
            (F::Acosh, 1.0, 0.0),
            (F::Acosh, 1.0000000001, 1.4142136208675862e-05),
            (F::Acosh, 1.0000001, 0.0004472135919037347),
            (F::Acosh, 1.5, 0.9624236501192069),
            (F::Acosh, 2.0, 1.3169578969248166),
            (F::Acosh, 2.0000001, 1.3169579546598416),
            (F::Acosh, 3.0, 1.7627471740390859),
            (F::Acosh, 2.68435456e08, 20.10126823623841),
            (F::Acosh, 1e308, 709.889355822726),
            (F::Acosh, -1e308, NAN),
            (F::Acosh, INF, INF),
            (F::Atanh, -0.0, -0.0),
            (F::Atanh, 1e-300, 1e-300),
            (F::Atanh, 3e-09, 3e-09),
            (F::Atanh, -0.3, -0.30951960420311175),
            (F::Atanh, 0.5, 0.5493061443340548),
            (F::Atanh, 0.999999999, 10.708206522644144),
            (F::Atanh, -0.999999999, -10.708206522644144),
            (F::Atanh, 1.0, INF),
            (F::Atanh, -1.0, -INF),
            (F::Atanh, 2.0, NAN),
            (F::Sinh, -0.0, -0.0),
            (F::Sinh, 1e-05, 1.0000000000166666e-05),
            (F::Sinh, 22.0, 1.7924564230657957e09),
            (F::Sinh, -22.0, -1.7924564230657957e09),
            (F::Sinh, 710.0, INF),
            (F::Sinh, -710.0, -INF),
            (F::Sinh, -INF, -INF),
            (F::Cosh, 0.0, 1.0),
            (F::Cosh, 22.0, 1.7924564230657957e09),
            (F::Cosh, -22.0, 1.7924564230657957e09),
            (F::Cosh, 710.0, INF),
            (F::Cosh, -710.0, INF),
            (F::Cosh, -INF, INF),
            (F::Tanh, 1e-10, 1e-10),
            (F::Tanh, -0.3, -0.2913126124515909),
            (F::Tanh, 0.625, 0.5545997223493824),
            (F::Tanh, 44.0, 1.0),
            (F::Tanh, -INF, -1.0),
            (F::Exp, 1e-20, 1.0),
            (F::Exp, 709.0, 8.218407461554972e307),
            (F::Exp, -746.0, 0.0),
            (F::Exp, INF, INF),
            (F::Exp, -INF, 0.0),
        ] {
            let found = FloatFunction::new(id, None, None).unwrap().apply(value).unwrap();
            let near = found == expected
                || (found.is_nan() && expected.is_nan())
                || ((found - expected) / expected).abs() < 1e-15;
            assert!(near, "{id:?}({value:e}): expected {expected:e}, found {found:e}");
            assert!(
                found.is_nan() || found.is_sign_negative() == expected.is_sign_negative(),
                "{id:?}({value:e})"
            );
        }
    }
}
