//! One request that a gateway forwards: its deadline, its counters, and a final status in every case.
//!
//! Both proxies use it: a [`Relay`] is created before a request is forwarded, and becomes the body of the response.
//! tonic does not enforce `grpc-timeout` after the response headers were sent, so the deadline of the whole stream is
//! enforced here. If the upstream fails (a lost connection, a reset), the caller gets trailers with a status, never an
//! end that looks complete. A server drops the body when its client cancels; this drops the upstream response and so
//! cancels the request on the next hop.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body as _, Frame, SizeHint};
use prometheus_client::metrics::counter::Counter;
use tokio::sync::Notify;
use tokio::time::{Instant, Sleep, sleep, sleep_until};
use tokio_util::task::AbortOnDropHandle;
use tonic::{Code, Status, body::Body};

use crate::proxy::{grpc, messages::SeriesCounter};
use crate::{
    access_log::{AccessLog, AccessRecord},
    metrics::{GaugeGuard, PeerMetrics},
    policy::MeshMethod,
    task,
};

/// A request from its arrival to the end of its response.
pub(crate) struct Relay {
    /// The target's name in the access log.
    target: String,
    method: Option<MeshMethod>,
    metrics: PeerMetrics,
    /// The counter of the peer for the bytes of the response.
    response_bytes: Counter,
    request_bytes: Counter,
    deadline: Option<Pin<Box<Sleep>>>,
    began: Instant,
    bytes: u64,
    /// `None` until the outcome is known. If it is still `None` on drop, the request was cancelled.
    code: Option<Code>,
    /// Notified if the target turns out to be unavailable.
    unavailable: Option<Arc<Notify>>,
    /// What the access log gets; `None` where there is none.
    access: Option<AccessEntry>,
    _running: GaugeGuard,
    _permit: Option<RequestPermit>,
}

/// A line of the access log, as far as it is known.
pub(crate) struct AccessEntry {
    pub(crate) log: AccessLog,
    /// The SPIFFE id of the peer.
    pub(crate) peer: String,
    pub(crate) transport: &'static str,
    pub(crate) matchers: Option<String>,
    pub(crate) series: SeriesCounter,
}

/// A permit for one request under a limit, released on drop.
pub(crate) struct RequestPermit(Arc<AtomicUsize>);

impl RequestPermit {
    /// Acquires one of `limit` permits; `None` when all are in use.
    pub(crate) fn acquire(running: &Arc<AtomicUsize>, limit: usize) -> Option<Self> {
        // Counted before the check, so that two requests cannot both get the last permit.
        let permit = Self(running.clone());
        (running.fetch_add(1, Ordering::Relaxed) < limit).then_some(permit)
    }
}

impl Drop for RequestPermit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Whether a request goes to the peer or comes from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RelayDirection {
    /// It is forwarded to the peer.
    Outbound,
    /// It comes from the peer.
    Inbound,
}

impl Relay {
    /// Starts with a request as received.
    pub(crate) fn begin<B>(
        direction: RelayDirection,
        target: String,
        method: Option<MeshMethod>,
        metrics: PeerMetrics,
        request: &Request<B>,
    ) -> Self {
        let (request_bytes, response_bytes) = match direction {
            RelayDirection::Outbound => (metrics.sent.clone(), metrics.received.clone()),
            RelayDirection::Inbound => (metrics.received.clone(), metrics.sent.clone()),
        };
        let deadline = grpc::timeout(request.headers()).map(|timeout| Box::pin(sleep(timeout)));
        let _running = metrics.count_running();
        Self {
            target,
            method,
            metrics,
            response_bytes,
            request_bytes,
            deadline,
            began: Instant::now(),
            bytes: 0,
            code: None,
            unavailable: None,
            access: None,
            _running,
            _permit: None,
        }
    }

    /// Keeps a permit until the request has finished.
    pub(crate) fn with_permit(mut self, permit: RequestPermit) -> Self {
        self._permit = Some(permit);
        self
    }

    /// Writes a line of the access log when the request has finished.
    pub(crate) fn logged(mut self, entry: Option<AccessEntry>) -> Self {
        self.access = entry;
        self
    }

    /// Notes the matchers of the request for the access log.
    pub(crate) fn asked_for(&mut self, matchers: Option<String>) {
        if let Some(access) = &mut self.access {
            access.matchers = matchers;
        }
    }

    /// Whether the access log wants to know the matchers.
    pub(crate) fn is_logged(&self) -> bool {
        self.access.is_some()
    }

    /// Notifies if the target turns out to be unavailable.
    pub(crate) fn notifying(mut self, unavailable: Arc<Notify>) -> Self {
        self.unavailable = Some(unavailable);
        self
    }

    /// Finishes the request with a status of this gateway.
    pub(crate) fn refuse(mut self, code: Code, message: impl Into<String>) -> Response<Body> {
        self.code = Some(code);
        grpc::refusal(code, message)
    }

