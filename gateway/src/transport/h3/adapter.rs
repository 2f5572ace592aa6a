//! h3's QUIC interface, implemented on quinn.
//!
//! Unlike the adapter `h3-quinn`, it can stop a stream while a read is pending, reports streams that the peer has stopped
//! even when they are idle ([`StopWatch`]), resets a stream that is dropped before its end (quinn would finish it as if
//! it were complete), reads many packets at a time, and limits what h3 buffers ([`FrameSplitter`]).

use std::{
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
};

use ::h3::quic::{self, ConnectionErrorIncoming, StreamErrorIncoming, StreamId, WriteBuf};
use bytes::{Buf, Bytes, BytesMut};
use futures::{StreamExt, future::BoxFuture, stream::BoxStream};
use quinn::{ConnectionError, ReadError, VarInt, WriteError};

use crate::transport::h3::frames::FrameSplitter;

/// Packets that are joined into one piece: 32 KiB at the size of the internet, 152 KiB at the largest.
const PACKETS: usize = 24;
/// H3_REQUEST_CANCELLED: the code for a stream that is dropped before its end.
const CANCELLED: VarInt = VarInt::from_u32(0x10c);
/// Bytes that a control stream may send in all; it carries a few settings.
const MAX_CONTROL_BYTES: usize = 64 << 10;

/// Resolves when the peer has stopped a stream or the connection is lost.
pub(super) type StopWatch = BoxFuture<'static, ()>;

/// A QUIC connection. Streams can be accepted on dialled connections too.
pub(super) struct QuicConnection {
    quic: quinn::Connection,
    incoming_bidi: BoxStream<'static, Result<(quinn::SendStream, quinn::RecvStream), ConnectionError>>,
    incoming_uni: BoxStream<'static, Result<quinn::RecvStream, ConnectionError>>,
    opener: StreamOpener,
    stop_watch: LatestStopWatch,
    max_frame_bytes: u64,
}

/// The stop watch of the stream that was accepted last. h3 cannot pass it along with the stream.
#[derive(Clone, Default)]
pub(super) struct LatestStopWatch(Arc<Mutex<Option<StopWatch>>>);

impl LatestStopWatch {
    pub(super) fn take(&self) -> Option<StopWatch> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn put(&self, watch: StopWatch) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(watch);
    }
}

impl QuicConnection {
    /// `max_frame_bytes` limits frames other than DATA.
    pub(super) fn new(quic: quinn::Connection, max_frame_bytes: u64) -> Self {
        let incoming_bidi =
            futures::stream::unfold(quic.clone(), |quic| async { Some((quic.accept_bi().await, quic)) });
        let incoming_uni =
            futures::stream::unfold(quic.clone(), |quic| async { Some((quic.accept_uni().await, quic)) });
        Self {
            opener: StreamOpener {
                quic: quic.clone(),
                opening_bidi: None,
                opening_uni: None,
                max_frame_bytes,
            },
            quic,
            incoming_bidi: incoming_bidi.boxed(),
            incoming_uni: incoming_uni.boxed(),
            stop_watch: LatestStopWatch::default(),
            max_frame_bytes,
        }
    }

    /// The place where each accepted stream leaves its stop watch.
    pub(super) fn accepted(&self) -> LatestStopWatch {
        self.stop_watch.clone()
    }
}

fn poll_incoming<T>(
    incoming: &mut BoxStream<'static, Result<T, ConnectionError>>,
    cx: &mut Context<'_>,
) -> Poll<Result<T, ConnectionErrorIncoming>> {
    match ready!(incoming.as_mut().poll_next(cx)) {
        Some(accepted) => Poll::Ready(accepted.map_err(lost)),
        None => Poll::Ready(Err(ConnectionErrorIncoming::InternalError("no more streams".into()))),
    }
}

impl quic::Connection<Bytes> for QuicConnection {
    type RecvStream = RecvStream;
    type OpenStreams = StreamOpener;

