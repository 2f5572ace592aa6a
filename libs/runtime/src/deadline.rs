//! Cuts gRPC calls at the deadline that their caller set in `grpc-timeout`.
//!
//! The deadline covers the whole call, streams included. When it passes, the work is dropped and the caller gets
//! `DEADLINE_EXCEEDED`, before the head of the answer or after any of its messages. (tonic itself checks the deadline
//! only until the head.)
//!
//! Format: <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>, "Timeout".

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{HeaderMap, Request, Response};
use http_body::{Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};
use tonic::Status;
use tonic::body::Body;
use tower::Service;

/// A service whose calls are cut at their deadline.
#[derive(Clone, Debug)]
pub(crate) struct WithDeadline<S> {
    inner: S,
}

impl<S> WithDeadline<S> {
    pub(crate) fn new(inner: S) -> Self {
        Self { inner }
    }
}

impl<S, B> Service<Request<B>> for WithDeadline<S>
where
    S: Service<Request<B>, Response = Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response<Body>, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let Some(limit) = limit_of(request.headers()) else { return Box::pin(self.inner.call(request)) };
        // Eight digits of hours are 11,415 years, which an `Instant` can hold.
        let end = Instant::now() + limit;
        let answer = self.inner.call(request);
        Box::pin(async move {
            match timeout_at(end, answer).await {
                Ok(answer) => Ok(answer?.map(|body| {
                    let sleep = Box::pin(sleep_until(end));
                    Body::new(LimitedBody { inner: Some(body), sleep, limit })
                })),
                Err(_) => Ok(exceeded(limit).into_http()),
            }
        })
    }
}

/// The time that a caller gives; a malformed value is ignored, as in tonic.
pub(crate) fn limit_of(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let amount: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(amount * 3600)),
        "M" => Some(Duration::from_secs(amount * 60)),
        "S" => Some(Duration::from_secs(amount)),
        "m" => Some(Duration::from_millis(amount)),
        "u" => Some(Duration::from_micros(amount)),
        "n" => Some(Duration::from_nanos(amount)),
        _ => None,
    }
}

/// A time limit in the form of the header: at most eight digits, rounded down to the unit that they need.
pub(crate) fn format_limit(limit: Duration) -> String {
    const DIGITS: u128 = 100_000_000;
    let units = [
        (limit.as_nanos(), 'n'),
        (limit.as_micros(), 'u'),
        (limit.as_millis(), 'm'),
        (u128::from(limit.as_secs()), 'S'),
        (u128::from(limit.as_secs() / 60), 'M'),
    ];
    let fits = units.into_iter().find(|(amount, _)| *amount < DIGITS);
    let (amount, unit) = fits.unwrap_or((u128::from(limit.as_secs() / 3600).min(DIGITS - 1), 'H'));
    format!("{amount}{unit}")
}

fn exceeded(limit: Duration) -> Status {
    Status::deadline_exceeded(format!("the call took longer than {limit:?}, the timeout that its caller set"))
}

/// A body that is cut at its deadline, with an error status.
struct LimitedBody {
    /// `None` once the deadline has passed.
    inner: Option<Body>,
    sleep: Pin<Box<Sleep>>,
    limit: Duration,
}

impl http_body::Body for LimitedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        let Some(inner) = &mut this.inner else { return Poll::Ready(None) };
        // Check the deadline first, because a stream may always have a message ready.
        if this.sleep.as_mut().poll(cx).is_pending() {
            return Pin::new(inner).poll_frame(cx);
        }
        self.inner = None;
        let mut trailers = HeaderMap::new();
        Poll::Ready(Some(match exceeded(self.limit).add_header(&mut trailers) {
            Ok(()) => Ok(Frame::trailers(trailers)),
            Err(status) => Err(status),
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(|inner| inner.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        // The deadline may cut the body before the size that the inner body announces.
        SizeHint::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_parsed_in_all_units() {
        let limit = |text: &'static str| {
            let value = http::HeaderValue::from_static(text);
            limit_of(&HeaderMap::from_iter([(http::HeaderName::from_static("grpc-timeout"), value)]))
        };
        assert_eq!(limit("2H"), Some(Duration::from_secs(7200)));
        assert_eq!(limit("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        assert_eq!(limit("3M"), Some(Duration::from_secs(180)));
        assert_eq!(limit("100m"), Some(Duration::from_millis(100)));
        assert_eq!(limit("7u"), Some(Duration::from_micros(7)));
        for text in ["", "m", "123456789m", "-1S", "1x", "1", "1.5S"] {
            assert_eq!(limit(text), None, "{text}");
        }
        assert_eq!(limit_of(&HeaderMap::new()), None);
    }

    #[test]
    fn limits_are_written_with_eight_digits_at_most() {
        for (limit, text) in [
            (Duration::ZERO, "0n"),
            (Duration::from_millis(99), "99000000n"),
            (Duration::from_millis(100), "100000u"),
            (Duration::from_secs(120), "120000m"),
            (Duration::from_secs(100_000), "100000S"),
            (Duration::from_secs(u64::MAX), "99999999H"),
        ] {
            assert_eq!(format_limit(limit), text);
        }
    }
}
