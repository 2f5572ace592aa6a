//! QUIC first, and TCP when no UDP answer comes.

use std::{net::SocketAddr, time::Duration};

use tokio::time::{Instant, sleep, timeout};

use crate::transport::{
    ConnectError, ConnectionEvent, ConnectionFailure, Dialer, MeshConnection, dialer::TlsOverTcp,
};

/// Time between two attempts to reach a port that refuses datagrams.
const QUIC_AGAIN: Duration = Duration::from_millis(200);

impl Dialer {
    /// Dials with QUIC, and also with TCP when QUIC has not answered within `fallback_after`. The QUIC attempt continues:
    /// on a long link its answer may only be late, and a late refusal still decides. A peer that is starting refuses
    /// datagrams for a moment, so that a port without QUIC is tried again until then.
    pub(super) async fn dial(&self, address: SocketAddr) -> Result<MeshConnection, ConnectError> {
        let (quic, again) = (self.dial_quic_again(address), self.dial_quic_again(address));
        self.quic_then_tcp(quic, again, self.open_tls_over_tcp(address)).await
    }

    /// The first of both that succeeds. Before the peer answers over TCP, it may not have run: what QUIC has sent is lost then, and
    /// would be sent again only after seconds. So QUIC is tried once more, as `again`, for [`last_chance`], before TCP is used.
    ///
    /// [`last_chance`]: crate::transport::TransportSettings::last_chance
    pub(super) async fn quic_then_tcp(
        &self,
        quic: impl Future<Output = Result<MeshConnection, ConnectError>>,
        again: impl Future<Output = Result<MeshConnection, ConnectError>>,
        tcp: impl Future<Output = Result<TlsOverTcp, ConnectError>>,
    ) -> Result<MeshConnection, ConnectError> {
        let (mut quic, mut tcp) = (std::pin::pin!(quic), std::pin::pin!(tcp));
        let mut quic_may_answer = tokio::select! {
            dialled = &mut quic => match dialled {
                Err(error) if error.failure == ConnectionFailure::NoAnswer => false,
                decided => return decided,
            },
            () = sleep(self.node().settings.fallback_after) => true,
        };
        let opened = if quic_may_answer {
            tokio::select! {
                biased;
                dialled = &mut quic => match dialled {
                    Err(error) if error.failure == ConnectionFailure::NoAnswer => {
                        quic_may_answer = false;
                        tcp.await
                    }
                    decided => return decided,
                },
                opened = &mut tcp => match opened {
                    Err(error) if error.failure != ConnectionFailure::Refused => return quic.await,
                    decided => decided,
                },
            }
        } else {
            tcp.await
        };
        let opened = opened?;
        let last_chance = async {
            tokio::select! {
                decided = unless_silent(quic), if quic_may_answer => decided,
                decided = unless_silent(again) => decided,
            }
        };
        if let Ok(decided) = timeout(self.node().settings.last_chance, last_chance).await {
            return decided;
        }
        let connection = self.use_tcp(opened)?;
        (self.node().events)(&ConnectionEvent::FellBack { address: connection.link().remote() });
        Ok(connection)
    }

    /// Dials with QUIC, again and again while nothing answers, for the time of one handshake.
    pub(super) async fn dial_quic_again(&self, address: SocketAddr) -> Result<MeshConnection, ConnectError> {
        let give_up = Instant::now() + self.node().settings.handshake_timeout;
        loop {
            let dialled = self.dial_quic(address).await;
            let is_silent = matches!(&dialled, Err(error) if error.failure == ConnectionFailure::NoAnswer);
            if !is_silent || !self.has_endpoint(address) || Instant::now() + QUIC_AGAIN >= give_up {
                return dialled;
            }
            sleep(QUIC_AGAIN).await;
        }
    }
}

/// The outcome of an attempt; never resolves if nothing answered.
async fn unless_silent(
    attempt: impl Future<Output = Result<MeshConnection, ConnectError>>,
) -> Result<MeshConnection, ConnectError> {
    match attempt.await {
        Err(error) if error.failure == ConnectionFailure::NoAnswer => std::future::pending().await,
        decided => decided,
    }
}
