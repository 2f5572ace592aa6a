//! Functions of one float.

use std::f64::consts::PI;

use crate::syntax::functions::FunctionId;

/// What a function makes of one float, once its scalar arguments are known.
#[derive(Clone, Copy, Debug)]
pub(crate) enum FloatFunction {
    /// A function without further arguments.
    Plain(fn(f64) -> f64),
    /// `round(v, to)`
    Round(f64),
    /// `clamp(v, min, max)`; `None` where the bounds leave nothing, so that no sample is left.
    Clamp(Option<(f64, f64)>),
}

impl FloatFunction {
    /// The function `id` with its scalar arguments, missing ones being NaN; `None` if it is none of these functions.
    pub(crate) fn new(id: FunctionId, first: Option<f64>, second: Option<f64>) -> Option<FloatFunction> {
        use FunctionId as F;
        let clamp = |min: f64, max: f64| {
            // Written so that NaN passes: every value is then clamped to NaN.
            FloatFunction::Clamp(if max < min { None } else { Some((min, max)) })
        };
        let plain: fn(f64) -> f64 = match id {
            F::Round => return Some(FloatFunction::Round(first.unwrap_or(1.0))),
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
            F::Sinh => f64::sinh,
            F::Cosh => f64::cosh,
            F::Tanh => f64::tanh,
            F::Asinh => f64::asinh,
            F::Acosh => f64::acosh,
            F::Atanh => f64::atanh,
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
        Some(FloatFunction::Plain(plain))
    }

    /// The value of the function, or `None` where it leaves no sample.
    #[inline]
    pub(crate) fn apply(&self, value: f64) -> Option<f64> {
        match *self {
            FloatFunction::Plain(function) => Some(function(value)),
            FloatFunction::Round(to) => {
                // The inverse loses less: `1 / 0.1` is exact where 0.1 is not.
                let inverse = 1.0 / to;
                Some((value * inverse + 0.5).floor() / inverse)
            }
            FloatFunction::Clamp(bounds) => bounds.map(|(min, max)| go_max(min, go_min(max, value))),
        }
    }
}

/// The lesser of two numbers as Go's `math.Min` has it: NaN wins except against minus infinity, -0 is less than 0.
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

/// The greater of two numbers as Go's `math.Max` has it: NaN wins except against infinity, 0 is greater than -0.
pub(crate) fn go_max(a: f64, b: f64) -> f64 {
    -go_min(-a, -b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_goes_up_at_ties_and_takes_any_unit() {
        let round = |to, value| FloatFunction::Round(to).apply(value);
        assert_eq!(round(1.0, 2.5), Some(3.0));
        assert_eq!(round(1.0, -2.5), Some(-2.0));
        assert_eq!(round(0.1, 0.26), Some(0.3));
    }

    #[test]
    fn bounds_in_the_wrong_order_leave_nothing() {
        let clamp = |min, max| FloatFunction::new(FunctionId::Clamp, Some(min), Some(max)).unwrap();
        assert_eq!(clamp(1.0, 0.0).apply(0.5), None);
        assert_eq!(clamp(0.0, 1.0).apply(5.0), Some(1.0));
        assert!(clamp(f64::NAN, 1.0).apply(5.0).unwrap().is_nan());
    }
}