    fn poll_accept_recv(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<RecvStream, ConnectionErrorIncoming>> {
        poll_incoming(&mut self.incoming_uni, cx).map_ok(RecvStream::control)
    }

    fn poll_accept_bidi(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<BidiStream, ConnectionErrorIncoming>> {
        let (send, recv) = ready!(poll_incoming(&mut self.incoming_bidi, cx))?;
        let stopped = send.stopped();
        self.stop_watch.put(Box::pin(async move {
            // `Ok(None)` means that everything was sent and acknowledged, so nothing can be stopped.
            if let Ok(None) = stopped.await {
                std::future::pending::<()>().await;
            }
        }));
        Poll::Ready(Ok(BidiStream::new(send, recv, self.max_frame_bytes)))
    }

    fn opener(&self) -> StreamOpener {
        self.opener.clone()
    }
}

impl quic::OpenStreams<Bytes> for QuicConnection {
    type BidiStream = BidiStream;
    type SendStream = SendStream;

    fn poll_open_bidi(&mut self, cx: &mut Context<'_>) -> Poll<Result<BidiStream, StreamErrorIncoming>> {
        self.opener.poll_open_bidi(cx)
    }

    fn poll_open_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<SendStream, StreamErrorIncoming>> {
        self.opener.poll_open_send(cx)
    }

    fn close(&mut self, code: ::h3::error::Code, reason: &[u8]) {
        self.quic.close(varint(code.value()), reason);
    }
}

type Opening<T> = Option<BoxFuture<'static, Result<T, ConnectionError>>>;

/// Opens streams; waits while the peer allows no further ones.
pub(super) struct StreamOpener {
    quic: quinn::Connection,
    opening_bidi: Opening<(quinn::SendStream, quinn::RecvStream)>,
    opening_uni: Opening<quinn::SendStream>,
    max_frame_bytes: u64,
}

impl Clone for StreamOpener {
    fn clone(&self) -> Self {
        Self {
            quic: self.quic.clone(),
            opening_bidi: None,
            opening_uni: None,
            max_frame_bytes: self.max_frame_bytes,
        }
    }
}

impl quic::OpenStreams<Bytes> for StreamOpener {
    type BidiStream = BidiStream;
    type SendStream = SendStream;

    fn poll_open_bidi(&mut self, cx: &mut Context<'_>) -> Poll<Result<BidiStream, StreamErrorIncoming>> {
        let opening = self.opening_bidi.get_or_insert_with(|| {
            let quic = self.quic.clone();
            Box::pin(async move { quic.open_bi().await })
        });
        let opened = ready!(opening.as_mut().poll(cx));
        self.opening_bidi = None;
        let (send, recv) = opened.map_err(stream_lost)?;
        Poll::Ready(Ok(BidiStream::new(send, recv, self.max_frame_bytes)))
    }

    fn poll_open_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<SendStream, StreamErrorIncoming>> {
        let opening = self.opening_uni.get_or_insert_with(|| {
            let quic = self.quic.clone();
            Box::pin(async move { quic.open_uni().await })
        });
        let opened = ready!(opening.as_mut().poll(cx));
        self.opening_uni = None;
        Poll::Ready(opened.map(SendStream::new).map_err(stream_lost))
    }

    fn close(&mut self, code: ::h3::error::Code, reason: &[u8]) {
        self.quic.close(varint(code.value()), reason);
    }
}

/// Both directions of a request.
pub(super) struct BidiStream {
    send: SendStream,
    recv: RecvStream,
}

impl BidiStream {
    fn new(send: quinn::SendStream, recv: quinn::RecvStream, max_frame_bytes: u64) -> Self {
        Self { send: SendStream::new(send), recv: RecvStream::request(recv, max_frame_bytes) }
    }
}

impl quic::BidiStream<Bytes> for BidiStream {
    type SendStream = SendStream;
    type RecvStream = RecvStream;

    fn split(self) -> (SendStream, RecvStream) {
        (self.send, self.recv)
    }
}

impl quic::SendStream<Bytes> for BidiStream {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.send.poll_ready(cx)
    }

    fn send_data<T: Into<WriteBuf<Bytes>>>(&mut self, data: T) -> Result<(), StreamErrorIncoming> {
        self.send.send_data(data)
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.send.poll_finish(cx)
    }

    fn reset(&mut self, code: u64) {
        self.send.reset(code);
    }

    fn send_id(&self) -> StreamId {
        self.send.send_id()
    }
}

impl quic::RecvStream for BidiStream {
    type Buf = Bytes;

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        self.recv.poll_data(cx)
    }

    fn stop_sending(&mut self, code: u64) {
        self.recv.stop_sending(code);
    }

    fn recv_id(&self) -> StreamId {
        self.recv.recv_id()
    }
}

/// The sending direction. Dropping it before it was finished resets the stream.
pub(super) struct SendStream {
    stream: quinn::SendStream,
    writing: Option<WriteBuf<Bytes>>,
    ended: bool,
}

impl SendStream {
    fn new(stream: quinn::SendStream) -> Self {
        Self { stream, writing: None, ended: false }
    }
}

impl quic::SendStream<Bytes> for SendStream {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        while let Some(data) = &mut self.writing {
            let written = ready!(pin!(self.stream.write(data.chunk())).poll(cx)).map_err(not_written)?;
            data.advance(written);
            if !data.has_remaining() {
                self.writing = None;
            }
        }
        Poll::Ready(Ok(()))
    }

    fn send_data<T: Into<WriteBuf<Bytes>>>(&mut self, data: T) -> Result<(), StreamErrorIncoming> {
        if self.writing.is_some() {
            return Err(StreamErrorIncoming::ConnectionErrorIncoming {
                connection_error: ConnectionErrorIncoming::InternalError(
                    "send_data was called before the previous write finished".into(),
                ),
            });
        }
        self.writing = Some(data.into());
        Ok(())
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        ready!(self.poll_ready(cx))?;
        // An error means that the stream has ended already.
        let _ = self.stream.finish();
        self.ended = true;
        Poll::Ready(Ok(()))
    }

    fn reset(&mut self, code: u64) {
        let _ = self.stream.reset(varint(code));
        self.ended = true;
    }

    fn send_id(&self) -> StreamId {
        stream_id(self.stream.id())
    }
}

