//! A narrower view of a cluster: only some series, only recent samples, only so many requests a second.
//!
//! A request is changed before it reaches the target: the owner's matchers are added to those of the request, and its time
//! range is cut. The target then answers as if it had nothing else.

use std::{
    sync::Mutex,
    time::{Duration, Instant, SystemTime},
};

use bytes::{BufMut, Bytes, BytesMut};
use model::{MatchOp, Matcher};
use prost::Message;
use proto::thanos::{
    LabelMatcher, LabelNamesRequest, LabelValuesRequest, SeriesRequest, info::InfoResponse, label_matcher,
};
use tonic::Status;

use crate::policy::MeshMethod;

/// Length of the prefix of a gRPC message: a flag and the length.
const PREFIX_BYTES: usize = 5;
/// The announced begin of the data is rounded down to this, so that it does not change with each poll.
const ANNOUNCED_STEP: Duration = Duration::from_secs(3600);

/// What may be read of each target.
#[derive(Debug, Clone, Default)]
pub struct Narrowing {
    /// Matchers that each series must fulfil, as written in the configuration, and as they are sent.
    select: Option<(String, Vec<LabelMatcher>)>,
    /// The age of the oldest sample.
    max_age: Option<Duration>,
}

impl PartialEq for Narrowing {
    fn eq(&self, other: &Self) -> bool {
        self.select == other.select && self.max_age == other.max_age
    }
}

impl Eq for Narrowing {}

/// A request after the owner's conditions were added.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NarrowedRequest {
    /// The message to send, with its prefix.
    Send(Bytes),
    /// Nothing that may be read is in its time range, so that it has no answer.
    Empty,
}

impl Narrowing {
    /// Methods that cannot be narrowed: they show names and labels of other series.
    pub(crate) const UNNARROWED: [MeshMethod; 7] = [
        MeshMethod::MetricMetadata,
        MeshMethod::Exemplars,
        MeshMethod::Rules,
        MeshMethod::Targets,
        MeshMethod::TsdbStatistics,
        MeshMethod::Query,
        MeshMethod::QueryRange,
    ];

    /// A view of the series that fulfil `selector`, such as `{namespace=~"shop-.*"}`, and of samples of at most `max_age`.
    ///
    /// # Errors
    /// The selector is not valid.
    pub(crate) fn new(selector: Option<&str>, max_age: Option<Duration>) -> Result<Self, String> {
        let select = selector.map(|text| {
            let matchers = promql::parse_selector(text).map_err(|error| error.to_string())?;
            Ok::<_, String>((text.to_owned(), matchers.iter().map(on_the_wire).collect()))
        });
        Ok(Self { select: select.transpose()?, max_age })
    }

    /// Whether requests are changed.
    pub(crate) fn is_any(&self) -> bool {
        self.select.is_some() || self.max_age.is_some()
    }

    /// Announces what can be read: later begins, and a warning that the store is only partly shown.
    pub(crate) fn restrict(&self, info: &mut InfoResponse, now: SystemTime) {
        if !self.is_any() {
            return;
        }
        if let (Some(oldest), Some(store)) = (self.oldest(now), &mut info.store) {
            let step = i64::try_from(ANNOUNCED_STEP.as_millis()).unwrap_or(i64::MAX);
            let oldest = oldest.div_euclid(step) * step;
            store.min_time = store.min_time.max(oldest);
            store.max_time = store.max_time.max(store.min_time);
            for tsdb in &mut store.tsdb_infos {
                tsdb.min_time = tsdb.min_time.max(oldest);
                tsdb.max_time = tsdb.max_time.max(tsdb.min_time);
            }
        }
        let mut limits = Vec::new();
        if let Some((text, _)) = &self.select {
            limits.push(format!("to series that match {text}"));
        }
        if let Some(age) = self.max_age {
            limits.push(format!("to the last {}", runtime::format_duration(age)));
        }
        info.warnings
            .push(format!("the owner of the cluster limits what can be read {}", limits.join(" and ")));
    }

