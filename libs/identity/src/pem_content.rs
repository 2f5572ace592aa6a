//! Reading PEM: private keys and certificates.
//!
//! The reader of `rustls_pki_types` leaves copies of a key in freed memory: it collects the text of each section in a buffer that
//! grows, and decodes keys also where certificates are asked for. So the sections of keys are decoded here, and that reader gets the
//! other ones.

use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls_pki_types::{PrivatePkcs1KeyDer, PrivatePkcs8KeyDer, PrivateSec1KeyDer, pem::PemObject};
use zeroize::Zeroizing;

use crate::secret::Secret;

/// What a PEM text contains, in the order of the text. Sections of other kinds are left out.
#[derive(Debug, Default)]
pub struct PemContent {
    /// The private keys.
    pub keys: Vec<Secret<PrivateKeyDer<'static>>>,
    /// The certificates.
    pub certificates: Vec<CertificateDer<'static>>,
}

/// Why a PEM text cannot be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PemError {
    /// The text ends within a section.
    #[error("the section {0:?} has no end line, expected -----END {0}-----")]
    NoEnd(String),
    /// The section of a key is not base64.
    #[error("the section {0:?} is not valid base64")]
    NotBase64(String),
    /// The section of a certificate cannot be decoded.
    #[error("{0}")]
    Certificate(String),
}

impl PemContent {
    /// Reads a PEM text. What of it is secret is overwritten in memory when the result is dropped; `pem` is the caller's.
    ///
    /// # Errors
    /// A section has no end, or is not base64.
    pub fn read(pem: &[u8]) -> Result<Self, PemError> {
        let mut content = Self::default();
        let mut rest = pem;
        while let Some(section) = Section::next(&mut rest)? {
            let not_base64 = || PemError::NotBase64(section.label.to_owned());
            let key = || decode(section.body).ok_or_else(not_base64);
            match section.label {
                "PRIVATE KEY" => content.keys.push(Secret::new(PrivatePkcs8KeyDer::from(key()?).into())),
                "RSA PRIVATE KEY" => content.keys.push(Secret::new(PrivatePkcs1KeyDer::from(key()?).into())),
                "EC PRIVATE KEY" => content.keys.push(Secret::new(PrivateSec1KeyDer::from(key()?).into())),
                "CERTIFICATE" => {
                    let certificate = CertificateDer::from_pem_slice(section.whole);
                    content
                        .certificates
                        .push(certificate.map_err(|error| PemError::Certificate(error.to_string()))?);
                }
                _ => {}
            }
        }
        Ok(content)
    }
}

/// A section of a PEM text.
struct Section<'a> {
    label: &'a str,
    /// The lines between those that mark it.
    body: &'a [u8],
    /// The section with these lines.
    whole: &'a [u8],
}

impl<'a> Section<'a> {
    /// Takes the next section from the beginning of a text, with what is before it; `None` if there is none.
    fn next(text: &mut &'a [u8]) -> Result<Option<Self>, PemError> {
        loop {
            let before = *text;
            let Some(line) = next_line(text) else { return Ok(None) };
            let Some(label) = marked(line, "-----BEGIN ") else { continue };
            let body = *text;
            loop {
                let end = *text;
                let Some(line) = next_line(text) else { return Err(PemError::NoEnd(label.to_owned())) };
                if marked(line, "-----END ") == Some(label) {
                    let body = &body[..body.len() - end.len()];
                    return Ok(Some(Self { label, body, whole: &before[..before.len() - text.len()] }));
                }
            }
        }
    }
}

/// Takes the next line, with its end, from a text that is not empty.
fn next_line<'a>(text: &mut &'a [u8]) -> Option<&'a [u8]> {
    if text.is_empty() {
        return None;
    }
    let length = text.iter().position(|byte| *byte == b'\n').map_or(text.len(), |at| at + 1);
    let (line, rest) = text.split_at(length);
    *text = rest;
    Some(line)
}

/// The label of a line that marks the begin or the end of a section.
fn marked<'a>(line: &'a [u8], begin: &str) -> Option<&'a str> {
    let line = std::str::from_utf8(line).ok()?.trim();
    line.strip_prefix(begin)?.strip_suffix("-----")
}

