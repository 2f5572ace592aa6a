//! Cipher suites and curves, with the names of Go.

use std::str::FromStr;
use std::sync::Arc;

use rustls::SupportedCipherSuite;
use rustls::crypto::aws_lc_rs::{self, cipher_suite, kx_group};
use rustls::crypto::{CryptoProvider, SupportedKxGroup};

/// A cipher suite of TLS 1.2. Those of TLS 1.3 cannot be configured, as in Go.
#[derive(Clone, Copy, Debug)]
pub struct CipherSuite(Option<SupportedCipherSuite>);

/// The names of Go and our suites, in the order of preference.
const SUITES: [(&str, SupportedCipherSuite); 6] = [
    ("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256),
    ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256),
    ("TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384),
    ("TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384),
    (
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
        cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
    (
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
        cipher_suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
];

/// The suites of TLS 1.3.
const TLS13_SUITES: [(&str, SupportedCipherSuite); 3] = [
    ("TLS_AES_128_GCM_SHA256", cipher_suite::TLS13_AES_128_GCM_SHA256),
    ("TLS_AES_256_GCM_SHA384", cipher_suite::TLS13_AES_256_GCM_SHA384),
    ("TLS_CHACHA20_POLY1305_SHA256", cipher_suite::TLS13_CHACHA20_POLY1305_SHA256),
];

impl FromStr for CipherSuite {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        if TLS13_SUITES.iter().any(|(known, _)| *known == name) {
            return Ok(Self(None));
        }
        let found = SUITES.iter().find(|(known, _)| *known == name);
        found.map(|(_, suite)| Self(Some(*suite))).ok_or_else(|| {
            let known: Vec<&str> = SUITES.iter().map(|(name, _)| *name).collect();
            format!("cipher suite {name:?} is not supported, expected one of {}", known.join(", "))
        })
    }
}

/// A group for the key exchange.
#[derive(Clone, Copy, Debug)]
pub struct Curve(&'static dyn SupportedKxGroup);

const CURVES: [(&str, &dyn SupportedKxGroup); 4] = [
    ("X25519MLKEM768", kx_group::X25519MLKEM768),
    ("X25519", kx_group::X25519),
    ("CurveP256", kx_group::SECP256R1),
    ("CurveP384", kx_group::SECP384R1),
];

impl FromStr for Curve {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        CURVES.iter().find(|(known, _)| *known == name).map(|(_, group)| Self(*group)).ok_or_else(|| {
            let known: Vec<&str> = CURVES.iter().map(|(name, _)| *name).collect();
            format!("curve {name:?} is not supported, expected one of {}", known.join(", "))
        })
    }
}

/// The algorithms of a configuration; an empty list stands for all.
pub(crate) fn crypto_provider(suites: &[CipherSuite], curves: &[Curve]) -> Arc<CryptoProvider> {
    let chosen: Vec<_> = suites.iter().filter_map(|suite| suite.0).collect();
    let tls12 = if suites.is_empty() { SUITES.map(|(_, suite)| suite).to_vec() } else { chosen };
    let tls13 = TLS13_SUITES.map(|(_, suite)| suite);
    let kx_groups = match curves {
        [] => CURVES.map(|(_, group)| group).to_vec(),
        curves => curves.iter().map(|curve| curve.0).collect(),
    };
    let cipher_suites = tls13.into_iter().chain(tls12).collect();
    Arc::new(CryptoProvider { cipher_suites, kx_groups, ..aws_lc_rs::default_provider() })
}