    /// Finishes the request with an answer without data.
    pub(crate) fn answer_nothing(mut self, is_stream: bool) -> Response<Body> {
        self.code = Some(Code::Ok);
        grpc::nothing(is_stream)
    }

    /// The counter for the bytes of the request.
    pub(crate) fn request_counter(&self) -> Counter {
        self.request_bytes.clone()
    }

    /// The request's body, whose bytes are counted.
    pub(crate) fn count(&self, body: Body) -> Body {
        Body::new(CountedBody { body, bytes: self.request_bytes.clone() })
    }

    /// Waits for the head of the response, and becomes the body of the response.
    pub(crate) async fn run(
        mut self,
        call: impl Future<Output = Result<Response<Body>, Status>>,
    ) -> Response<Body> {
        let answer = match &mut self.deadline {
            Some(deadline) => tokio::select! {
                biased;
                answer = call => answer,
                () = deadline => Err(self.deadline_exceeded()),
            },
            None => call.await,
        };
        match answer {
            Ok(mut response) => {
                grpc::fit_response(response.headers_mut());
                self.code = grpc::code_of(response.headers());
                response.map(|body| {
                    if body.is_end_stream() {
                        // Trailers-only: the head contains the status, and no data follows.
                        return body;
                    }
                    Body::new(RelayBody::new(self, body))
                })
            }
            Err(status) => {
                self.code = Some(status.code());
                status.into_http()
            }
        }
    }

    fn deadline_exceeded(&self) -> Status {
        let seconds = self.began.elapsed().as_secs_f64();
        Status::deadline_exceeded(format!(
            "{}: the deadline of the request passed after {seconds:.3} s",
            self.target
        ))
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if let (Some(Code::Unavailable), Some(unavailable)) = (self.code, &self.unavailable) {
            unavailable.notify_one();
        }
        let code = self.code.map_or("cancelled", grpc::code_name);
        self.metrics.request_done(self.method, code);
        if let Some(access) = self.access.take() {
            access.log.write(AccessRecord {
                peer: access.peer,
                transport: access.transport,
                target: std::mem::take(&mut self.target),
                method: self.method.map_or("unknown", MeshMethod::name),
                matchers: access.matchers,
                code,
                series: access.series.series(),
                bytes: self.bytes,
                seconds: self.began.elapsed().as_secs_f64(),
            });
            return;
        }
        tracing::debug!(
            target = self.target,
            method = self.method.map_or("unknown", MeshMethod::name),
            code,
            bytes = self.bytes,
            seconds = self.began.elapsed().as_secs_f64(),
            "a request has finished"
        );
    }
}

/// The body of a response that is relayed.
struct RelayBody {
    relay: Relay,
    /// Shared with the watchdog, which drops it at the deadline.
    body: Arc<Mutex<Option<Body>>>,
    ended: bool,
    /// A server does not poll a body while its client does not read. Without this task, a stalled client would keep the
    /// upstream open after the deadline.
    _watchdog: Option<AbortOnDropHandle<()>>,
}

impl RelayBody {
    fn new(relay: Relay, body: Body) -> Self {
        let body = Arc::new(Mutex::new(Some(body)));
        let _watchdog = relay.deadline.as_ref().map(|deadline| {
            let (at, body) = (deadline.deadline(), body.clone());
            AbortOnDropHandle::new(task::spawn(async move {
                sleep_until(at).await;
                drop_body(&body);
            }))
        });
        Self { relay, body, ended: false, _watchdog }
    }

    /// Drops the upstream body and ends with a status.
    fn end(&mut self, status: &Status) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.finish();
        self.relay.code = Some(status.code());
        Poll::Ready(Some(Ok(Frame::trailers(grpc::trailers(status)))))
    }

    fn finish(&mut self) {
        drop_body(&self.body);
        self.ended = true;
    }

    fn poll_upstream(&self, context: &mut Context<'_>) -> Poll<UpstreamFrame> {
        match &mut *lock(&self.body) {
            Some(body) => Pin::new(body).poll_frame(context).map(UpstreamFrame::Frame),
            None => Poll::Ready(UpstreamFrame::Taken),
        }
    }
}

enum UpstreamFrame {
    Frame(Option<Result<Frame<Bytes>, Status>>),
    /// The watchdog dropped the body at the deadline.
    Taken,
}

fn lock(body: &Mutex<Option<Body>>) -> std::sync::MutexGuard<'_, Option<Body>> {
    body.lock().unwrap_or_else(PoisonError::into_inner)
}

fn drop_body(body: &Mutex<Option<Body>>) {
    // Dropped after the lock is released, because the drop of a body runs code of other modules.
    let taken = lock(body).take();
    drop(taken);
}