    /// Adds the owner's conditions to a request with its prefix, as received.
    ///
    /// # Errors
    /// The message cannot be decoded.
    pub(crate) fn narrow(
        &self,
        method: MeshMethod,
        message: &Bytes,
        now: SystemTime,
    ) -> Result<NarrowedRequest, Status> {
        match method {
            MeshMethod::Series => {
                let mut request: SeriesRequest = decode(message)?;
                let shown = self.apply(&mut request.matchers, &mut request.min_time, request.max_time, now);
                Ok(sent(shown, &request))
            }
            MeshMethod::LabelNames => {
                let mut request: LabelNamesRequest = decode(message)?;
                let shown = self.apply(&mut request.matchers, &mut request.start, request.end, now);
                Ok(sent(shown, &request))
            }
            MeshMethod::LabelValues => {
                let mut request: LabelValuesRequest = decode(message)?;
                let shown = self.apply(&mut request.matchers, &mut request.start, request.end, now);
                Ok(sent(shown, &request))
            }
            MeshMethod::Info => Ok(NarrowedRequest::Send(message.clone())),
            // The configuration does not allow these together with a narrowing.
            _ => Err(Status::permission_denied(
                "the owner of the cluster limits what can be read; this method shows more",
            )),
        }
    }

    /// Returns whether anything that may be read can be in the time range.
    fn apply(&self, matchers: &mut Vec<LabelMatcher>, min: &mut i64, max: i64, now: SystemTime) -> bool {
        if let Some((_, own)) = &self.select {
            matchers.extend_from_slice(own);
        }
        let Some(oldest) = self.oldest(now) else { return true };
        *min = oldest.max(*min);
        *min <= max
    }

    /// The time of the oldest sample that may be read, in milliseconds.
    fn oldest(&self, now: SystemTime) -> Option<i64> {
        let oldest = now.checked_sub(self.max_age?)?.duration_since(SystemTime::UNIX_EPOCH).ok()?;
        i64::try_from(oldest.as_millis()).ok()
    }
}

/// The matchers of a request, for the access log; `None` if it has none or cannot be decoded.
pub(crate) fn matchers_of(method: MeshMethod, message: &Bytes) -> Option<String> {
    let matchers = match method {
        MeshMethod::Series => decode::<SeriesRequest>(message).ok()?.matchers,
        MeshMethod::LabelNames => decode::<LabelNamesRequest>(message).ok()?.matchers,
        MeshMethod::LabelValues => decode::<LabelValuesRequest>(message).ok()?.matchers,
        _ => return None,
    };
    let text = |matcher: &LabelMatcher| {
        let op = match matcher.r#type() {
            label_matcher::Type::Eq => "=",
            label_matcher::Type::Neq => "!=",
            label_matcher::Type::Re => "=~",
            label_matcher::Type::Nre => "!~",
        };
        format!("{}{op}{:?}", matcher.name, matcher.value)
    };
    Some(format!("{{{}}}", matchers.iter().map(text).collect::<Vec<_>>().join(",")))
}

fn on_the_wire(matcher: &Matcher) -> LabelMatcher {
    let r#type = match matcher.op() {
        MatchOp::Equal => label_matcher::Type::Eq,
        MatchOp::NotEqual => label_matcher::Type::Neq,
        MatchOp::Regex => label_matcher::Type::Re,
        MatchOp::NotRegex => label_matcher::Type::Nre,
    };
    LabelMatcher { r#type: r#type.into(), name: matcher.name().to_owned(), value: matcher.value().to_owned() }
}

/// Decodes exactly one message that is not compressed.
fn decode<M: Message + Default>(message: &Bytes) -> Result<M, Status> {
    let malformed = || Status::invalid_argument("the request is not one gRPC message without compression");
    let (prefix, body) = message.split_at_checked(PREFIX_BYTES).ok_or_else(malformed)?;
    let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]);
    if prefix[0] != 0 || usize::try_from(length) != Ok(body.len()) {
        return Err(malformed());
    }
    M::decode(body)
        .map_err(|error| Status::invalid_argument(format!("the request cannot be decoded: {error}")))
}

fn sent(shown: bool, request: &impl Message) -> NarrowedRequest {
    if !shown {
        return NarrowedRequest::Empty;
    }
    let length = request.encoded_len();
    let mut message = BytesMut::with_capacity(PREFIX_BYTES + length);
    message.put_u8(0);
    // A request is at most 1 MiB, and the owner's matchers are a part of a configuration of at most 1 MiB.
    message.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    message.put_slice(&request.encode_to_vec());
    NarrowedRequest::Send(message.freeze())
}

/// Admits so many requests a second, and as many at once after a second of rest.
#[derive(Debug, Default)]
pub(crate) struct RateLimit {
    /// Requests that may come now, and when that was true.
    state: Mutex<Option<(f64, Instant)>>,
}

