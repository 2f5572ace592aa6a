//! Creating certificates: roots, the issuing CA, leaves. This file decides every name and extension in them.
//!
//! Our CAs have no URI name constraints, because webpki refuses every leaf below such a CA.

use std::{
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use identity::{
    KeyType, Name, PemContent, Secret, SpiffeId, SpkiPin, TrustDomain, certificate_pem, read_private,
    write_private,
};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, GeneralSubtree,
    IsCa, KeyUsagePurpose, NameConstraints, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PublicKeyData,
    SanType, SerialNumber, SigningKey,
};
use rustls_pki_types::CertificateDer;
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::Zeroizing;

use crate::{error::PkiError, wiped_key::WipedKey};

/// Lifetime of a root.
pub(crate) const ROOT_LIFE: Duration = Duration::from_secs(10 * 365 * 86_400);

/// Lifetime of an issuing CA.
pub(crate) const ISSUING_LIFE: Duration = Duration::from_secs(30 * 86_400);

/// How long before the time of issue the validity starts, for peers whose clocks are late.
pub(crate) const BACKDATE: Duration = Duration::from_secs(60);

const MAX_FILE_BYTES: u64 = 64 * 1024;

/// A CA: its certificate and its key.
pub(crate) struct CertificateAuthority {
    cert: CertificateDer<'static>,
    signer: rcgen::Issuer<'static, WipedKey>,
    not_before: SystemTime,
    not_after: SystemTime,
}

/// A newly signed leaf.
pub(crate) struct SignedLeaf {
    pub(crate) der: CertificateDer<'static>,
    pub(crate) serial: String,
    pub(crate) not_before: SystemTime,
    pub(crate) not_after: SystemTime,
}

impl CertificateAuthority {
    /// Creates a root: self-signed, P-384, with at most one CA below it.
    pub(crate) fn root(domain: &TrustDomain, label: &str, now: SystemTime) -> Result<Self, PkiError> {
        let key = WipedKey::generate(&PKCS_ECDSA_P384_SHA384).map_err(failed)?;
        let params = ca_params(&format!("Isthmus root CA {label}"), domain, 1, now, now + ROOT_LIFE)?;
        let cert = params.self_signed(&key).map_err(failed)?;
        Self::new(cert.der().clone(), key)
    }

    /// Creates an issuing CA below this root: P-256, with only leaves below it. It does not outlive the root.
    pub(crate) fn issuing(
        &self,
        domain: &TrustDomain,
        now: SystemTime,
        life: Duration,
    ) -> Result<Self, PkiError> {
        let key = WipedKey::generate(&PKCS_ECDSA_P256_SHA256).map_err(failed)?;
        let (cert, _) = self.sign_issuing(domain, &key, now, life, None)?;
        Self::new(cert, key)
    }

    /// Signs an issuing CA with a key that is elsewhere, and returns the end of its validity with it. With `only`, its DNS
    /// name constraints confine it to one cluster: every leaf has the cluster in its DNS name.
    pub(crate) fn sign_issuing(
        &self,
        domain: &TrustDomain,
        key: &impl PublicKeyData,
        now: SystemTime,
        life: Duration,
        only: Option<&Name>,
    ) -> Result<(CertificateDer<'static>, SystemTime), PkiError> {
        let until = (now + life).min(self.not_after);
        let mut params = ca_params("Isthmus issuing CA", domain, 0, now, until)?;
        params.name_constraints = only.map(|cluster| NameConstraints {
            permitted_subtrees: vec![GeneralSubtree::DnsName(format!("{cluster}.{domain}"))],
            excluded_subtrees: Vec::new(),
        });
        let cert = params.signed_by(key, &self.signer).map_err(failed)?;
        Ok((cert.der().clone(), until))
    }

