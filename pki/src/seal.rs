//! Root keys on disk: encrypted with a passphrase, as one PEM section.
//!
//! ```text
//! -----BEGIN ISTHMUS SEALED KEY-----    base64 of
//!
//!   size   what
//!   1      version, 1
//!   4      argon2id memory in KiB, big endian
//!   4      argon2id passes
//!   4      argon2id lanes
//!   16     salt
//!   12     nonce
//!   rest   AES-256-GCM of the PKCS #8 key; all bytes before the nonce are authenticated with it
//! ```

use argon2::{Algorithm, Argon2, Params, Version};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use base64::{Engine, engine::general_purpose::STANDARD};
use identity::Secret;
use zeroize::Zeroizing;

use crate::{authority::random, error::PkiError};

const VERSION: u8 = 1;
const SALT_AT: usize = 1 + 3 * 4;
const NONCE_AT: usize = SALT_AT + 16;
const SEALED_AT: usize = NONCE_AT + 12;
const BEGIN: &str = "-----BEGIN ISTHMUS SEALED KEY-----\n";
const END: &str = "-----END ISTHMUS SEALED KEY-----\n";

/// The cost of one guess of the passphrase, as parameters of Argon2id.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Argon2Cost {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

impl Argon2Cost {
    /// 64 MiB, 3 passes: the second recommendation of RFC 9106, for machines without gigabytes to spare.
    pub(crate) const STRONG: Self = Self { memory_kib: 64 * 1024, passes: 3, lanes: 4 };

    /// For fast tests.
    #[cfg(test)]
    pub(crate) const WEAK: Self = Self { memory_kib: 64, passes: 1, lanes: 1 };

    /// Checks the parameters of a file against upper bounds, so that a forged file cannot exhaust memory or
    /// CPU.
    fn is_bounded(self) -> bool {
        (8..=1024 * 1024).contains(&self.memory_kib)
            && (1..=64).contains(&self.passes)
            && (1..=64).contains(&self.lanes)
    }
}

/// Encrypts a key with the passphrase; returns PEM.
pub(crate) fn seal(key: &[u8], passphrase: &Secret<String>, cost: Argon2Cost) -> Result<String, PkiError> {
    let mut bytes = vec![VERSION];
    for number in [cost.memory_kib, cost.passes, cost.lanes] {
        bytes.extend(number.to_be_bytes());
    }
    let mut salt_and_nonce = [0; SEALED_AT - SALT_AT];
    random(&mut salt_and_nonce)?;
    bytes.extend(salt_and_nonce);
    let cipher = cipher(passphrase, &bytes[SALT_AT..NONCE_AT], cost)?;
    let mut sealed = Zeroizing::new(key.to_vec());
    let tag = cipher
        .seal_in_place_separate_tag(nonce(&bytes)?, Aad::from(&bytes[..NONCE_AT]), &mut sealed)
        .map_err(|_| PkiError::Failed("encrypt the root key: the cipher failed".into()))?;
    bytes.extend(&*sealed);
    bytes.extend(tag.as_ref());

    let mut pem = String::from(BEGIN);
    for line in STANDARD.encode(&bytes).as_bytes().chunks(64) {
        pem.push_str(&String::from_utf8_lossy(line));
        pem.push('\n');
    }
    Ok(pem + END)
}