impl RateLimit {
    /// Whether another request may come, of `per_second` requests.
    pub(crate) fn admit(&self, per_second: u32, now: Instant) -> bool {
        let limit = f64::from(per_second);
        let mut state = self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let (left, since) = state.unwrap_or((limit, now));
        let left = (left + now.saturating_duration_since(since).as_secs_f64() * limit).min(limit);
        let admitted = left >= 1.0;
        *state = Some((if admitted { left - 1.0 } else { left }, now));
        admitted
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Duration = Duration::from_secs(1_000_000);

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + NOW
    }

    fn message(request: &impl Message) -> Bytes {
        match sent(true, request) {
            NarrowedRequest::Send(message) => message,
            NarrowedRequest::Empty => unreachable!(),
        }
    }

    fn shop() -> Narrowing {
        Narrowing::new(Some(r#"{namespace=~"shop-.*",team!="x"}"#), Some(Duration::from_secs(3600))).unwrap()
    }

    #[test]
    fn a_request_gets_the_matchers_and_the_begin_of_the_owner() {
        let asked = LabelMatcher { r#type: 0, name: "__name__".into(), value: "up".into() };
        let day = 86_400_000;
        let end = i64::try_from(NOW.as_millis()).unwrap();
        let request =
            SeriesRequest { min_time: end - day, max_time: end, matchers: vec![asked], ..Default::default() };
        let NarrowedRequest::Send(narrowed) =
            shop().narrow(MeshMethod::Series, &message(&request), now()).unwrap()
        else {
            panic!("nothing is sent");
        };
        let text = matchers_of(MeshMethod::Series, &narrowed).unwrap();
        assert_eq!(text, r#"{__name__="up",namespace=~"shop-.*",team!="x"}"#);
        let narrowed: SeriesRequest = decode(&narrowed).unwrap();
        assert_eq!((narrowed.min_time, narrowed.max_time), (end - 3_600_000, end));

        let names = LabelNamesRequest { start: end - 60_000, end, ..Default::default() };
        let NarrowedRequest::Send(narrowed) =
            shop().narrow(MeshMethod::LabelNames, &message(&names), now()).unwrap()
        else {
            panic!("nothing is sent");
        };
        assert_eq!(decode::<LabelNamesRequest>(&narrowed).unwrap().start, end - 60_000);
        let old = LabelValuesRequest { start: 0, end: end - day, ..Default::default() };
        let outcome = shop().narrow(MeshMethod::LabelValues, &message(&old), now()).unwrap();
        assert_eq!(outcome, NarrowedRequest::Empty);
        let refused = shop().narrow(MeshMethod::Rules, &Bytes::from_static(&[0; 5]), now()).unwrap_err();
        assert_eq!(refused.code(), tonic::Code::PermissionDenied);
    }

    #[test]
    fn what_is_announced_begins_later_and_says_why() {
        let mut info = InfoResponse { store: Some(Default::default()), ..Default::default() };
        shop().restrict(&mut info, now());
        let begin = info.store.unwrap().min_time;
        assert!(begin % 3_600_000 == 0 && begin <= 996_400_000 && begin > 992_000_000, "{begin}");
        let [warning] = &info.warnings[..] else { panic!("{:?}", info.warnings) };
        assert!(warning.contains("shop-.*") && warning.contains("the last 1h"), "{warning}");
        let mut info = InfoResponse::default();
        Narrowing::default().restrict(&mut info, now());
        assert_eq!(info, InfoResponse::default());
    }

    #[test]
    fn a_rate_is_kept_and_recovers() {
        let (limit, began) = (RateLimit::default(), Instant::now());
        let admitted = |at: Duration| (0..50).filter(|_| limit.admit(10, began + at)).count();
        assert_eq!(admitted(Duration::ZERO), 10);
        assert_eq!(admitted(Duration::from_millis(500)), 5);
        assert_eq!(admitted(Duration::from_secs(60)), 10, "rest is not saved up for longer than a second");
    }

    proptest! {
        /// Bytes that are no request are refused, and never sent on.
        #[test]
        fn foreign_bytes_cause_no_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let bytes = Bytes::from(bytes);
            for method in MeshMethod::ALL {
                let _ = matchers_of(method, &bytes);
                if let Ok(NarrowedRequest::Send(sent)) = shop().narrow(method, &bytes, now()) {
                    prop_assert!(method == MeshMethod::Info || matchers_of(method, &sent).unwrap().contains("shop-"));
                }
            }
        }
    }
}
