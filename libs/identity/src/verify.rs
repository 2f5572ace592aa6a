//! Verification of a peer: whether a certificate chain belongs to a peer of the mesh, and to which one.
//!
//! The checks run in this order. The first check that fails is the error:
//!
//! 1. a chain of 1 to 4 certificates leads from the leaf to a root of the bundle (checked by webpki, through
//!    rustls);
//! 2. the leaf is valid now, with up to 60 s of clock skew;
//! 3. the leaf has exactly one URI SAN and one DNS SAN, no other SAN, and both name the same component;
//! 4. the URI is a SPIFFE id of our grammar, in the trust domain of the bundle;
//! 5. the leaf is not a CA, may sign handshakes, may not sign certificates, may be client and server, and its
//!    key is of an allowed type;
//! 6. the leaf is not on the denylist;
//! 7. the leaf belongs to the expected cluster and component, when the caller expects one.
//!
//! Names are read from the same bytes whose signature was checked. Certificates outside the chain are
//! ignored.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustls::{
    CertificateError,
    pki_types::{CertificateDer, UnixTime},
    server::ParsedCertificate,
};
use x509_parser::prelude::{ASN1Time, FromDer, GeneralName, X509Certificate};

use crate::{
    bundle::TrustBundle,
    crypto::crypto_provider,
    key_type::KeyType,
    pin::SpkiPin,
    spiffe::{Name, NameError, SpiffeId, TrustDomain},
};

/// Largest difference between two clocks at which a certificate is not yet refused as expired or not yet
/// valid.
pub const CLOCK_SKEW: Duration = Duration::from_secs(60);

/// Most certificates in a chain: the leaf, the issuing CA, and room for one more CA and a root.
pub const MAX_CHAIN_LEN: usize = 4;

/// Largest certificate. A larger one is refused before it is parsed.
const MAX_CERTIFICATE_BYTES: usize = 16 * 1024;

/// The identity and the facts in a verified certificate.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerIdentity {
    /// The peer's SPIFFE id.
    pub spiffe_id: SpiffeId,
    /// The certificate's serial number, in lower-case hexadecimal digits.
    pub serial: String,
    /// The pin of the peer's key.
    pub spki: SpkiPin,
    /// The pins of the other certificates of its chain, the issuing CA among them.
    pub issuers: Vec<SpkiPin>,
    /// Start of the validity, inclusive.
    pub not_before: SystemTime,
    /// End of the validity, inclusive.
    pub not_after: SystemTime,
}

impl PeerIdentity {
    /// When the certificate was issued. Issuers set the start of the validity earlier by the clock skew that verifiers
    /// allow.
    pub fn issued_at(&self) -> SystemTime {
        (self.not_before + CLOCK_SKEW).min(self.not_after)
    }

    /// When peers begin to refuse the certificate: at the end of its validity and the clock skew that they allow. Its
    /// connections stay open until then, too.
    pub fn refused_from(&self) -> SystemTime {
        self.not_after + CLOCK_SKEW
    }

    /// Repeats the checks whose result can change after the handshake: validity and denylist. Call it for
    /// each stream.
    ///
    /// # Errors
    /// When the certificate has expired since the handshake, or is on the denylist now.
    pub fn recheck(&self, now: SystemTime, denylist: &dyn Denylist) -> Result<(), RefusedCertificate> {
        let refuse = |reason| RefusedCertificate::new(&self.spiffe_id, reason);
        check_validity(self.not_before, self.not_after, now).map_err(refuse)?;
        denylist.denies(self).map_or(Ok(()), |why| Err(refuse(RefusalReason::Denied(why))))
    }
}

/// Which peers the verifying side accepts.
#[derive(Clone)]
pub struct Expectations {
    /// The cluster that the peer must belong to; `None` accepts every cluster.
    pub cluster: Option<Name>,
    /// The component that the peer must be; `None` accepts every component.
    pub component: Option<Name>,
    /// Peers that are refused although their certificate is valid.
    pub denylist: Arc<dyn Denylist>,
}

impl Default for Expectations {
    /// Accepts every peer of the trust domain.
    fn default() -> Self {
        Self { cluster: None, component: None, denylist: Arc::new(NoDenylist) }
    }
}

impl fmt::Debug for Expectations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cluster, component, denylist: _ } = self;
        f.debug_struct("Expectations")
            .field("cluster", cluster)
            .field("component", component)
            .finish_non_exhaustive()
    }
}

/// Decides which peers are refused although their certificate is valid.
pub trait Denylist: Send + Sync {
    /// Returns the reason for denying this peer (one short clause), or `None` when it is not denied.
    fn denies(&self, peer: &PeerIdentity) -> Option<String>;
}

