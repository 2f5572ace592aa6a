//! Connections of a channel: TCP, with TLS where it is set.
//!
//! When a connection fails, HTTP/2 reports only that it is gone. Why is seen here, where its bytes pass, and noted for the
//! errors of the requests.

use std::error::Error as StdError;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use batching::BatchedWrites;
use http::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use tls::{ClientTls, TcpOrTls};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tonic::Status;
use tower::Service;

type BoxError = Box<dyn StdError + Send + Sync>;

/// The first byte of an alert, which a server with TLS sends to a client without.
const TLS_ALERT: u8 = 0x15;

/// Why the last connection of a channel failed, if it said more than that it is gone. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct ConnectionNote(Arc<Mutex<Option<String>>>);

impl ConnectionNote {
    /// The error of a request, with the reason instead of "the connection is gone".
    pub(crate) fn explain(&self, error: BoxError) -> BoxError {
        let reason = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match reason {
            Some(reason) => Status::unavailable(reason).into(),
            None => error,
        }
    }

    fn clear(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Keeps the first reason, of which later ones are consequences.
    fn set(&self, reason: impl Into<String>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| reason.into());
    }
}

/// Opens the connections of a channel.
#[derive(Clone, Debug)]
pub(crate) struct Connector {
    tcp: HttpConnector,
    tls: Option<ClientTls>,
    note: ConnectionNote,
}

impl Connector {
    pub(crate) fn new(tls: Option<ClientTls>, note: ConnectionNote) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        Self { tcp, tls, note }
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<BatchedWrites<ChannelIo>>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.tcp.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let Self { tls, note, .. } = self.clone();
        let connecting = self.tcp.call(uri.clone());
        Box::pin(async move {
            note.clear();
            let stream: TcpStream = connecting.await?.into_inner();
            let stream = match tls {
                None => stream.into(),
                Some(tls) => tls.connect(uri.host().unwrap_or_default(), stream).await?.into(),
            };
            Ok(TokioIo::new(BatchedWrites::new(ChannelIo { stream, note, heard: false })))
        })
    }
}

/// A connection that notes why it failed.
pub(crate) struct ChannelIo {
    stream: TcpOrTls,
    note: ConnectionNote,
    /// Whether the server has sent anything.
    heard: bool,
}

impl ChannelIo {
    fn note_error(&self, error: &io::Error) {
        if let Some(reason) = tls::explain("server", error) {
            self.note.set(reason);
        } else if !self.heard {
            // A server that refuses the first bytes closes the connection while more are written. Its answer is there.
            let mut first = [0];
            match &self.stream {
                TcpOrTls::Tcp(stream) if matches!(stream.try_read(&mut first), Ok(1)) => {
                    self.note_first_byte(first[0]);
                }
                _ => {}
            }
            self.note_silence();
        }
    }

    /// A server that refuses our certificate closes the connection while more is written. Its alert is there, and says why.
    fn note_failed_write(&mut self, cx: &mut Context<'_>, error: &io::Error) {
        let mut room = [0];
        if !self.heard
            && matches!(self.stream, TcpOrTls::Tls(_))
            && let Poll::Ready(Err(answer)) =
                Pin::new(&mut self.stream).poll_read(cx, &mut ReadBuf::new(&mut room))
        {
            self.note_error(&answer);
        }
        self.note_error(error);
    }

    fn note_first_byte(&self, first: u8) {
        if first == TLS_ALERT && matches!(self.stream, TcpOrTls::Tcp(_)) {
            self.note.set("the server expects TLS, but the connection has none");
        }
    }

    fn note_silence(&self) {
        let tls = match &self.stream {
            TcpOrTls::Tcp(_) => "expects TLS",
            TcpOrTls::Tls(_) => "serves gRPC there",
        };
        self.note.set(format!("the server closed the connection without an answer; check whether it {tls}"));
    }
}

impl AsyncRead for ChannelIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        let read = ready!(Pin::new(&mut this.stream).poll_read(cx, buf));
        match &read {
            Err(error) => this.note_error(error),
            Ok(()) if this.heard => {}
            Ok(()) => match buf.filled().get(before) {
                None => this.note_silence(),
                Some(&first) => {
                    this.heard = true;
                    this.note_first_byte(first);
                }
            },
        }
        Poll::Ready(read)
    }
}

impl AsyncWrite for ChannelIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, buf));
        Poll::Ready(written.inspect_err(|error| self.note_failed_write(cx, error)))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, bufs));
        Poll::Ready(written.inspect_err(|error| self.note_failed_write(cx, error)))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = ready!(Pin::new(&mut self.stream).poll_flush(cx));
        Poll::Ready(flushed.inspect_err(|error| self.note_failed_write(cx, error)))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