/// Decrypts a key.
///
/// # Errors
/// [`PkiError::Refused`] for a wrong passphrase or a manipulated file, which cannot be distinguished;
/// [`PkiError::Integrity`] when the text is not an encrypted key.
pub(crate) fn unseal(pem: &str, passphrase: &Secret<String>) -> Result<Zeroizing<Vec<u8>>, PkiError> {
    let damaged = || PkiError::Integrity("not an encrypted root key, or damaged".into());
    let body = pem.trim_ascii().strip_prefix(BEGIN.trim_ascii()).ok_or_else(damaged)?;
    let body = body.strip_suffix(END.trim_ascii()).ok_or_else(damaged)?;
    let base64: Vec<u8> = body.bytes().filter(|c| !c.is_ascii_whitespace()).collect();
    let bytes = STANDARD.decode(base64).map_err(|_| damaged())?;
    if bytes.len() <= SEALED_AT || bytes[0] != VERSION {
        return Err(damaged());
    }
    let number = |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let cost = Argon2Cost { memory_kib: number(1), passes: number(5), lanes: number(9) };
    if !cost.is_bounded() {
        return Err(damaged());
    }
    let cipher = cipher(passphrase, &bytes[SALT_AT..NONCE_AT], cost)?;
    let mut key = Zeroizing::new(bytes[SEALED_AT..].to_vec());
    let len = cipher
        .open_in_place(nonce(&bytes)?, Aad::from(&bytes[..NONCE_AT]), &mut key)
        .map_err(|_| PkiError::Refused("the passphrase does not decrypt the root key".into()))?
        .len();
    key.truncate(len);
    Ok(key)
}

fn cipher(passphrase: &Secret<String>, salt: &[u8], cost: Argon2Cost) -> Result<LessSafeKey, PkiError> {
    let failed = |e: argon2::Error| PkiError::Failed(format!("derive a key from the passphrase: {e}"));
    let params = Params::new(cost.memory_kib, cost.passes, cost.lanes, Some(32)).map_err(failed)?;
    let mut key = Zeroizing::new([0; 32]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(passphrase.expose().as_bytes(), salt, &mut *key)
        .map_err(failed)?;
    let key = UnboundKey::new(&AES_256_GCM, &*key)
        .map_err(|_| PkiError::Failed("the cipher rejected its key".into()))?;
    Ok(LessSafeKey::new(key))
}

fn nonce(bytes: &[u8]) -> Result<Nonce, PkiError> {
    Nonce::try_assume_unique_for_key(&bytes[NONCE_AT..SEALED_AT])
        .map_err(|_| PkiError::Failed("the cipher rejected its nonce".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passphrase(text: &str) -> Secret<String> {
        Secret::new(text.to_owned())
    }

    #[test]
    fn only_the_passphrase_decrypts_a_sealed_key() {
        let sealed = seal(b"the key", &passphrase("correct"), Argon2Cost::WEAK).unwrap();
        assert_eq!(&**unseal(&sealed, &passphrase("correct")).unwrap(), b"the key");
        assert!(matches!(unseal(&sealed, &passphrase("wrong")), Err(PkiError::Refused(_))));
        assert_ne!(
            sealed,
            seal(b"the key", &passphrase("correct"), Argon2Cost::WEAK).unwrap(),
            "salt and nonce must differ each time"
        );
    }

    #[test]
    fn a_file_with_any_changed_byte_is_rejected() {
        let sealed = seal(b"the key", &passphrase("p"), Argon2Cost::WEAK).unwrap();
        let body = sealed.strip_prefix(BEGIN).unwrap().strip_suffix(END).unwrap().replace('\n', "");
        let bytes = STANDARD.decode(body).unwrap();
        // The cost parameters (bytes 1 to 12) are left out: a changed one can take minutes within the bounds.
        for at in (0..bytes.len()).filter(|at| !(1..13).contains(at)) {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            let pem = format!("{BEGIN}{}\n{END}", STANDARD.encode(changed));
            assert!(unseal(&pem, &passphrase("p")).is_err(), "byte {at}");
        }
        for len in 0..sealed.len() - 1 {
            assert!(unseal(&sealed[..len], &passphrase("p")).is_err(), "cut at {len}");
        }
    }

    #[test]
    fn a_file_with_excessive_cost_parameters_is_rejected() {
        let mut bytes = vec![VERSION];
        [u32::MAX, 1, 1].iter().for_each(|n| bytes.extend(n.to_be_bytes()));
        bytes.extend([0; 100]);
        let pem = format!("{BEGIN}{}\n{END}", STANDARD.encode(bytes));
        assert!(matches!(unseal(&pem, &passphrase("p")), Err(PkiError::Integrity(_))));
    }
}