/// An empty denylist.
#[derive(Debug, Clone, Copy)]
pub struct NoDenylist;

impl Denylist for NoDenylist {
    fn denies(&self, _: &PeerIdentity) -> Option<String> {
        None
    }
}

/// Verifies a chain, leaf first, against the roots of a trust domain. The checks are those of the list in
/// this module's documentation.
///
/// # Errors
/// The first check that failed. Nothing in the certificate may be trusted then.
pub fn verify_peer(
    chain: &[CertificateDer<'_>],
    bundle: &TrustBundle,
    now: SystemTime,
    expectations: &Expectations,
) -> Result<PeerIdentity, RefusedCertificate> {
    let unnamed = |reason| RefusedCertificate::new(&"a peer", reason);
    let Some((end_entity, intermediates)) = chain.split_first() else {
        return Err(unnamed(RefusalReason::NoCertificate));
    };
    if chain.len() > MAX_CHAIN_LEN {
        return Err(unnamed(RefusalReason::LongChain(chain.len())));
    }
    if chain.iter().any(|cert| cert.len() > MAX_CERTIFICATE_BYTES) {
        return Err(unnamed(RefusalReason::Unreadable("a certificate of its chain is larger than 16 KiB")));
    }
    let leaf = LeafCertificate::parse(end_entity)?;
    let refuse = |reason| leaf.refuse(reason);

    let (not_before, not_after) = leaf.validity();
    // webpki checks the chain at one time and without clock skew. Pass it a time at which the leaf is valid;
    // the next check compares the leaf's validity with `now`, with skew.
    let path_time = now.clamp(not_before, not_after.max(not_before));
    verify_path(end_entity, intermediates, bundle, path_time).map_err(refuse)?;
    check_validity(not_before, not_after, now).map_err(refuse)?;
    let identity = leaf.identity(intermediates)?;
    if identity.spiffe_id.trust_domain() != bundle.trust_domain() {
        return Err(refuse(RefusalReason::ForeignTrustDomain(bundle.trust_domain().clone())));
    }
    leaf.check_usage().map_err(refuse)?;
    if let Some(why) = expectations.denylist.denies(&identity) {
        return Err(refuse(RefusalReason::Denied(why)));
    }
    let wrong = |wanted: &Option<Name>, found: &Name| wanted.as_ref().is_some_and(|name| name != found);
    if wrong(&expectations.cluster, identity.spiffe_id.cluster())
        || wrong(&expectations.component, identity.spiffe_id.component())
    {
        let part = |name: &Option<Name>| name.as_ref().map_or("*".to_owned(), Name::to_string);
        let wanted = format!("{}.{}", part(&expectations.component), part(&expectations.cluster));
        return Err(refuse(RefusalReason::Unexpected { wanted }));
    }
    Ok(identity)
}

fn verify_path(
    end_entity: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    bundle: &TrustBundle,
    time: SystemTime,
) -> Result<(), RefusalReason> {
    let since_epoch = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let anchors = bundle.anchors_at(since_epoch.as_secs() as i64);
    let untrusted = |e: rustls::Error| match e {
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            RefusalReason::UnknownIssuer(bundle.trust_domain().clone())
        }
        rustls::Error::InvalidCertificate(CertificateError::BadSignature) => {
            RefusalReason::Path("a signature does not verify".into())
        }
        rustls::Error::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. },
        ) => RefusalReason::Path("an issuing certificate has expired".into()),
        rustls::Error::InvalidCertificate(e) => RefusalReason::Path(format!("{e}")),
        other => RefusalReason::Path(other.to_string()),
    };
    let parsed = ParsedCertificate::try_from(end_entity).map_err(untrusted)?;
    rustls::client::verify_server_cert_signed_by_trust_anchor(
        &parsed,
        &anchors,
        intermediates,
        UnixTime::since_unix_epoch(since_epoch),
        crypto_provider().signature_verification_algorithms.all,
    )
    .map_err(untrusted)
}

fn check_validity(
    not_before: SystemTime,
    not_after: SystemTime,
    now: SystemTime,
) -> Result<(), RefusalReason> {
    if now + CLOCK_SKEW < not_before {
        return Err(RefusalReason::NotYetValid { not_before, now });
    }
    if now > not_after + CLOCK_SKEW {
        return Err(RefusalReason::Expired { not_after, now });
    }
    Ok(())
}