/// Decodes base64 with white space between its characters; `None` if it is not valid.
fn decode(text: &[u8]) -> Option<Vec<u8>> {
    // Reserve everything first: growing would leave a copy of the key in freed memory.
    let mut decoded = Zeroizing::new(Vec::with_capacity(text.len() / 4 * 3 + 3));
    let (mut bits, mut symbols, mut padding) = (0_u32, 0_usize, 0_usize);
    for symbol in text.iter().filter(|byte| !byte.is_ascii_whitespace()) {
        let value = match symbol {
            b'A'..=b'Z' => symbol - b'A',
            b'a'..=b'z' => symbol - b'a' + 26,
            b'0'..=b'9' => symbol - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            b'=' => {
                padding += 1;
                continue;
            }
            _ => return None,
        };
        if padding > 0 {
            return None;
        }
        bits = bits << 6 | u32::from(value);
        symbols += 1;
        if symbols % 4 == 0 {
            decoded.extend_from_slice(&bits.to_be_bytes()[1..]);
            bits = 0;
        }
    }
    // The last symbols have 12 or 18 bits; those beyond whole bytes are 0.
    match (symbols % 4, padding) {
        (0, 0) => {}
        (2, 2) if bits & 0xf == 0 => decoded.push((bits >> 4) as u8),
        (3, 1) if bits & 0x3 == 0 => decoded.extend_from_slice(&(bits >> 2).to_be_bytes()[2..]),
        _ => return None,
    }
    Some(std::mem::take(&mut *decoded))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pem::push_pem;

    #[test]
    fn what_was_written_is_read() {
        for length in 0..200_u8 {
            let der: Vec<u8> = (0..length).map(|byte| byte.wrapping_mul(37) ^ length).collect();
            let mut pem = "some text\n".to_owned();
            push_pem(&mut pem, "EC PRIVATE KEY", &der);
            push_pem(&mut pem, "SOMETHING ELSE", b"else");
            push_pem(&mut pem, "PRIVATE KEY", &der);
            for pem in [pem.clone(), pem.replace('\n', "\r\n"), pem.trim_end().to_owned()] {
                let content = PemContent::read(pem.as_bytes()).unwrap();
                let kinds: Vec<_> = content.keys.iter().map(|key| key.expose().clone_key()).collect();
                assert!(
                    matches!(kinds[..], [PrivateKeyDer::Sec1(_), PrivateKeyDer::Pkcs8(_)]),
                    "{length}: {}",
                    kinds.len()
                );
                assert!(kinds.iter().all(|key| key.secret_der() == der), "{length}");
                // The other reader agrees.
                if length > 0 {
                    let theirs = PrivateKeyDer::from_pem_slice(pem.as_bytes()).unwrap();
                    assert_eq!(theirs.secret_der(), der);
                }
            }
        }
    }

    #[test]
    fn a_damaged_section_is_refused_and_none_panics() {
        let check = |body: &str, expected: Option<&[u8]>| {
            let pem = format!("-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n");
            let read = PemContent::read(pem.as_bytes());
            match expected {
                Some(der) => assert_eq!(read.unwrap().keys[0].expose().secret_der(), der, "{body}"),
                None => assert_eq!(read.unwrap_err(), PemError::NotBase64("PRIVATE KEY".into()), "{body}"),
            }
        };
        check("TWFu", Some(b"Man"));
        check("TW E=", Some(b"Ma"));
        check("TQ==", Some(b"M"));
        for wrong in ["T", "TQ", "TQ=", "TQ===", "TR==", "TWF=", "TW=F", "=", "TWFu=", "TW-u", "TW\u{e9}u"] {
            check(wrong, None);
        }
        let mut pem = String::new();
        push_pem(&mut pem, "PRIVATE KEY", b"some bytes of a key");
        for end in 12..pem.len() - 1 {
            let read = PemContent::read(&pem.as_bytes()[..end]);
            let is_begun = end >= "-----BEGIN PRIVATE KEY-----".len();
            assert_eq!(read.is_err(), is_begun, "{end}");
        }
    }
}
