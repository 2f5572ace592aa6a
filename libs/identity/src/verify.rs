//! The one decision: is this certificate chain a peer of ours, and which?
//!
//! The checks run in this order, and the first that fails is the answer:
//!
//! 1. a chain of 1 to 4 certificates leads from the leaf to a root of the bundle (webpki, through rustls);
//! 2. the leaf is valid now, give or take 60 s of clock skew;
//! 3. it has exactly one URI SAN and one DNS SAN, nothing else, and both name the same component;
//! 4. the URI is a SPIFFE id of our grammar, in the bundle's trust domain;
//! 5. it is no CA, may sign, may not certify, serves as client and server, and its key is of a type we allow;
//! 6. it is not on the denylist;
//! 7. it is the peer that was expected, when somebody in particular was.
//!
//! Names come from the very bytes whose signature was checked; certificates beside the path are never looked at.

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

/// How far two clocks may be apart before a certificate is refused as expired or not yet valid.
pub const CLOCK_SKEW: Duration = Duration::from_secs(60);

/// The most certificates of a chain: leaf, issuing CA, and room for one more CA and a root.
pub const MAX_CHAIN_LEN: usize = 4;

/// A larger certificate is refused before it is parsed.
const MAX_CERTIFICATE_BYTES: usize = 16 * 1024;

/// Who a verified certificate belongs to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerIdentity {
    /// The peer's name.
    pub spiffe_id: SpiffeId,
    /// The certificate's serial number, in lower-case hexadecimal digits.
    pub serial: String,
    /// The pin of the peer's key.
    pub spki: SpkiPin,
    /// First moment of validity, inclusive.
    pub not_before: SystemTime,
    /// Last moment of validity, inclusive.
    pub not_after: SystemTime,
}

impl PeerIdentity {
    /// Asks again, for a peer verified earlier, what time and the denylist can change; call it for each stream.
    ///
    /// # Errors
    /// When the certificate has expired since, or has been denied.
    pub fn recheck(&self, now: SystemTime, denylist: &dyn Denylist) -> Result<(), RefusedCertificate> {
        let refuse = |reason| RefusedCertificate::new(&self.spiffe_id, reason);
        check_validity(self.not_before, self.not_after, now).map_err(refuse)?;
        denylist.denies(self).map_or(Ok(()), |why| Err(refuse(RefusalReason::Denied(why))))
    }
}

/// What the verifying side knows beforehand about the peer.
#[derive(Clone)]
pub struct Expectations {
    /// The peer's cluster, when the dialer wants one in particular.
    pub cluster: Option<Name>,
    /// The peer's component, when only one kind may speak here.
    pub component: Option<Name>,
    /// Who is refused although its certificate is good.
    pub denylist: Arc<dyn Denylist>,
}

impl Default for Expectations {
    /// Anybody of the trust domain, nobody denied.
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

/// Answers who is refused although the certificate is good.
pub trait Denylist: Send + Sync {
    /// Why this peer is denied (one short clause), or `None` when it is not.
    fn denies(&self, peer: &PeerIdentity) -> Option<String>;
}

/// Denies nobody.
#[derive(Debug, Clone, Copy)]
pub struct NoDenylist;

impl Denylist for NoDenylist {
    fn denies(&self, _: &PeerIdentity) -> Option<String> {
        None
    }
}

/// Verifies a chain, leaf first, against the roots of a trust domain. The checks are listed at the module's head.
///
/// # Errors
/// The first check that failed; nothing about the peer may be believed then.
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
        return Err(unnamed(RefusalReason::Unreadable("it is larger than 16 KiB")));
    }
    let leaf = LeafCertificate::parse(end_entity)?;
    let refuse = |reason| leaf.refuse(reason);

    let (not_before, not_after) = leaf.validity();
    // The path is checked at `now`, moved into the leaf's own life when it lies outside: whether the leaf is
    // early or late is the next check's business, which knows about skew.
    let path_time = now.clamp(not_before, not_after.max(not_before));
    verify_path(end_entity, intermediates, bundle, path_time).map_err(refuse)?;
    check_validity(not_before, not_after, now).map_err(refuse)?;
    let identity = leaf.identity()?;
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
            RefusalReason::Path("a signature is wrong".into())
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

/// A leaf certificate taken apart; says what is in it, not whether it may be believed.
pub(crate) struct LeafCertificate<'a> {
    cert: X509Certificate<'a>,
}

impl<'a> LeafCertificate<'a> {
    pub(crate) fn parse(der: &'a [u8]) -> Result<Self, RefusedCertificate> {
        match X509Certificate::from_der(der) {
            Ok(([], cert)) => Ok(Self { cert }),
            _ => Err(RefusedCertificate::new(
                &"a peer",
                RefusalReason::Unreadable("it is not one X.509 certificate"),
            )),
        }
    }

    /// The id, read from the names of the certificate, with the facts beside it.
    pub(crate) fn identity(&self) -> Result<PeerIdentity, RefusedCertificate> {
        let spiffe_id = self.names().map_err(|reason| self.refuse(reason))?;
        let (not_before, not_after) = self.validity();
        let serial = self.cert.raw_serial().iter().skip_while(|byte| **byte == 0);
        let serial = serial.map(|byte| format!("{byte:02x}")).collect();
        let spki = SpkiPin::of_spki(self.cert.public_key().raw);
        Ok(PeerIdentity { spiffe_id, serial, spki, not_before, not_after })
    }

