//! Joining with a token: from one line of text to credentials in the data directory.
//!
//! The gateway connects with TCP and TLS 1.3 to each address of the token in turn. The verifier accepts only the issuer
//! that the token names, under a root that the token pins. In TLS 1.3 a client sends no application data before that
//! check, so an impostor receives no byte of the secret. After the secret was sent, no other address is tried, because a
//! token works once.

use std::{
    io,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use futures::FutureExt;
use http::{Request, Uri};
use httpclient::Proxies;
use identity::{RefusedCertificate, SpiffeId, SpkiPin};
use pki::{JoinToken, KeyAndCsr};
use proto::isthmus::pki::v1::{EnrolRequest, EnrolResponse, enrolment_client::EnrolmentClient};
use runtime::{ListenAddress, RoleError};
use rustls_pki_types::ServerName;
use tokio::{
    net::{TcpStream, lookup_host},
    time::{Instant, timeout_at},
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::task::AbortOnDropHandle;
use tonic::Code;
use zeroize::Zeroizing;

use crate::{
    config::DialAddress,
    membership::{
        awaited::issuer_that_connects,
        credentials::{DataDir, DataDirError, Membership},
        received::{bundle_of, certificates},
    },
    peer_text::bounded,
    race::race,
    task::{self, BoxingExecutor},
    transport::{
        self, Body, StreamError,
        h2::{Http2Io, Http2RequestBody, handshake},
        handler_fn,
        settings::ALPN_ENROLMENT,
    },
};

/// Time limit for connecting to one address, including the TLS handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Time limit for the issuer's answer.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// Largest answer, in bytes: a chain and up to 16 roots.
const MAX_ANSWER_BYTES: usize = 512 << 10;

/// Why joining failed. Displays as one line that says what to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TokenJoinError {
    /// The issuer was reached at none of the addresses. The token is unused.
    #[error("cannot join: {0}; the token was not used, try again")]
    NotReached(String),
    /// The issuer rejected the token or the certificate request.
    #[error("cannot join: {address}: {reason}")]
    Refused { address: String, reason: String },
    /// The issuer cannot issue now, or a clock is wrong. The token is unused.
    #[error("cannot join: {address}: {reason}; the token was not used, try again")]
    NotNow { address: String, reason: String },
    /// The secret was sent, and then the exchange failed.
    #[error("cannot join: {address}: {reason}; the token may be used up, create a new one")]
    Broken { address: String, reason: String },
    /// The answer cannot be used or stored.
    #[error("cannot join: {0}")]
    Unusable(String),
    #[error(transparent)]
    DataDir(#[from] DataDirError),
}

impl TokenJoinError {
    /// Whether the token can be used again.
    pub(crate) fn leaves_the_token(&self) -> bool {
        matches!(self, Self::NotReached(_) | Self::NotNow { .. })
    }
}

impl From<TokenJoinError> for RoleError {
    fn from(error: TokenJoinError) -> Self {
        match error {
            // The token is the credential that the flag gave. The issuer will not accept it after a restart either.
            TokenJoinError::Refused { .. } => Self::wrong_configuration(error),
            _ => Self::failed(error),
        }
    }
}

/// Joins, and stores the membership and the credentials in `data_dir`. With `listen`, also waits there for the issuer, as long as
/// it cannot be reached.
///
/// # Errors
/// See [`TokenJoinError`]. Credentials are stored last, so that a directory with credentials is complete.
pub(crate) async fn join(
    token: &JoinToken,
    data_dir: &DataDir,
    proxies: &Proxies,
    listen: Option<&ListenAddress>,
) -> Result<(), TokenJoinError> {
    let key = KeyAndCsr::generate().map_err(|error| TokenJoinError::Unusable(error.to_string()))?;
    data_dir.check_writable()?;
    let addresses = token.addresses().iter().map(|address| address.parse());
    let addresses: Vec<DialAddress> =
        addresses.collect::<Result<_, String>>().map_err(TokenJoinError::Unusable)?;
    let dialling = connect_to_issuer(token.issuer(), token.pins(), &addresses, proxies);
    let connected = match listen {
        None => dialling.await,
        Some(listen) => dialled_or_awaited(token, dialling, listen).await,
    };
    let (address, stream) = connected.map_err(TokenJoinError::NotReached)?;
    let answer = enrol(token, &key, &address, stream).await?;
    let unusable = |reason: String| {
        TokenJoinError::Unusable(format!("{address}: answered with {reason}; create a new token"))
    };
    let now = SystemTime::now();
    let bundle = bundle_of(token.trust_domain(), answer.roots, &answer.bundle_signature)
        .map_err(|error| unusable(format!("an invalid trust bundle: {error}")))?
        .as_first(now);
    let credentials = token
        .accept(key, certificates(answer.chain).collect(), &bundle, now)
        .map_err(|error| unusable(format!("an unusable certificate: {error}")))?;
    let membership =
        Membership { issuer: token.issuer().clone(), environment: answer.environment, addresses };
    data_dir.store_membership(&membership)?;
    data_dir.store(&credentials, &bundle)?;
    tracing::info!(identity = %credentials.spiffe_id(), environment = membership.environment, "joined the mesh");
    Ok(())
}

/// The first connection to the issuer, whichever side dialled. Waits while the issuer cannot be dialled.
async fn dialled_or_awaited(
    token: &JoinToken,
    dialling: impl Future<Output = Result<(String, TlsStream<TcpStream>), String>>,
    listen: &ListenAddress,
) -> Result<(String, TlsStream<TcpStream>), String> {
    let config = identity::enrolment_client_config(token.issuer(), token.pins(), &[ALPN_ENROLMENT])
        .map_err(|error| error.to_string())?;
    let connector = TlsConnector::from(config);
    let shake_hands = |stream| handshake_with_issuer(&connector, token.issuer(), stream).boxed();
    let dialled = async {
        match dialling.await {
            Ok(connected) => connected,
            Err(error) => {
                tracing::warn!(error, %listen, "the issuer cannot be dialled, waiting until it connects");
                std::future::pending().await
            }
        }
    };
    tokio::select! {
        connected = dialled => Ok(connected),
        accepted = issuer_that_connects(listen, &shake_hands) => {
            let (remote, stream) = accepted.map_err(|error| error.to_string())?;
            Ok((remote.to_string(), stream))
        }
    }
}

/// Connects without a certificate to the first address at which `issuer` answers, under a root with one of the pins.
///
/// # Errors
/// Why it answers at none of them, in one line.
pub(crate) async fn connect_to_issuer(
    issuer: &SpiffeId,
    pins: &[SpkiPin],
    addresses: &[DialAddress],
    proxies: &Proxies,
) -> Result<(String, TlsStream<TcpStream>), String> {
    let config = identity::enrolment_client_config(issuer, pins, &[ALPN_ENROLMENT])
        .map_err(|error| error.to_string())?;
    let connector = TlsConnector::from(config);
    let mut failures = Vec::new();
    for address in addresses {
        let proxy = proxies.for_tls(address.host(), address.port());
        let deadline = Instant::now() + CONNECT_TIMEOUT;
        let connecting = async {
            let stream = match proxy {
                Some(proxy) => {
                    let through = transport::connect_through(proxy, address.as_str());
                    timeout_at(deadline, through)
                        .await
                        .map_err(|_| late())?
                        .map_err(|error| error.to_string())?
                }
                None => connect(address.as_str(), deadline).await?,
            };
            timeout_at(deadline, handshake_with_issuer(&connector, issuer, stream))
                .await
                .map_err(|_| late())?
        };
        match connecting.await {
            Ok(stream) => return Ok((address.to_string(), stream)),
            Err(reason) => failures.push(format!("{address}: {reason}")),
        }
    }
    Err(failures.join("; "))
}

/// Connects until the deadline.
///
/// # Errors
/// Why, for each address of the name, if it has several.
async fn connect(address: &str, deadline: Instant) -> Result<TcpStream, String> {
    let resolved = timeout_at(deadline, lookup_host(address)).await;
    let resolved = resolved.map_err(|_| late())?.map_err(|error| error.to_string())?;
    let attempt = |address| async move {
        let connected = timeout_at(deadline, TcpStream::connect(address)).await;
        connected.map_or_else(|_| Err(late()), |connected| connected.map_err(|error| error.to_string()))
    };
    race(resolved, attempt).await.map_err(|failed| match &failed[..] {
        [] => "the host name has no address".to_owned(),
        [(_, error)] => error.clone(),
        several => {
            let each = several.iter().map(|(address, error)| format!("{address}: {error}"));
            each.collect::<Vec<_>>().join(", ")
        }
    })
}

fn late() -> String {
    format!("no answer within {} s", CONNECT_TIMEOUT.as_secs())
}

async fn handshake_with_issuer(
    connector: &TlsConnector,
    issuer: &SpiffeId,
    stream: TcpStream,
) -> Result<TlsStream<TcpStream>, String> {
    let name = ServerName::try_from(issuer.dns_name()).map_err(|error| error.to_string())?;
    let stream = connector.connect(name, stream).await.map_err(|error| tls_reason(&error))?;
    if stream.get_ref().1.alpn_protocol() != Some(ALPN_ENROLMENT) {
        return Err("does not offer enrolment, expected the mesh port of an observability gateway".to_owned());
    }
    Ok(stream)
}

/// The reason of a TLS error: the refusal of a certificate inside it, if there is one, is the most precise.
fn tls_reason(error: &io::Error) -> String {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match tls.and_then(|error| RefusedCertificate::find_in(error)) {
        Some(refused) => refused.to_string(),
        None => match tls {
            Some(rustls::Error::AlertReceived(rustls::AlertDescription::NoApplicationProtocol)) => {
                "does not offer enrolment, expected the mesh port of an observability gateway".to_owned()
            }
            _ => format!("TLS: {error}"),
        },
    }
}

/// A client of the issuer's enrolment on a connection. The second value drives the connection while it is kept.
pub(super) async fn enrolment_client(
    address: &str,
    stream: TlsStream<TcpStream>,
) -> Result<(EnrolmentClient<mesh::Channel>, AbortOnDropHandle<()>), String> {
    let builder = hyper::client::conn::http2::Builder::new(BoxingExecutor);
    let started = handshake(&builder, Http2Io::tls(Box::new(stream.into()))).await;
    let (sender, connection) = started.map_err(|error| error.to_string())?;
    let driver = AbortOnDropHandle::new(task::spawn(connection.map(drop)));
    let handler = handler_fn(move |request: Request<Body>| {
        let mut sender = sender.clone();
        async move {
            let response = sender.send_request(request.map(Http2RequestBody::new)).await;
            Ok(response.map_err(|error| StreamError::from_hyper(&error))?.map(Body::from))
        }
    });
    let channel = transport::channel(address, handler);
    let client = EnrolmentClient::with_origin(channel, Uri::from_static("https://enrolment/"))
        .max_decoding_message_size(MAX_ANSWER_BYTES);
    Ok((client, driver))
}

async fn enrol(
    token: &JoinToken,
    key: &KeyAndCsr,
    address: &str,
    stream: TlsStream<TcpStream>,
) -> Result<EnrolResponse, TokenJoinError> {
    let broken = |reason: String| TokenJoinError::Broken { address: address.to_owned(), reason };
    let (mut client, driver) = enrolment_client(address, stream).await.map_err(broken)?;
    let request = EnrolRequest {
        secret: Bytes::from_owner(Zeroizing::new(token.secret().to_vec())),
        csr: key.csr_der().to_vec().into(),
        time: Some(SystemTime::now().into()),
    };
    let answer = tokio::time::timeout(ANSWER_TIMEOUT, client.enrol(request)).await;
    drop(driver);
    match answer {
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(status)) => {
            let reason = bounded(status.message());
            match status.code() {
                Code::FailedPrecondition => {
                    Err(TokenJoinError::NotNow { address: address.to_owned(), reason })
                }
                Code::PermissionDenied | Code::InvalidArgument => {
                    Err(TokenJoinError::Refused { address: address.to_owned(), reason })
                }
                _ => Err(broken(reason)),
            }
        }
        Err(_) => Err(broken(format!("no answer within {} s", ANSWER_TIMEOUT.as_secs()))),
    }
}
