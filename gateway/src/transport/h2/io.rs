//! The socket below HTTP/2, of one type for all connections.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};

use futures::{FutureExt, future::BoxFuture};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::TlsStream;

use crate::transport::{ConnectionEnd, ConnectionFailure, MeshLink, error::of_io};

/// A TCP connection with or without TLS.
///
/// It is an enum and not a type parameter, so that hyper's HTTP/2 is compiled once for all connections of a gateway.
pub(crate) struct Http2Io {
    socket: Socket,
    /// Where a refusal is recorded; `None` outside the mesh.
    link: Option<MeshLink>,
    /// Resolves when the link has ended.
    ended: Option<BoxFuture<'static, ConnectionEnd>>,
}

enum Socket {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Http2Io {
    /// A connection to a store, without TLS.
    pub(crate) fn plain(stream: TcpStream) -> Self {
        Self { socket: Socket::Plain(stream), link: None, ended: None }
    }

    /// A TLS connection that does not belong to the mesh, such as one of enrolment.
    pub(crate) fn tls(stream: Box<TlsStream<TcpStream>>) -> Self {
        Self { socket: Socket::Tls(stream), link: None, ended: None }
    }

    /// A connection of the mesh. When the peer refuses our certificate, this ends `link` with the reason: in TLS 1.3 the
    /// refusal arrives as the first bytes we read, and HTTP/2's errors keep only its text.
    ///
    /// When `link` ends, reads and writes fail. hyper's requesting side has a task of its own that outlives its connection
    /// while streams are open, and no other way to end it.
    pub(super) fn mesh(stream: Box<TlsStream<TcpStream>>, link: MeshLink) -> Self {
        let watched = link.clone();
        let ended = async move { watched.closed().await }.boxed();
        Self { socket: Socket::Tls(stream), link: Some(link), ended: Some(ended) }
    }

    /// Fails if the link has ended. With `wait`, the task is woken when it ends.
    fn check_link(&mut self, cx: &mut Context<'_>, wait: bool) -> io::Result<()> {
        let (Some(link), Some(ended)) = (&self.link, &mut self.ended) else { return Ok(()) };
        if !wait && !link.is_closed() {
            return Ok(());
        }
        match ended.poll_unpin(cx) {
            Poll::Pending => Ok(()),
            Poll::Ready(end) => {
                self.ended = Some(std::future::ready(end.clone()).boxed());
                Err(io::Error::new(io::ErrorKind::ConnectionAborted, end.to_string()))
            }
        }
    }

    /// Ends the link with the reason if the peer has refused our certificate.
    fn note_refusal(&self, error: &io::Error) {
        if let Some(link) = &self.link
            && let (failure @ ConnectionFailure::Refused, reason) = of_io(error)
        {
            link.end(ConnectionEnd::There { failure, reason });
        }
    }

    /// A peer that refuses our certificate closes the connection while more is written. Its refusal is there to read.
    fn note_failed_write(&mut self, cx: &mut Context<'_>) {
        let mut room = [0];
        if let Socket::Tls(stream) = &mut self.socket
            && let Poll::Ready(Err(answer)) = Pin::new(stream).poll_read(cx, &mut ReadBuf::new(&mut room))
        {
            self.note_refusal(&answer);
        }
    }

    /// What every write ends with.
    fn after_write(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match &written {
            Poll::Pending => self.check_link(cx, true)?,
            Poll::Ready(Err(_)) => self.note_failed_write(cx),
            Poll::Ready(Ok(_)) => {}
        }
        written
    }

    /// The mesh connection above; `None` outside the mesh.
    pub(super) fn link(&self) -> Option<&MeshLink> {
        self.link.as_ref()
    }
}

impl AsyncRead for Http2Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check_link(cx, false)?;
        let read = match &mut self.socket {
            Socket::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Socket::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        };
        if read.is_pending() {
            self.check_link(cx, true)?;
        }
        if let Poll::Ready(Err(error)) = &read {
            self.note_refusal(error);
        }
        read
    }
}

impl AsyncWrite for Http2Io {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.check_link(cx, false)?;
        let written = match &mut self.socket {
            Socket::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Socket::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        };
        self.after_write(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check_link(cx, false)?;
        let written = match &mut self.socket {
            Socket::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Socket::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        };
        self.after_write(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        match &self.socket {
            Socket::Plain(stream) => stream.is_write_vectored(),
            Socket::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.socket {
            Socket::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Socket::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.socket {
            Socket::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Socket::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
