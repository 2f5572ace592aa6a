//! The header `traceparent`: <https://www.w3.org/TR/trace-context/>.

use std::fmt;
use std::str::FromStr;

use http::{HeaderMap, HeaderName};

/// The name of the header.
pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Which trace a request belongs to, and the span that caused it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TraceContext {
    /// The trace; never 0.
    pub(crate) trace_id: u128,
    /// The span; never 0.
    pub(crate) span_id: u64,
    /// Whether the spans of this trace are recorded.
    pub(crate) sampled: bool,
}

impl TraceContext {
    /// The context that headers carry; `None` if there is none or it is malformed.
    pub(crate) fn from_headers(headers: &HeaderMap) -> Option<Self> {
        headers.get(TRACEPARENT)?.to_str().ok()?.parse().ok()
    }
}

impl FromStr for TraceContext {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut parts = text.split('-');
        let mut part = |length: usize| {
            let part = parts.next().filter(|part| part.len() == length);
            part.filter(|part| part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))).ok_or(())
        };
        let (version, trace, span, flags) = (part(2)?, part(32)?, part(16)?, part(2)?);
        // A later version may have more parts.
        if version == "ff" || (version == "00" && parts.next().is_some()) {
            return Err(());
        }
        let trace_id = u128::from_str_radix(trace, 16).map_err(|_| ())?;
        let span_id = u64::from_str_radix(span, 16).map_err(|_| ())?;
        let flags = u8::from_str_radix(flags, 16).map_err(|_| ())?;
        if trace_id == 0 || span_id == 0 {
            return Err(());
        }
        Ok(Self { trace_id, span_id, sampled: flags & 1 == 1 })
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace_id, self.span_id, u8::from(self.sampled))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_is_parsed_and_written() {
        let text = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let context: TraceContext = text.parse().unwrap();
        assert!(context.sampled && context.to_string() == text);
        assert!(!text.replace("-01", "-00").parse::<TraceContext>().unwrap().sampled);
        assert!(
            "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more".parse::<TraceContext>().is_ok()
        );
        for bad in [
            "",
            "00",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-+af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ] {
            assert!(bad.parse::<TraceContext>().is_err(), "{bad}");
        }
    }
}
