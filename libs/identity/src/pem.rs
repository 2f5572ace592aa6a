//! Writing PEM: base64 between two marker lines.

use rustls_pki_types::CertificateDer;

/// Returns one certificate as a PEM section.
pub fn certificate_pem(der: &CertificateDer<'_>) -> String {
    let mut pem = String::new();
    push_pem(&mut pem, "CERTIFICATE", der);
    pem
}

/// At most how many bytes the section of so many bytes has.
pub(crate) fn section_capacity(der_bytes: usize) -> usize {
    der_bytes * 3 / 2 + 128
}

/// Appends one PEM section, 64 characters a line.
pub(crate) fn push_pem(out: &mut String, label: &str, der: &[u8]) {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    // Reserve everything first: growing would leave a copy of the key in freed memory.
    out.reserve(section_capacity(der.len()));
    out.push_str(&format!("-----BEGIN {label}-----\n"));
    for line in der.chunks(48) {
        for group in line.chunks(3) {
            let bits = group
                .iter()
                .enumerate()
                .fold(0_u32, |bits, (i, byte)| bits | u32::from(*byte) << (16 - 8 * i));
            for i in 0..4 {
                let symbol = ALPHABET[(bits >> (18 - 6 * i) & 63) as usize];
                out.push(if i <= group.len() { char::from(symbol) } else { '=' });
            }
        }
        out.push('\n');
    }
    out.push_str(&format!("-----END {label}-----\n"));
}