impl Drop for SendStream {
    fn drop(&mut self) {
        if !self.ended {
            let _ = self.stream.reset(CANCELLED);
        }
    }
}

/// The receiving direction. Dropping it before its end stops the stream.
pub(super) struct RecvStream {
    stream: quinn::RecvStream,
    splitting: Splitting,
}

/// Where received bytes are split before h3 gets them.
enum Splitting {
    /// At the boundaries of frames.
    Frames(FrameSplitter),
    /// Not at all; the number of bytes that may still arrive.
    Control(usize),
}

impl RecvStream {
    fn request(stream: quinn::RecvStream, max_frame_bytes: u64) -> Self {
        Self { stream, splitting: Splitting::Frames(FrameSplitter::new(max_frame_bytes)) }
    }

    fn control(stream: quinn::RecvStream) -> Self {
        Self { stream, splitting: Splitting::Control(MAX_CONTROL_BYTES) }
    }

    /// All available data, joined, up to [`PACKETS`] packets; `None` at the end of the stream.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        let mut packets = [const { Bytes::new() }; PACKETS];
        let read = ready!(pin!(self.stream.read_chunks(&mut packets)).poll(cx)).map_err(not_read)?;
        let Some(read) = read else { return Poll::Ready(Ok(None)) };
        if read == 1 {
            return Poll::Ready(Ok(Some(std::mem::take(&mut packets[0]))));
        }
        let packets = &packets[..read];
        let mut joined = BytesMut::with_capacity(packets.iter().map(Bytes::len).sum());
        packets.iter().for_each(|packet| joined.extend_from_slice(packet));
        Poll::Ready(Ok(Some(joined.freeze())))
    }
}

impl quic::RecvStream for RecvStream {
    type Buf = Bytes;

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        loop {
            if let Splitting::Frames(frames) = &mut self.splitting
                && let Some(piece) = frames.next().map_err(|e| StreamErrorIncoming::Unknown(Box::new(e)))?
            {
                return Poll::Ready(Ok(Some(piece)));
            }
            let bytes = ready!(self.poll_read(cx))?;
            match (&mut self.splitting, bytes) {
                (Splitting::Frames(frames), Some(bytes)) => frames.push(bytes),
                (Splitting::Frames(frames), None) => return Poll::Ready(Ok(frames.rest())),
                (Splitting::Control(left), Some(bytes)) => {
                    *left = left.checked_sub(bytes.len()).ok_or_else(|| {
                        StreamErrorIncoming::Unknown("more than 64 KiB on a control stream".into())
                    })?;
                    return Poll::Ready(Ok(Some(bytes)));
                }
                (Splitting::Control(_), None) => return Poll::Ready(Ok(None)),
            }
        }
    }

    fn stop_sending(&mut self, code: u64) {
        // An error means that the stream has ended already.
        let _ = self.stream.stop(varint(code));
    }

    fn recv_id(&self) -> StreamId {
        stream_id(self.stream.id())
    }
}

impl Drop for RecvStream {
    fn drop(&mut self) {
        let _ = self.stream.stop(CANCELLED);
    }
}

fn varint(code: u64) -> VarInt {
    VarInt::from_u64(code).unwrap_or(VarInt::MAX)
}

fn stream_id(id: quinn::StreamId) -> StreamId {
    VarInt::from(id).into_inner().try_into().expect("quinn's stream ids are variable-length integers too")
}

fn lost(error: ConnectionError) -> ConnectionErrorIncoming {
    match error {
        ConnectionError::ApplicationClosed(close) => {
            ConnectionErrorIncoming::ApplicationClose { error_code: close.error_code.into_inner() }
        }
        ConnectionError::TimedOut => ConnectionErrorIncoming::Timeout,
        other => ConnectionErrorIncoming::Undefined(Arc::new(other)),
    }
}

fn stream_lost(error: ConnectionError) -> StreamErrorIncoming {
    StreamErrorIncoming::ConnectionErrorIncoming { connection_error: lost(error) }
}

fn not_read(error: ReadError) -> StreamErrorIncoming {
    match error {
        ReadError::Reset(code) => StreamErrorIncoming::StreamTerminated { error_code: code.into_inner() },
        ReadError::ConnectionLost(error) => stream_lost(error),
        other => StreamErrorIncoming::Unknown(Box::new(other)),
    }
}

fn not_written(error: WriteError) -> StreamErrorIncoming {
    match error {
        WriteError::Stopped(code) => StreamErrorIncoming::StreamTerminated { error_code: code.into_inner() },
        WriteError::ConnectionLost(error) => stream_lost(error),
        other => StreamErrorIncoming::Unknown(Box::new(other)),
    }
}
