//! What can be found out about a gateway from outside of it, before it starts and while it runs.

use std::{io, net::UdpSocket, path::Path};

use http::Method;
use httpclient::{Proxies, ProxyConfig};
use pki::JoinToken;
use serde_json::Value;

use crate::{
    admin,
    config::DialAddress,
    membership::{credentials::stored_membership, join::connect_to_issuer},
};

/// Connects to the issuer that a token names, as when joining, and does not send the secret. Returns the address at which it answers.
///
/// # Errors
/// Why it answers at none of the addresses of the token, or is another one, in one line.
pub async fn issuer_answers(token: &JoinToken, proxy: &ProxyConfig) -> Result<String, String> {
    let proxies = Proxies::of(proxy).map_err(|error| error.to_string())?;
    let addresses = token.addresses().iter().map(|address| address.parse());
    let addresses: Vec<DialAddress> = addresses.collect::<Result<_, String>>()?;
    let connected = connect_to_issuer(token.issuer(), token.pins(), &addresses, &proxies).await;
    connected.map(|(address, _)| address)
}

/// The addresses of the token with which a gateway has joined; none if it has not.
pub fn addresses_of_issuer(data_dir: &Path) -> Vec<String> {
    stored_membership(data_dir)
        .map(|membership| membership.addresses.iter().map(ToString::to_string).collect())
        .unwrap_or_default()
}

/// Lets datagrams of a socket be dropped rather than be cut into pieces on their way, as QUIC does with its own.
///
/// # Errors
/// The system does not permit it.
pub fn forbid_fragments(socket: &UdpSocket) -> io::Result<()> {
    quinn::udp::UdpSocketState::new(socket.into())?;
    // The state is for a socket that does not block.
    socket.set_nonblocking(false)
}

/// Asks the gateway that runs with this data directory for a report: `status`, `peers`, `targets` or `certs`, as documented for its
/// admin socket, or for a `connect-test`.
///
/// # Errors
/// One line that says what to do.
pub async fn ask_running(data_dir: &Path, report: &str) -> Result<Value, String> {
    let method = if report == "connect-test" { Method::POST } else { Method::GET };
    admin::client::ask(data_dir, method, &format!("/v1/{report}")).await
}