/// The end of the validity of a certificate of any kind; `None` if it is not one.
pub(crate) fn not_after(der: &[u8]) -> Option<SystemTime> {
    Some(LeafCertificate::parse(der).ok()?.validity().1)
}

/// A parsed leaf certificate. Parsing checks nothing: its content may be forged.
pub(crate) struct LeafCertificate<'a> {
    cert: X509Certificate<'a>,
}

impl<'a> LeafCertificate<'a> {
    pub(crate) fn parse(der: &'a [u8]) -> Result<Self, RefusedCertificate> {
        match X509Certificate::from_der(der) {
            Ok(([], cert)) => Ok(Self { cert }),
            _ => Err(RefusedCertificate::new(
                &"a peer",
                RefusalReason::Unreadable("it is not an X.509 certificate"),
            )),
        }
    }

    /// The SPIFFE id from the names of the certificate, with the other facts in it and the pins of the rest of its chain.
    pub(crate) fn identity(
        &self,
        intermediates: &[CertificateDer<'_>],
    ) -> Result<PeerIdentity, RefusedCertificate> {
        let spiffe_id = self.names().map_err(|reason| self.refuse(reason))?;
        let (not_before, not_after) = self.validity();
        let serial = self.cert.raw_serial().iter().skip_while(|byte| **byte == 0);
        let serial = serial.map(|byte| format!("{byte:02x}")).collect();
        let spki = SpkiPin::of_spki(self.cert.public_key().raw);
        let issuers = intermediates.iter().filter_map(|der| SpkiPin::of_certificate(der).ok()).collect();
        Ok(PeerIdentity { spiffe_id, serial, spki, issuers, not_before, not_after })
    }

    fn names(&self) -> Result<SpiffeId, RefusalReason> {
        let san = self
            .cert
            .subject_alternative_name()
            .map_err(|_| RefusalReason::Names("its subject alternative names cannot be parsed".into()))?;
        let names = san.map(|extension| extension.value.general_names.as_slice()).unwrap_or_default();
        let (uri, dns) = match names {
            [GeneralName::URI(uri), GeneralName::DNSName(dns)]
            | [GeneralName::DNSName(dns), GeneralName::URI(uri)] => (*uri, *dns),
            _ => {
                return Err(RefusalReason::Names(
                    "it must have exactly one URI name and one DNS name, and no other names".into(),
                ));
            }
        };
        let id: SpiffeId = uri.parse().map_err(|e: NameError| RefusalReason::Names(e.to_string()))?;
        if dns != id.dns_name() {
            return Err(RefusalReason::Names(format!(
                "its DNS name must be {}, as in its SPIFFE id",
                id.dns_name()
            )));
        }
        Ok(id)
    }

    fn validity(&self) -> (SystemTime, SystemTime) {
        let time = |t: ASN1Time| UNIX_EPOCH + Duration::from_secs(t.timestamp().max(0) as u64);
        (time(self.cert.validity().not_before), time(self.cert.validity().not_after))
    }

    fn check_usage(&self) -> Result<(), RefusalReason> {
        if self.cert.is_ca() {
            return Err(RefusalReason::Usage("it is a CA certificate, expected a leaf"));
        }
        match self.cert.key_usage() {
            Ok(Some(usage)) if usage.value.key_cert_sign() || usage.value.crl_sign() => {
                return Err(RefusalReason::Usage(
                    "its key usage allows it to sign certificates or revocation lists",
                ));
            }
            Ok(Some(usage)) if usage.value.digital_signature() => {}
            _ => return Err(RefusalReason::Usage("its key usage lacks digitalSignature")),
        }
        match self.cert.extended_key_usage() {
            Ok(Some(usage)) if usage.value.server_auth && usage.value.client_auth => {}
            _ => {
                return Err(RefusalReason::Usage(
                    "its extended key usage must include both serverAuth and clientAuth",
                ));
            }
        }
        match KeyType::of_spki(self.cert.public_key().raw) {
            Some(_) => Ok(()),
            None => Err(RefusalReason::Usage("its key is not P-256, P-384 or Ed25519")),
        }
    }

    fn refuse(&self, reason: RefusalReason) -> RefusedCertificate {
        match self.names() {
            Ok(id) => RefusedCertificate::new(&id, reason),
            Err(_) => {
                let subject: String = self.cert.subject().to_string().escape_debug().take(200).collect();
                RefusedCertificate::new(&format_args!("\"{subject}\""), reason)
            }
        }
    }
}

/// A refused certificate: whose it is and why it was refused. Prints as one line.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[error("certificate of {subject} refused: {reason}")]
pub struct RefusedCertificate {
    subject: String,
    reason: RefusalReason,
}

impl RefusedCertificate {
    pub(crate) fn new(subject: &dyn fmt::Display, reason: RefusalReason) -> Self {
        Self { subject: subject.to_string(), reason }
    }

