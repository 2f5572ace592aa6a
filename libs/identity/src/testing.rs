//! A CA for the tests of this crate. It signs every certificate, valid or not.

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType, SignatureAlgorithm, SigningKey,
};
use rustls::pki_types::CertificateDer;

use crate::{Credentials, TrustBundle, TrustDomain};

pub(crate) fn td() -> TrustDomain {
    "test.example".parse().unwrap()
}

pub(crate) fn now() -> SystemTime {
    SystemTime::now()
}

pub(crate) const HOUR: Duration = Duration::from_secs(3600);

/// Root and issuing CA of a trust domain.
pub(crate) struct TestCa {
    root: CertificateDer<'static>,
    root_signer: std::sync::Arc<Issuer<'static, KeyPair>>,
    pub(crate) issuing: CertificateDer<'static>,
    pub(crate) signer: Issuer<'static, KeyPair>,
}

pub(crate) fn ca_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = (now() - 24 * HOUR).into();
    params.not_after = (now() + 1000 * HOUR).into();
    params
}

/// The parameters of a valid leaf of `<component>.eu-1` in `test.example`, valid for a day from an hour ago.
pub(crate) fn leaf_params(component: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    let uri = format!("spiffe://test.example/cluster/eu-1/{component}");
    params.subject_alt_names = vec![uri_name(&uri), dns_name(&format!("{component}.eu-1.test.example"))];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.not_before = (now() - HOUR).into();
    params.not_after = (now() + 23 * HOUR).into();
    params
}

pub(crate) fn uri_name(uri: &str) -> SanType {
    SanType::URI(uri.try_into().unwrap())
}

pub(crate) fn dns_name(name: &str) -> SanType {
    SanType::DnsName(name.try_into().unwrap())
}

impl TestCa {
    pub(crate) fn new(name: &str) -> Self {
        Self::with_issuing(name, ca_params(&format!("issuing {name}")))
    }

    pub(crate) fn with_issuing(name: &str, issuing_params: CertificateParams) -> Self {
        Self::with_issuing_key(name, issuing_params, &PKCS_ECDSA_P256_SHA256)
    }

    pub(crate) fn with_issuing_key(
        name: &str,
        issuing_params: CertificateParams,
        algorithm: &'static SignatureAlgorithm,
    ) -> Self {
        let (root_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate_for(algorithm).unwrap());
        let params = ca_params(&format!("root {name}"));
        let root = params.self_signed(&root_key).unwrap().der().clone();
        let root_signer = Issuer::new(params, root_key);
        let issuing = issuing_params.signed_by(&key, &root_signer).unwrap().der().clone();
        let root_signer = std::sync::Arc::new(root_signer);
        Self { root, root_signer, issuing, signer: Issuer::new(issuing_params, key) }
    }

    /// Another issuing CA under the same root.
    pub(crate) fn with_next_issuing(&self, name: &str) -> Self {
        let (params, key) = (ca_params(&format!("issuing {name}")), KeyPair::generate().unwrap());
        let issuing = params.signed_by(&key, &*self.root_signer).unwrap().der().clone();
        let (root, root_signer) = (self.root.clone(), self.root_signer.clone());
        Self { root, root_signer, issuing, signer: Issuer::new(params, key) }
    }

    /// The root's signature over some bytes.
    pub(crate) fn root_signs(&self, message: &[u8]) -> Vec<u8> {
        self.root_signer.key().sign(message).unwrap()
    }

    /// The issuing CA's signature over some bytes.
    pub(crate) fn issuing_signs(&self, message: &[u8]) -> Vec<u8> {
        self.signer.key().sign(message).unwrap()
    }

    pub(crate) fn root_der(&self) -> CertificateDer<'static> {
        self.root.clone()
    }

    pub(crate) fn bundle(&self) -> TrustBundle {
        TrustBundle::new(td(), [self.root_der()]).unwrap()
    }

    /// The chain of a leaf with these parameters, and its key in PKCS #8.
    pub(crate) fn sign(&self, params: &CertificateParams) -> (Vec<CertificateDer<'static>>, Vec<u8>) {
        let key = KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, &self.signer).unwrap().der().clone();
        (vec![leaf, self.issuing.clone()], key.serialize_der())
    }

    /// A valid leaf of a component of eu-1.
    pub(crate) fn leaf(&self, component: &str) -> Credentials {
        self.credentials(&leaf_params(component))
    }

    pub(crate) fn credentials(&self, params: &CertificateParams) -> Credentials {
        let (chain, key) = self.sign(params);
        Credentials::from_pkcs8(chain, &key).unwrap()
    }
}

/// Changed copies of some bytes: cuts, doubles and changes bytes at places that depend on `seed` only.
pub(crate) fn mutations(bytes: &[u8], seed: u64, count: usize) -> Vec<Vec<u8>> {
    let mut state = seed | 1;
    let mut next = move |bound: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % bound.max(1) as u64) as usize
    };
    (0..count)
        .map(|_| {
            let mut changed = bytes.to_vec();
            for _ in 0..=next(3) {
                let at = next(changed.len());
                match next(4) {
                    0 => changed.truncate(at),
                    1 => changed.insert(at, next(256) as u8),
                    2 if !changed.is_empty() => changed[at] ^= 1 << next(8),
                    _ if !changed.is_empty() => changed[at] = next(256) as u8,
                    _ => {}
                }
            }
            changed
        })
        .collect()
}