impl http_body::Body for RelayBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        if this.ended {
            return Poll::Ready(None);
        }
        // The deadline is checked first, so that a stream that always has data ends at it too.
        if let Some(deadline) = &mut this.relay.deadline
            && deadline.as_mut().poll(context).is_ready()
        {
            let status = this.relay.deadline_exceeded();
            return this.end(&status);
        }
        match ready!(this.poll_upstream(context)) {
            UpstreamFrame::Frame(Some(Ok(mut frame))) => {
                if let Some(data) = frame.data_ref() {
                    this.relay.response_bytes.inc_by(data.len() as u64);
                    this.relay.bytes += data.len() as u64;
                    if let (Some(access), Some(MeshMethod::Series)) =
                        (&mut this.relay.access, this.relay.method)
                    {
                        access.series.push(data);
                    }
                } else if let Some(trailers) = frame.trailers_mut() {
                    grpc::fit_response(trailers);
                    this.relay.code = Some(grpc::code_of(trailers).unwrap_or(Code::Unknown));
                    this.finish();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            UpstreamFrame::Frame(Some(Err(status))) => {
                let message =
                    format!("{}: the stream was interrupted: {}", this.relay.target, status.message());
                // A reset does not carry its cause. For the caller, the target became unavailable.
                let code = match status.code() {
                    Code::Unknown | Code::Internal | Code::Cancelled => Code::Unavailable,
                    code => code,
                };
                this.end(&Status::new(code, message))
            }
            UpstreamFrame::Frame(None) if this.relay.code.is_none() => {
                let message = format!("{}: the stream ended without a status", this.relay.target);
                this.end(&Status::unavailable(message))
            }
            UpstreamFrame::Frame(None) => {
                this.finish();
                Poll::Ready(None)
            }
            UpstreamFrame::Taken => {
                let status = this.relay.deadline_exceeded();
                this.end(&status)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }

    fn size_hint(&self) -> SizeHint {
        // A body of known length may still end early, with trailers.
        SizeHint::default()
    }
}

/// A body whose bytes are counted.
struct CountedBody {
    body: Body,
    bytes: Counter,
}

impl http_body::Body for CountedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            self.bytes.inc_by(data.len() as u64);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, time::Duration};

    use http_body_util::{BodyExt, StreamBody};

    use super::*;
    use crate::metrics::GatewayMetrics;

    fn relay(timeout: Option<&str>) -> Relay {
        let metrics = GatewayMetrics::unregistered().peer(&"eu-1".parse().unwrap());
        let mut request = Request::new(());
        if let Some(timeout) = timeout {
            request.headers_mut().insert("grpc-timeout", timeout.parse().unwrap());
        }
        Relay::begin(
            RelayDirection::Outbound,
            "scraper-0.eu-1".into(),
            Some(MeshMethod::Series),
            metrics,
            &request,
        )
    }

    async fn run(relay: Relay, body: Body) -> Response<Body> {
        relay.run(std::future::ready(Ok::<_, Status>(Response::new(body)))).await
    }

    #[tokio::test]
    async fn the_deadline_drops_the_upstream_even_if_the_client_never_reads() {
        let (alive, mut dropped) = tokio::sync::mpsc::channel::<Infallible>(1);
        let endless = futures::stream::unfold(alive, |alive| async move {
            Some((Ok::<_, Status>(Frame::data(Bytes::from_static(b"data"))), alive))
        });
        let response = run(relay(Some("50m")), Body::new(StreamBody::new(Box::pin(endless)))).await;
        // The body is never polled, as with a stalled client. The upstream response is dropped at the deadline.
        let upstream_dropped = tokio::time::timeout(Duration::from_secs(10), dropped.recv()).await;
        assert!(matches!(upstream_dropped, Ok(None)), "the upstream response was not dropped");
        let end = response.into_body().collect().await.unwrap();
        assert_eq!(grpc::code_of(end.trailers().unwrap()), Some(Code::DeadlineExceeded));
    }

    #[tokio::test]
    async fn an_interrupted_stream_ends_with_a_status_after_its_data() {
        let data = || Ok(Frame::data(Bytes::from_static(b"data")));
        for last in [None, Some(Err(Status::internal("reset")))] {
            let frames = futures::stream::iter([Some(data()), last].into_iter().flatten());
            let response = run(relay(None), Body::new(StreamBody::new(frames))).await;
            let end = response.into_body().collect().await.unwrap();
            assert_eq!(grpc::code_of(end.trailers().unwrap()), Some(Code::Unavailable));
            assert_eq!(end.to_bytes(), "data");
        }
    }

    #[test]
    fn permits_are_limited_and_released() {
        let running = Arc::default();
        let first = RequestPermit::acquire(&running, 2);
        let second = RequestPermit::acquire(&running, 2);
        assert!(first.is_some() && second.is_some() && RequestPermit::acquire(&running, 2).is_none());
        drop(first);
        assert!(RequestPermit::acquire(&running, 2).is_some(), "a rejected request used a permit");
    }
}
