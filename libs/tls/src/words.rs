//! Errors of TLS in plain words.

use std::error::Error as StdError;
use std::io;
use std::time::Duration;

use rustls::{AlertDescription as Alert, CertificateError, Error};

/// Longest time of a handshake.
pub(crate) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// What an error of a TLS connection says, in words that begin with the peer: "the server's certificate ..."; `None` if TLS is
/// not the cause. `peer` is "server" or "client".
pub fn explain(peer: &str, error: &io::Error) -> Option<String> {
    error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()).map(|error| words(peer, error))
}

/// An error of a handshake, in words.
pub(crate) fn in_words(peer: &str, error: io::Error) -> io::Error {
    let kind = error.kind();
    let text = match explain(peer, &error) {
        Some(text) => text,
        None if kind == io::ErrorKind::UnexpectedEof => {
            format!("the {peer} closed the connection during the TLS handshake")
        }
        None => format!("the connection was lost during the TLS handshake: {error}"),
    };
    io::Error::new(kind, text)
}

/// An error of reading. A peer that is killed ends TCP without ending TLS before; rustls' own text for that links to its manual.
pub(crate) fn of_read(error: io::Error) -> io::Error {
    match error.kind() {
        kind @ io::ErrorKind::UnexpectedEof => {
            let text = "the connection ended suddenly: the peer was killed, or something between cut it";
            io::Error::new(kind, text)
        }
        _ => error,
    }
}

pub(crate) fn timed_out(peer: &str) -> io::Error {
    let limit = HANDSHAKE_TIMEOUT.as_secs();
    let text = format!("the {peer} did not complete the TLS handshake within {limit} s");
    io::Error::new(io::ErrorKind::TimedOut, text)
}

/// An error of TLS, in words that begin with the peer.
pub fn words(peer: &str, error: &Error) -> String {
    match error {
        Error::InvalidCertificate(error) => format!("the {peer}'s certificate {}", of_certificate(error)),
        Error::NoCertificatesPresented => format!("the {peer} presented no certificate, but one is required"),
        Error::AlertReceived(alert) => format!("the {peer} {}", of_alert(*alert)),
        Error::InvalidMessage(_) => format!("the {peer} does not speak TLS on this connection"),
        Error::PeerIncompatible(_) => {
            format!("the {peer} supports no TLS version and algorithms that are allowed here")
        }
        Error::NoApplicationProtocol => format!("the {peer} offers no protocol that is supported here"),
        other => format!("the TLS connection to the {peer} failed: {}", cause_of(other)),
    }
}

fn of_certificate(error: &CertificateError) -> String {
    use CertificateError as E;
    match error {
        E::UnknownIssuer => "is not signed by a trusted CA".to_owned(),
        E::BadSignature => {
            "is not signed by a trusted CA: the trusted CA with the name of its issuer has another key"
                .to_owned()
        }
        E::Expired | E::ExpiredContext { .. } => "has expired".to_owned(),
        E::NotValidYet | E::NotValidYetContext { .. } => "is not valid yet".to_owned(),
        E::NotValidForNameContext { expected, presented } => {
            let presented = match presented.is_empty() {
                true => "has no DNS name or IP address".to_owned(),
                false => {
                    let names: Vec<&str> = presented.iter().map(|name| bare(name)).collect();
                    format!("is for {}", names.join(", "))
                }
            };
            format!("{presented}, expected {}", expected.to_str())
        }
        E::NotValidForName => "is for another name".to_owned(),
        E::InvalidPurpose | E::InvalidPurposeContext { .. } => {
            "is not meant for this side of a connection (extended key usage)".to_owned()
        }
        E::ApplicationVerificationFailure => "has none of the allowed names".to_owned(),
        E::Other(other) => format!("cannot be used: {}", words_of(&other.to_string())),
        other => format!("cannot be used: {other}"),
    }
}

/// A name such as `DnsName("store.example")` without its kind.
fn bare(presented: &str) -> &str {
    let inner = presented.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
    inner.unwrap_or(presented).trim_matches('"')
}

/// The names that certificate libraries give to causes, as words.
fn words_of(name: &str) -> String {
    match name {
        "CaUsedAsEndEntity" => {
            "it is that of a CA; list it as trusted, or issue one for the server".to_owned()
        }
        "UnsupportedCertVersion" => "it is not an X.509 certificate of version 3".to_owned(),
        other => other.to_owned(),
    }
}

fn of_alert(alert: Alert) -> String {
    match alert {
        Alert::CertificateRequired => "requires a client certificate".to_owned(),
        Alert::UnknownCA => "does not trust the CA of our certificate".to_owned(),
        Alert::CertificateExpired => "reports that our certificate has expired".to_owned(),
        Alert::CertificateRevoked => "reports that our certificate is revoked".to_owned(),
        Alert::BadCertificate | Alert::UnsupportedCertificate | Alert::CertificateUnknown => {
            "does not accept our certificate".to_owned()
        }
        Alert::AccessDenied => "does not allow access with our certificate".to_owned(),
        Alert::ProtocolVersion => "supports no TLS version that is allowed here".to_owned(),
        Alert::HandshakeFailure | Alert::InsufficientSecurity => {
            "supports no algorithms that are allowed here, or requires a client certificate".to_owned()
        }
        Alert::NoApplicationProtocol => "does not offer the protocol that was asked for".to_owned(),
        Alert::UnrecognisedName => "does not know the server name that was asked for".to_owned(),
        other => format!("ended the TLS connection with the alert {other:?}"),
    }
}

fn cause_of(error: &Error) -> String {
    error.source().map_or_else(|| error.to_string(), ToString::to_string)
}
