//! Dials through a proxy, where only that leads out of a network.
//!
//! A proxy carries TCP only. QUIC is tried directly, as without a proxy.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
};

use futures::FutureExt;
use mesh::Transport;
use promapi::ProxyUrl;
use rustls_pki_types::ServerName;
use tokio::net::{TcpStream, lookup_host};

use crate::race::race;
use crate::transport::{
    ConnectError, ConnectionFailure, Dialer, MeshConnection, TransportChoice,
    dialer::{TlsOverTcp, telling},
};

/// Opens a TCP connection to `address` (`HOST:PORT`) through a proxy, which also resolves the name.
///
/// # Errors
/// One line that names the proxy.
pub(crate) async fn connect_through(proxy: &ProxyUrl, address: &str) -> io::Result<TcpStream> {
    let named = |error: String| io::Error::other(format!("proxy {}: {error}", proxy.address()));
    let resolved = lookup_host(proxy.address()).await.map_err(|error| named(error.to_string()))?;
    let stream = race(resolved, TcpStream::connect).await.map_err(|failed| match failed.last() {
        Some((_, error)) => named(error.to_string()),
        None => named("the host name has no address".to_owned()),
    })?;
    let to = http::Uri::builder().scheme("https").authority(address).path_and_query("/").build();
    let to = to.map_err(|error| io::Error::other(format!("{address}: {error}")))?;
    proxy.tunnel(stream, to).await.map_err(|error| io::Error::other(error.to_string()))
}

impl Dialer {
    /// Dials with QUIC directly, and with TCP through the proxy.
    pub(super) async fn dial_with_proxy(&mut self, proxy: &ProxyUrl) -> Result<MeshConnection, ConnectError> {
        // The proxy may know a name that this machine does not.
        let addresses = self.resolve().await.unwrap_or_default();
        self.open_endpoints(&addresses);
        let this = &*self;
        let choice = this.transport_choice();
        let quic = || async {
            let dialled = race(addresses.iter().copied(), |address| match choice {
                TransportChoice::Quic => this.dial_quic(address).boxed(),
                _ => this.dial_quic_again(address).boxed(),
            });
            dialled.await.map_err(|failed| telling(failed).unwrap_or_else(|| this.unresolved()))
        };
        match choice {
            TransportChoice::Quic => quic().await,
            TransportChoice::Tcp => this.dial_tcp_through(proxy).await,
            TransportChoice::Auto => this.quic_then_tcp(quic(), quic(), this.open_tls_through(proxy)).await,
        }
    }

    /// Dials with TCP through the proxy. The address of the connection is that of the proxy.
    pub(super) async fn dial_tcp_through(&self, proxy: &ProxyUrl) -> Result<MeshConnection, ConnectError> {
        self.use_tcp(self.open_tls_through(proxy).await?)
    }

    async fn open_tls_through(&self, proxy: &ProxyUrl) -> Result<TlsOverTcp, ConnectError> {
        let unknown = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        let address = lookup_host(proxy.address()).await.ok().and_then(|mut found| found.next());
        let host = self.dialled().rsplit_once(':').map_or("", |(host, _)| host).trim_matches(['[', ']']);
        let name = ServerName::try_from(host.to_owned());
        let name = name.unwrap_or_else(|_| Ipv4Addr::UNSPECIFIED.into());
        self.open_tls(address.unwrap_or(unknown), connect_through(proxy, self.dialled()), name).await
    }

    fn unresolved(&self) -> ConnectError {
        ConnectError {
            address: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            transport: Transport::Quic,
            failure: ConnectionFailure::NoAnswer,
            reason: format!("{}: the name cannot be resolved here", self.dialled()),
        }
    }
}