    /// Makes a CA from its certificate and key, after checking that they belong together.
    pub(crate) fn new(cert: CertificateDer<'static>, key: WipedKey) -> Result<Self, PkiError> {
        let (_, parsed) = X509Certificate::from_der(&cert)
            .map_err(|_| integrity("the CA certificate is not an X.509 certificate"))?;
        if !parsed.is_ca() {
            return Err(integrity("the certificate is not a CA certificate"));
        }
        if parsed.public_key().raw != key.subject_public_key_info() {
            return Err(integrity("the private key does not belong to the CA certificate"));
        }
        let time = |t: i64| UNIX_EPOCH + Duration::from_secs(t.max(0) as u64);
        let not_before = time(parsed.validity().not_before.timestamp());
        let not_after = time(parsed.validity().not_after.timestamp());
        let signer = rcgen::Issuer::from_ca_cert_der(&cert, key).map_err(failed)?;
        Ok(Self { cert, signer, not_before, not_after })
    }

    /// Reads a file that [`CertificateAuthority::store`] wrote.
    pub(crate) fn load(path: &Path) -> Result<Self, PkiError> {
        let pem = Zeroizing::new(read_private(path, MAX_FILE_BYTES).map_err(PkiError::io("read", path))?);
        Self::from_pem(&pem, path)
    }

    /// Reads the content of such a file, which came from `path`.
    pub(crate) fn from_pem(pem: &[u8], path: &Path) -> Result<Self, PkiError> {
        let damaged = |why: &str| integrity(&format!("{}: {why}", path.display()));
        let content = PemContent::read(pem).map_err(|e| damaged(&format!("damaged PEM: {e}")))?;
        let cert = content.certificates.into_iter().next();
        let cert = cert.ok_or_else(|| damaged("contains no certificate, expected that of a CA"))?;
        let key =
            content.keys.first().ok_or_else(|| damaged("contains no private key, expected that of a CA"))?;
        let key = WipedKey::from_der(key.expose()).map_err(|e| damaged(&e.to_string()))?;
        Self::new(cert, key).map_err(|e| damaged(&e.to_string()))
    }

    /// Writes certificate and key, unencrypted, as one PEM file with mode 0600.
    pub(crate) fn store(&self, path: &Path) -> Result<(), PkiError> {
        let mut pem = Zeroizing::new(String::with_capacity(4096));
        pem.push_str(&self.cert_pem());
        pem.push_str(&self.signer.key().pem());
        write_private(path, pem.as_bytes()).map_err(PkiError::io("write", path))
    }

    pub(crate) fn cert(&self) -> &CertificateDer<'static> {
        &self.cert
    }

    pub(crate) fn cert_pem(&self) -> String {
        certificate_pem(&self.cert)
    }

    /// The private key in PKCS #8 DER.
    pub(crate) fn key_der(&self) -> Secret<Vec<u8>> {
        self.signer.key().pkcs8()
    }

    pub(crate) fn not_before(&self) -> SystemTime {
        self.not_before
    }

    pub(crate) fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// The pin of its key.
    pub(crate) fn pin(&self) -> SpkiPin {
        SpkiPin::of_spki(&self.signer.key().subject_public_key_info())
    }

    /// Whether this CA was signed by the one with this certificate.
    pub(crate) fn is_signed_by(&self, ca: &CertificateDer<'_>) -> bool {
        let (Ok((_, own)), Ok((_, above))) =
            (X509Certificate::from_der(&self.cert), X509Certificate::from_der(ca))
        else {
            return false;
        };
        let spki = above.public_key().raw;
        let signature = &own.signature_value.data;
        own.issuer() == above.subject()
            && KeyType::of_spki(spki)
                .is_some_and(|key| key.verify(spki, own.tbs_certificate.as_ref(), signature))
    }

    /// Signs some bytes that are not a certificate.
    pub(crate) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, PkiError> {
        self.signer.key().sign(message).map_err(|e| PkiError::Failed(format!("sign with the CA's key: {e}")))
    }

    /// Whether the organisation in the subject is `name`. Our CAs have their trust domain there.
    pub(crate) fn organization_is(&self, name: &str) -> bool {
        let Ok((_, cert)) = X509Certificate::from_der(&self.cert) else { return false };
        cert.subject().iter_organization().any(|part| part.as_str().is_ok_and(|text| text == name))
    }

    /// Signs a leaf for a key. It is valid from a minute before `now` to `now + ttl`, limited to the validity
    /// of this CA.
    pub(crate) fn leaf(
        &self,
        id: &SpiffeId,
        key: &impl PublicKeyData,
        now: SystemTime,
        ttl: Duration,
    ) -> Result<SignedLeaf, PkiError> {
        if now >= self.not_after {
            return Err(PkiError::Failed(format!(
                "the issuing CA expired at {}; renew it with `pki issuer renew`",
                utc(self.not_after)
            )));
        }
        let not_before = (now - BACKDATE).max(self.not_before);
        let not_after = (now + ttl).min(self.not_after);
        let serial = random_serial()?;
        let mut params = CertificateParams::default();
        (params.not_before, params.not_after) = (x509_time(not_before)?, x509_time(not_after)?);
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        params.distinguished_name = common_name_only(id.cluster().as_str());
        let ia5 = |text: String| text.try_into().map_err(failed);
        params.subject_alt_names =
            vec![SanType::URI(ia5(id.to_string())?), SanType::DnsName(ia5(id.dns_name())?)];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let cert = params.signed_by(key, &self.signer).map_err(failed)?;
        let serial = serial.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(SignedLeaf { der: cert.der().clone(), serial, not_before, not_after })
    }
}