    /// The SPIFFE id that the certificate *claims*, or its subject when it has no valid id. Neither is
    /// verified.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// The check that failed.
    pub fn reason(&self) -> &RefusalReason {
        &self.reason
    }

    /// Finds the refusal inside an error of TLS or of a protocol above it. Follows `io::Error` and the
    /// sources.
    pub fn find_in<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a Self> {
        if let Some(refused) = error.downcast_ref() {
            return Some(refused);
        }
        let inner: Option<&(dyn std::error::Error + 'static)> = match error.downcast_ref::<rustls::Error>() {
            Some(rustls::Error::InvalidCertificate(CertificateError::Other(other))) => Some(&*other.0),
            Some(_) => None,
            None => match error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
                Some(inner) => Some(inner),
                None => error.source(),
            },
        };
        inner.and_then(Self::find_in)
    }
}

impl fmt::Debug for RefusedCertificate {
    /// Prints the same line as `Display`, because rustls and quinn print this error with `Debug`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<RefusedCertificate> for rustls::Error {
    fn from(refused: RefusedCertificate) -> Self {
        Self::InvalidCertificate(CertificateError::Other(rustls::OtherError(Arc::new(refused))))
    }
}

/// Why a certificate was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RefusalReason {
    /// The peer sent no certificate.
    NoCertificate,
    /// The chain has this many certificates, more than [`MAX_CHAIN_LEN`].
    LongChain(usize),
    /// The leaf is not a certificate, or a certificate is too large.
    Unreadable(&'static str),
    /// The chain does not lead to a valid root of this trust domain.
    UnknownIssuer(TrustDomain),
    /// At enrolment: the token pins none of the roots that the server presented.
    UnpinnedRoot,
    /// The chain to the root is invalid for another reason.
    Path(String),
    /// The validity starts later than now plus the clock skew.
    NotYetValid {
        /// Start of the validity.
        not_before: SystemTime,
        /// The local time.
        now: SystemTime,
    },
    /// The validity ended earlier than now minus the clock skew.
    Expired {
        /// End of the validity.
        not_after: SystemTime,
        /// The local time.
        now: SystemTime,
    },
    /// The names are missing, malformed, too many, or do not match each other.
    Names(String),
    /// It does not belong to the trust domain of the bundle, which is given here.
    ForeignTrustDomain(TrustDomain),
    /// Its usage or its key type does not allow a peer to use it.
    Usage(&'static str),
    /// It is on the denylist.
    Denied(String),
    /// The certificate is valid but belongs to another peer than the expected one.
    Unexpected {
        /// The expected peer as `component.cluster`, with `*` for any.
        wanted: String,
    },
}

impl fmt::Display for RefusalReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoCertificate => f.write_str("no certificate was sent"),
            Self::LongChain(len) => {
                write!(f, "the chain has {len} certificates, at most {MAX_CHAIN_LEN} are allowed")
            }
            Self::Unreadable(why) => f.write_str(why),
            Self::UnknownIssuer(domain) => {
                write!(f, "it does not chain to a valid root of trust domain {domain}")
            }
            Self::UnpinnedRoot => f.write_str(
                "the server presented no root that the token pins; it is not the issuer of this token",
            ),
            Self::Path(why) => write!(f, "the chain to the root is invalid: {why}"),
            Self::NotYetValid { not_before, now } => {
                write!(
                    f,
                    "it is valid from {}, the local clock is at {}; check both clocks",
                    utc(*not_before),
                    utc(*now)
                )
            }
            Self::Expired { not_after, now } => {
                write!(
                    f,
                    "it expired at {}, the local clock is at {}; renew it or check both clocks",
                    utc(*not_after),
                    utc(*now)
                )
            }
            Self::Names(why) => f.write_str(why),
            Self::ForeignTrustDomain(domain) => write!(f, "it does not belong to trust domain {domain}"),
            Self::Usage(why) => f.write_str(why),
            Self::Denied(why) => write!(f, "it is denied: {why}"),
            Self::Unexpected { wanted } => write!(f, "it belongs to another peer, expected {wanted}"),
        }
    }
}

fn utc(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let at = i64::try_from(seconds).ok().and_then(|s| ASN1Time::from_timestamp(s).ok());
    at.map_or_else(|| format!("{seconds} s after 1970-01-01"), |t| t.to_string())
}

#[cfg(test)]
mod tests;
