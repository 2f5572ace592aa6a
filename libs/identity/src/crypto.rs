//! The crypto provider of the mesh: which algorithms TLS and certificates may use.

use std::sync::{Arc, LazyLock};

use rustls::{
    SignatureScheme::{ECDSA_NISTP256_SHA256, ECDSA_NISTP384_SHA384, ED25519},
    crypto::{CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs},
};
use rustls_pki_types::alg_id;

/// Returns the only crypto provider of the mesh: aws-lc-rs with TLS 1.3 cipher suites, hybrid post-quantum
/// key exchange first, and signatures of the three key types in [`KeyType`](crate::KeyType), both in
/// certificates and in handshakes.
///
/// It is always passed explicitly; the process-wide default of rustls is neither read nor set. AES-128-GCM is
/// preferred over AES-256-GCM because every byte of the mesh is encrypted with it and it needs fewer rounds.
pub fn crypto_provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
        use aws_lc_rs::{cipher_suite::*, kx_group::*};
        let default = aws_lc_rs::default_provider();
        Arc::new(CryptoProvider {
            cipher_suites: vec![
                TLS13_AES_128_GCM_SHA256,
                TLS13_AES_256_GCM_SHA384,
                TLS13_CHACHA20_POLY1305_SHA256,
            ],
            kx_groups: vec![X25519MLKEM768, X25519, SECP256R1, SECP384R1],
            signature_verification_algorithms: allowed(default.signature_verification_algorithms),
            ..default
        })
    });
    PROVIDER.clone()
}

/// Keeps the algorithms of the allowed key types. rustls requires `'static` slices, so this leaks memory; it is
/// called once.
fn allowed(all: WebPkiSupportedAlgorithms) -> WebPkiSupportedAlgorithms {
    let keys = [alg_id::ECDSA_P256, alg_id::ECDSA_P384, alg_id::ED25519];
    let algorithms: Vec<_> =
        all.all.iter().copied().filter(|a| keys.contains(&a.public_key_alg_id())).collect();
    let schemes = [ECDSA_NISTP256_SHA256, ECDSA_NISTP384_SHA384, ED25519];
    let mapping: Vec<_> =
        all.mapping.iter().copied().filter(|(scheme, _)| schemes.contains(scheme)).collect();
    WebPkiSupportedAlgorithms { all: algorithms.leak(), mapping: mapping.leak() }
}