    fn names(&self) -> Result<SpiffeId, RefusalReason> {
        let san = self
            .cert
            .subject_alternative_name()
            .map_err(|_| RefusalReason::Names("its SAN is unreadable".into()))?;
        let names = san.map(|extension| extension.value.general_names.as_slice()).unwrap_or_default();
        let (uri, dns) = match names {
            [GeneralName::URI(uri), GeneralName::DNSName(dns)]
            | [GeneralName::DNSName(dns), GeneralName::URI(uri)] => (*uri, *dns),
            _ => {
                return Err(RefusalReason::Names(
                    "it must carry exactly one URI and one DNS name, and no other".into(),
                ));
            }
        };
        let id: SpiffeId = uri.parse().map_err(|e: NameError| RefusalReason::Names(e.to_string()))?;
        if dns != id.dns_name() {
            return Err(RefusalReason::Names(format!(
                "its DNS name must mirror its id as {}",
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
            return Err(RefusalReason::Usage("it is a CA"));
        }
        match self.cert.key_usage() {
            Ok(Some(usage)) if usage.value.key_cert_sign() || usage.value.crl_sign() => {
                return Err(RefusalReason::Usage("its key may sign certificates or revocation lists"));
            }
            Ok(Some(usage)) if usage.value.digital_signature() => {}
            _ => return Err(RefusalReason::Usage("its key usage lacks digitalSignature")),
        }
        match self.cert.extended_key_usage() {
            Ok(Some(usage)) if usage.value.server_auth && usage.value.client_auth => {}
            _ => {
                return Err(RefusalReason::Usage(
                    "its extended key usage must name both serverAuth and clientAuth",
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

/// A certificate that was refused: whose, and why, in one line.
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

    /// The SPIFFE id or else the subject that the certificate *claims*.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// Which check failed.
    pub fn reason(&self) -> &RefusalReason {
        &self.reason
    }

    /// Finds the refusal inside an error of TLS, or of what runs on top of it (`io::Error` and sources included).
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
    /// The same line as `Display`: rustls and quinn print what they carry with `Debug`.
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
    /// The peer sent none.
    NoCertificate,
    /// The chain has this many certificates, more than [`MAX_CHAIN_LEN`].
    LongChain(usize),
    /// The leaf is no certificate, or too large.
    Unreadable(&'static str),
    /// No path leads to a (valid) root of this trust domain.
    UnknownIssuer(TrustDomain),
    /// At enrolment: none of the roots shown has a key that the token pins.
    UnpinnedRoot,
    /// The path to the root is broken in another way.
    Path(String),
    /// Valid only later, beyond the clock skew.
    NotYetValid {
        /// From when.
        not_before: SystemTime,
        /// The time here.
        now: SystemTime,
    },
    /// Expired, beyond the clock skew.
    Expired {
        /// Until when it was valid.
        not_after: SystemTime,
        /// The time here.
        now: SystemTime,
    },
    /// The names are missing, too many, disagreeing or malformed.
    Names(String),
    /// It belongs to another trust domain than the one (given here) of the bundle.
    ForeignTrustDomain(TrustDomain),
    /// It may not be used as a peer's.
    Usage(&'static str),
    /// It is on the denylist.
    Denied(String),
    /// A good certificate, but of somebody else than was dialled.
    Unexpected {
        /// Who was expected: `component.cluster`, `*` for any.
        wanted: String,
    },
}

impl fmt::Display for RefusalReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoCertificate => f.write_str("none was sent"),
            Self::LongChain(len) => write!(f, "the chain has {len} certificates, more than {MAX_CHAIN_LEN}"),
            Self::Unreadable(why) => f.write_str(why),
            Self::UnknownIssuer(domain) => write!(f, "no valid root of trust domain {domain} vouches for it"),
            Self::UnpinnedRoot => {
                f.write_str("it shows no root that the token pins: this is not the issuer of the token")
            }
            Self::Path(why) => write!(f, "the path to the root is broken: {why}"),
            Self::NotYetValid { not_before, now } => {
                write!(
                    f,
                    "valid only from {}; the clock here says {}: check both clocks",
                    utc(*not_before),
                    utc(*now)
                )
            }
            Self::Expired { not_after, now } => {
                write!(
                    f,
                    "expired at {}; the clock here says {}: renew it or check the clocks",
                    utc(*not_after),
                    utc(*now)
                )
            }
            Self::Names(why) => f.write_str(why),
            Self::ForeignTrustDomain(domain) => write!(f, "it is not of trust domain {domain}"),
            Self::Usage(why) => f.write_str(why),
            Self::Denied(why) => write!(f, "denied: {why}"),
            Self::Unexpected { wanted } => write!(f, "expected {wanted}"),
        }
    }
}

fn utc(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let at = i64::try_from(seconds).ok().and_then(|s| ASN1Time::from_timestamp(s).ok());
    at.map_or_else(|| format!("{seconds} s since 1970"), |t| t.to_string())
}

#[cfg(test)]
mod tests;