fn ca_params(
    common_name: &str,
    domain: &TrustDomain,
    ca_below: u8,
    now: SystemTime,
    until: SystemTime,
) -> Result<CertificateParams, PkiError> {
    let mut params = CertificateParams::default();
    (params.not_before, params.not_after) = (x509_time(now - BACKDATE)?, x509_time(until)?);
    let serial = random_serial()?;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    // The first bytes of the serial number make the subjects of successive CAs different.
    params.distinguished_name =
        common_name_only(&format!("{common_name} {:02x}{:02x}{:02x}", serial[0], serial[1], serial[2]));
    params.distinguished_name.push(DnType::OrganizationName, domain.as_str());
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(ca_below));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn common_name_only(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

/// A random serial number of 128 bits. The first bit is 0 and the second is 1, so that it is positive and has
/// full length.
fn random_serial() -> Result<[u8; 16], PkiError> {
    let mut serial = [0; 16];
    random(&mut serial)?;
    serial[0] = serial[0] & 0x7f | 0x40;
    Ok(serial)
}

/// Fills the slice with random bytes from the operating system.
pub(crate) fn random(bytes: &mut [u8]) -> Result<(), PkiError> {
    SystemRandom::new()
        .fill(bytes)
        .map_err(|_| PkiError::Failed("the operating system returned no random bytes".into()))
}

fn x509_time(time: SystemTime) -> Result<OffsetDateTime, PkiError> {
    OffsetDateTime::from_unix_timestamp(unix_seconds(time))
        .map_err(|e| PkiError::Failed(format!("the time is out of range for a certificate: {e}")))
}

/// Whole seconds since the epoch; 0 for anything earlier.
pub(crate) fn unix_seconds(time: SystemTime) -> i64 {
    let seconds = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    i64::try_from(seconds).unwrap_or(i64::MAX)
}

/// A time in RFC 3339, UTC, whole seconds.
pub(crate) fn utc(time: SystemTime) -> String {
    let format = time::macros::format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z");
    let seconds = unix_seconds(time);
    OffsetDateTime::from_unix_timestamp(seconds)
        .ok()
        .and_then(|t| t.format(&format).ok())
        .unwrap_or_else(|| seconds.to_string())
}

/// Parses the text of [`utc`].
pub(crate) fn parse_utc(text: &str) -> Option<SystemTime> {
    let format = time::macros::format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z");
    let parsed = time::PrimitiveDateTime::parse(text, &format).ok()?.assume_utc().unix_timestamp();
    UNIX_EPOCH.checked_add(Duration::from_secs(u64::try_from(parsed).ok()?))
}

fn failed(e: rcgen::Error) -> PkiError {
    PkiError::Failed(format!("create a certificate: {e}"))
}

fn integrity(why: &str) -> PkiError {
    PkiError::Integrity(why.to_owned())
}
