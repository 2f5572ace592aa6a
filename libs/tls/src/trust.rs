//! The verification of certificates.

use std::collections::HashSet;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme,
};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// Certificates that are trusted: CAs, and certificates of peers.
pub(crate) struct TrustedCertificates {
    roots: Arc<RootCertStore>,
    /// A peer whose certificate is listed needs no CA. Go accepts that, and `openssl req -x509` makes such certificates.
    listed: HashSet<CertificateDer<'static>>,
}

impl TrustedCertificates {
    /// The certificates of a file; `name` describes it.
    ///
    /// # Errors
    /// A certificate is damaged.
    pub(crate) fn new(name: &str, certificates: Vec<CertificateDer<'static>>) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        for certificate in &certificates {
            roots
                .add(certificate.clone())
                .map_err(|error| format!("{name}: a certificate cannot be used: {error}"))?;
        }
        Ok(Self { roots: Arc::new(roots), listed: certificates.into_iter().collect() })
    }

    /// The certificates that the system trusts.
    ///
    /// # Errors
    /// The system has none.
    pub(crate) fn of_system() -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        let found = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(found.certs);
        if roots.is_empty() {
            let error = found.errors.first().map(|error| format!(" ({error})")).unwrap_or_default();
            return Err(format!("the system has no trusted CA certificates{error}; give a CA file"));
        }
        Ok(Self { roots: Arc::new(roots), listed: HashSet::new() })
    }

    /// Whether a peer with this listed certificate is accepted now.
    fn accepts_listed(&self, certificate: &CertificateDer<'_>, now: UnixTime) -> Option<Result<(), Error>> {
        self.listed.contains(certificate).then(|| within_validity(certificate, now))
    }
}

fn within_validity(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), Error> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| CertificateError::BadEncoding)?;
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let validity = parsed.validity();
    if now < validity.not_before.timestamp() {
        return Err(CertificateError::NotValidYet.into());
    }
    if now > validity.not_after.timestamp() {
        return Err(CertificateError::Expired.into());
    }
    Ok(())
}

/// Checks the certificates of servers.
#[derive(Debug)]
pub(crate) enum ServerVerifier {
    /// Against trusted certificates.
    Trusted { trusted: Arc<TrustedCertificates>, webpki: Arc<WebPkiServerVerifier> },
    /// Not at all.
    Anyone(Arc<CryptoProvider>),
}

impl std::fmt::Debug for TrustedCertificates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} trusted certificates", self.roots.len())
    }
}

impl ServerVerifier {
    pub(crate) fn new(trusted: TrustedCertificates, provider: Arc<CryptoProvider>) -> Result<Self, String> {
        let webpki =
            WebPkiServerVerifier::builder_with_provider(Arc::clone(&trusted.roots), provider).build();
        let webpki = webpki.map_err(|error| error.to_string())?;
        Ok(Self::Trusted { trusted: Arc::new(trusted), webpki })
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Self::Trusted { trusted, webpki } = self else { return Ok(ServerCertVerified::assertion()) };
        if let Some(valid) = trusted.accepts_listed(end_entity, now) {
            valid?;
            verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
            return Ok(ServerCertVerified::assertion());
        }
        webpki.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match self {
            Self::Trusted { webpki, .. } => webpki.verify_tls12_signature(message, cert, dss),
            Self::Anyone(provider) => rustls::crypto::verify_tls12_signature(
                message,
                cert,
                dss,
                &provider.signature_verification_algorithms,
            ),
        }
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match self {
            Self::Trusted { webpki, .. } => webpki.verify_tls13_signature(message, cert, dss),
            Self::Anyone(provider) => rustls::crypto::verify_tls13_signature(
                message,
                cert,
                dss,
                &provider.signature_verification_algorithms,
            ),
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        match self {
            Self::Trusted { webpki, .. } => webpki.supported_verify_schemes(),
            Self::Anyone(provider) => provider.signature_verification_algorithms.supported_schemes(),
        }
    }
}

/// Checks the certificates of clients.
#[derive(Debug)]
pub(crate) struct ClientVerifier {
    provider: Arc<CryptoProvider>,
    /// `None` if every certificate is accepted.
    trusted: Option<(TrustedCertificates, Arc<dyn ClientCertVerifier>)>,
    mandatory: bool,
    /// Names of which the certificate must have one; empty for any name.
    allowed_names: Vec<String>,
}

impl ClientVerifier {
    pub(crate) fn new(
        trusted: Option<TrustedCertificates>,
        mandatory: bool,
        allowed_names: Vec<String>,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, String> {
        let with_webpki = |trusted: TrustedCertificates| {
            let roots = Arc::clone(&trusted.roots);
            let webpki = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider)).build();
            webpki.map(|webpki| (trusted, webpki)).map_err(|error| error.to_string())
        };
        let trusted = trusted.map(with_webpki).transpose()?;
        Ok(Self { trusted, mandatory, allowed_names, provider })
    }

    fn check_names(&self, certificate: &CertificateDer<'_>) -> Result<(), Error> {
        if self.allowed_names.is_empty() {
            return Ok(());
        }
        let (_, parsed) =
            X509Certificate::from_der(certificate).map_err(|_| CertificateError::BadEncoding)?;
        let names = parsed.subject_alternative_name().map_err(|_| CertificateError::BadEncoding)?;
        let names = names.map(|names| names.value.general_names.as_slice()).unwrap_or_default();
        let is_allowed =
            |name: &GeneralName<'_>| text_of(name).is_some_and(|name| self.allowed_names.contains(&name));
        match names.iter().any(is_allowed) {
            true => Ok(()),
            false => Err(CertificateError::ApplicationVerificationFailure.into()),
        }
    }
}

/// The name as Go prints it; `None` for kinds that are not compared.
fn text_of(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(text) | GeneralName::RFC822Name(text) | GeneralName::URI(text) => {
            Some((*text).to_owned())
        }
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes).ok().map(|ip| std::net::Ipv4Addr::from(ip).to_string()),
            _ => <[u8; 16]>::try_from(*bytes).ok().map(|ip| std::net::Ipv6Addr::from(ip).to_string()),
        },
        _ => None,
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.trusted.as_ref().map_or(&[], |(_, webpki)| webpki.root_hint_subjects())
    }

    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if let Some((trusted, webpki)) = &self.trusted {
            match trusted.accepts_listed(end_entity, now) {
                Some(valid) => valid?,
                None => webpki.verify_client_cert(end_entity, intermediates, now).map(drop)?,
            }
        }
        self.check_names(end_entity)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
