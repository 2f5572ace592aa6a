//! Which traces are recorded: the samplers of Thanos.

use crate::trace::context::TraceContext;

/// Which traces are recorded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Sampler {
    /// Whether a request that comes with a trace follows the decision of its caller.
    follows_parent: bool,
    /// The fraction of other traces that are recorded, from 0 to 1.
    ratio: f64,
}

impl Default for Sampler {
    fn default() -> Self {
        Self { follows_parent: true, ratio: 1.0 }
    }
}

impl Sampler {
    /// The sampler of these settings, `sampler_type` and `sampler_param` of Thanos.
    ///
    /// # Errors
    /// The type is unknown, or it needs a ratio and the parameter is not a number.
    pub(crate) fn new(kind: &str, param: &str) -> Result<Self, String> {
        let ratio = || match param.parse::<f64>() {
            Ok(ratio) if ratio.is_finite() => Ok(ratio.clamp(0.0, 1.0)),
            _ => Err(format!("sampler_param: {param:?} is not a fraction from 0 to 1")),
        };
        let (follows_parent, ratio) = match kind.to_ascii_lowercase().as_str() {
            "" => return Ok(Self::default()),
            "alwayssample" => (false, 1.0),
            "neversample" => (false, 0.0),
            "traceidratiobased" => (false, ratio()?),
            "parentbasedalwayssample" => (true, 1.0),
            "parentbasedneversample" => (true, 0.0),
            "parentbasedtraceidratiobased" => (true, ratio()?),
            _ => {
                return Err(format!(
                    "sampler_type: {kind:?} is unknown, expected alwayssample, neversample, traceidratiobased, or one of \
                     them after parentbased"
                ));
            }
        };
        Ok(Self { follows_parent, ratio })
    }

    /// Whether a trace is recorded. All parts of a system with the same ratio decide alike.
    pub(crate) fn samples(self, trace_id: u128, parent: Option<TraceContext>) -> bool {
        match parent {
            Some(parent) if self.follows_parent => parent.sampled,
            _ if self.ratio >= 1.0 => true,
            // The low 63 bits, as in the libraries of OpenTelemetry.
            _ => ((trace_id as u64 >> 1) as f64) < self.ratio * (1u64 << 63) as f64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samplers_follow_the_caller_or_the_ratio() {
        let caller = |sampled| Some(TraceContext { trace_id: 1, span_id: 1, sampled });
        let check = |kind, param, trace_id, parent, expected| {
            let sampler = Sampler::new(kind, param).unwrap();
            assert_eq!(sampler.samples(trace_id, parent), expected, "{kind} {param} {trace_id}");
        };
        let (low, high) = (1u128 << 61, u128::from(u64::MAX));
        check("", "", high, None, true);
        check("", "", high, caller(false), false);
        check("AlwaysSample", "", high, caller(false), true);
        check("neversample", "", low, caller(true), false);
        check("traceidratiobased", "0.25", low, caller(false), true);
        check("traceidratiobased", "0.25", high, caller(true), false);
        check("parentbasedtraceidratiobased", "0.25", high, caller(true), true);
        check("parentbasedtraceidratiobased", "0.25", high, None, false);
        check("parentbasedneversample", "", low, None, false);
        for (kind, param) in [("sometimes", ""), ("traceidratiobased", "x"), ("traceidratiobased", "")] {
            assert!(Sampler::new(kind, param).is_err(), "{kind}");
        }
    }
}
