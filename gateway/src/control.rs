//! The control session on each connection: hellos, the cluster's targets, and certificate renewal.
//!
//! The observability gateway opens one session at the start of each connection ([`observability`]); the cluster's gateway
//! serves it ([`cluster`]). A connection is used only after both hellos: in TLS 1.3 the handshake can be complete on the
//! dialling side although the peer is about to refuse its certificate.

pub(crate) mod cluster;
pub(crate) mod copies;
mod exchange;
pub(crate) mod member_budget;
pub(crate) mod observability;
mod opened;
pub(crate) mod poller;
mod renewed;
mod report;
mod scanned;
mod sent_trust;
pub(crate) mod shared;
pub(crate) mod verdicts;

use std::time::{Duration, SystemTime};

use proto::isthmus::mesh::v1::Hello;

use crate::transport::PeerClock;

/// Time limit for the peer's hello.
pub(crate) const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a cluster repeats its targets to a gateway that does not accept single ones, which takes them for a sign of life.
pub(crate) const HEARTBEAT: Duration = Duration::from_secs(2);
/// A larger difference of two clocks is logged as a warning, because certificates will soon fail to verify.
pub(crate) const CLOCK_SKEW_WARNING: Duration = Duration::from_secs(30);
/// Largest control message, in bytes.
pub(crate) const MAX_MESSAGE_BYTES: usize = 4 << 20;

/// The hello of this gateway. `instance` distinguishes the gateways of a cluster, and `run` the processes of a gateway.
pub(crate) fn hello(now: SystemTime, instance: &str, run: &str) -> Hello {
    Hello {
        version: runtime::BuildVersion::current().version.to_owned(),
        time: Some(now.into()),
        instance: instance.to_owned(),
        single_targets: true,
        trust: true,
        run: run.to_owned(),
    }
}

/// The difference between the peer's clock and ours, if it is worth a warning.
pub(crate) fn skew(hello: &Hello, now: SystemTime) -> Option<Duration> {
    let theirs = SystemTime::try_from(hello.time?).ok()?;
    let apart = theirs.duration_since(now).unwrap_or_else(|earlier| earlier.duration());
    (apart > CLOCK_SKEW_WARNING).then_some(apart)
}

/// Logs the peer of a new session, and a warning if the clocks differ. Notes the difference.
pub(crate) fn log_hello(hello: &Hello, peer: &mesh::Peer, clock: &PeerClock, now: SystemTime) {
    if let Some(theirs) = hello.time.and_then(|time| SystemTime::try_from(time).ok()) {
        clock.note(theirs, now);
    }
    let version = crate::peer_text::bounded(&hello.version);
    tracing::info!(%peer, version, "a session was opened");
    if let Some(apart) = skew(hello, now) {
        let seconds = apart.as_secs();
        tracing::warn!(%peer, seconds, "the peer's clock differs from ours; above 60 s certificates are refused, set both clocks");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_that_differ_by_more_than_half_a_minute_are_reported() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let check = |theirs: SystemTime, expected| assert_eq!(skew(&hello(theirs, "", ""), now), expected);
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
