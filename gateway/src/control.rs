//! The control session on each connection: who is there, what can be read, and the next certificate.
//!
//! The observability gateway opens one session first of all ([`observability`]), the cluster's gateway serves it
//! ([`cluster`]). A connection counts only after both hellos: in TLS 1.3 a dialer may believe itself connected
//! although its certificate is about to be refused.

pub(crate) mod cluster;
pub(crate) mod observability;
pub(crate) mod poller;

use std::time::{Duration, SystemTime};

use proto::isthmus::mesh::v1::Hello;

/// How long the other side's hello may take.
pub(crate) const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// A cluster says something at least this often, so that its silence means something.
pub(crate) const HEARTBEAT: Duration = Duration::from_secs(2);
/// A cluster that says nothing for so long is lost.
pub(crate) const SILENCE: Duration = Duration::from_secs(6);
/// Two clocks further apart than this get a warning: certificates soon fail to verify.
pub(crate) const CLOCK_SKEW_WARNING: Duration = Duration::from_secs(30);
/// Largest control message, in bytes.
pub(crate) const MAX_MESSAGE_BYTES: usize = 4 << 20;

/// Our hello.
pub(crate) fn hello(now: SystemTime) -> Hello {
    Hello { version: runtime::BuildVersion::CURRENT.version.to_owned(), time: Some(now.into()) }
}

/// How far the clock of whoever sent this hello is from ours, when that is worth a warning.
pub(crate) fn skew(hello: &Hello, now: SystemTime) -> Option<Duration> {
    let theirs = SystemTime::try_from(hello.time?).ok()?;
    let apart = theirs.duration_since(now).unwrap_or_else(|earlier| earlier.duration());
    (apart > CLOCK_SKEW_WARNING).then_some(apart)
}

/// Says who is there, and warns of clocks that are apart.
pub(crate) fn log_hello(hello: &Hello, peer: &mesh::Peer, now: SystemTime) {
    let version = crate::peer_text::bounded(&hello.version);
    tracing::info!(%peer, version, "session opened");
    if let Some(apart) = skew(hello, now) {
        let seconds = apart.as_secs();
        tracing::warn!(%peer, seconds, "the peer's clock differs from ours: certificates will be refused, set both clocks");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_that_are_half_a_minute_apart_are_noticed() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let check = |theirs: SystemTime, expected| assert_eq!(skew(&hello(theirs), now), expected);
        check(now, None);
        check(now + Duration::from_secs(30), None);
        check(now + Duration::from_secs(31), Some(Duration::from_secs(31)));
        check(now - Duration::from_secs(40), Some(Duration::from_secs(40)));
        let absurd =
            Hello { time: Some(prost_types::Timestamp { seconds: i64::MAX, nanos: -5 }), ..Hello::default() };
        assert!(skew(&absurd, now).is_none_or(|apart| apart > CLOCK_SKEW_WARNING));
        assert_eq!(skew(&Hello::default(), now), None);
    }
}
