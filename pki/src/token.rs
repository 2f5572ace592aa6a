//! The join token: everything that a cluster owner needs to join, in one line of text.
//!
//! ```text
//! isthmus_join_<base64url without padding of>
//!
//!   size   what
//!   1      version, 1
//!   2      length of all of this in bytes, big endian
//!   1 + n  trust domain           (n in the first byte, then the text; the same for every text)
//!   1 + n  the issuer's cluster
//!   1 + n  the joining cluster
//!   1      number of addresses, 1 to 8; then 1 + n each: HOST:PORT of the issuer's gateway
//!   1      number of root pins, 1 to 4; then 32 each: SHA-256 of the root's public key
//!   32     the secret
//!   4      checksum: the first bytes of SHA-256 over the prefix and everything above
//! ```
//!
//! The fixed prefix lets secret scanners find a leaked token. The checksum detects typing errors; it is not a
//! protection against forgery.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
};

use aws_lc_rs::digest;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use identity::{Name, Secret, SpiffeId, SpkiPin, TrustDomain};

use crate::GATEWAY;

/// The prefix of every join token.
pub const TOKEN_PREFIX: &str = "isthmus_join_";

const VERSION: u8 = 1;
const SECRET_LEN: usize = 32;
const CHECKSUM_LEN: usize = 4;
const MAX_ADDRESSES: usize = 8;
const MAX_PINS: usize = 4;
const MAX_TEXT_LEN: usize = 4096;

/// A parsed join token. Only [`JoinToken::to_text`] and [`JoinToken::secret`] return its secret.
#[derive(Debug, Clone)]
pub struct JoinToken {
    issuer: SpiffeId,
    cluster: Name,
    addresses: Vec<String>,
    pins: Vec<SpkiPin>,
    /// On the heap, so that moving the token leaves no copy behind.
    secret: Secret<Vec<u8>>,
}

impl JoinToken {
    pub(crate) fn new(
        issuer: SpiffeId,
        cluster: Name,
        addresses: Vec<String>,
        pins: Vec<SpkiPin>,
        secret: Secret<Vec<u8>>,
    ) -> Result<Self, TokenError> {
        check_count("addresses", addresses.len(), MAX_ADDRESSES)?;
        check_count("root pins", pins.len(), MAX_PINS)?;
        addresses.iter().try_for_each(|address| check_address(address))?;
        Ok(Self { issuer, cluster, addresses, pins, secret })
    }

    /// Parses the text of a token. White space around it is ignored.
    ///
    /// # Errors
    /// When the text is not a token, is incomplete, is mistyped, or has a newer version. The error never
    /// contains the text.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let text = text.trim_ascii();
        let encoded = text.strip_prefix(TOKEN_PREFIX).ok_or(TokenError::NotAToken)?;
        if text.len() > MAX_TEXT_LEN {
            return Err(TokenError::TooLong);
        }
        let bytes = decode_base64(encoded)?;
        let (version, length) = match bytes[..] {
            [version, high, low, ..] => (version, usize::from(high) << 8 | usize::from(low)),
            _ => return Err(TokenError::Truncated),
        };
        if version != VERSION {
            return Err(TokenError::Version(version));
        }
        if bytes.len() < length {
            return Err(TokenError::Truncated);
        }
        if bytes.len() > length {
            return Err(TokenError::TooLong);
        }
        let content =
            bytes.split_at_checked(length.saturating_sub(CHECKSUM_LEN)).ok_or(TokenError::Truncated)?;
        if content.1 != checksum(content.0) {
            return Err(TokenError::Checksum);
        }
        Self::parse_content(content.0.get(3..).unwrap_or_default())
    }

    fn parse_content(content: &[u8]) -> Result<Self, TokenError> {
        let mut reader = TokenReader(content);
        let trust_domain: TrustDomain = reader.name("trust domain")?;
        let issuer_cluster: Name = reader.name("issuer")?;
        let cluster: Name = reader.name("cluster")?;
        let count = reader.count("addresses", MAX_ADDRESSES)?;
        let addresses = (0..count).map(|_| reader.text().map(str::to_owned)).collect::<Result<_, _>>()?;
        let count = reader.count("root pins", MAX_PINS)?;
        let pins = (0..count).map(|_| reader.array().map(SpkiPin::from_bytes)).collect::<Result<_, _>>()?;
        let secret = Secret::new(reader.take_bytes(SECRET_LEN)?.to_vec());
        if !reader.0.is_empty() {
            return Err(TokenError::TooLong);
        }
        Self::new(gateway_of(trust_domain, issuer_cluster), cluster, addresses, pins, secret)
    }

    /// Returns the token as text. The text is a secret: print it once, for the cluster owner.
    pub fn to_text(&self) -> Secret<String> {
        let mut bytes = zeroize::Zeroizing::new(Vec::with_capacity(1024));
        bytes.extend([VERSION, 0, 0]);
        let mut push_text = |text: &str| {
            // Names have at most 125 characters and addresses at most 255; the constructor checks this.
            bytes.push(text.len() as u8);
            bytes.extend(text.as_bytes());
        };
        push_text(self.issuer.trust_domain().as_str());
        push_text(self.issuer.cluster().as_str());
        push_text(self.cluster.as_str());
        bytes.push(self.addresses.len() as u8);
        for address in &self.addresses {
            bytes.push(address.len() as u8);
            bytes.extend(address.as_bytes());
        }
        bytes.push(self.pins.len() as u8);
        self.pins.iter().for_each(|pin| bytes.extend(pin.as_bytes()));
        bytes.extend(self.secret.expose());
        let length = (bytes.len() + CHECKSUM_LEN) as u16;
        bytes[1..3].copy_from_slice(&length.to_be_bytes());
        let sum = checksum(&bytes);
        bytes.extend(sum);
        let mut text = String::with_capacity(TOKEN_PREFIX.len() + bytes.len() * 4 / 3 + 4);
        text.push_str(TOKEN_PREFIX);
        URL_SAFE_NO_PAD.encode_string(&*bytes, &mut text);
        Secret::new(text)
    }

    /// The id of the token, which `pki token list` prints and which is not secret: the first 16 digits of the SHA-256 of its
    /// secret.
    pub fn id(&self) -> String {
        let hash = digest::digest(&digest::SHA256, self.secret.expose());
        hash.as_ref()[..8].iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The trust domain to join.
    pub fn trust_domain(&self) -> &TrustDomain {
        self.issuer.trust_domain()
    }

    /// The identity of the issuing gateway, which listens at one of the addresses.
    pub fn issuer(&self) -> &SpiffeId {
        &self.issuer
    }

    /// The cluster that joins.
    pub fn cluster(&self) -> &Name {
        &self.cluster
    }

    /// The identity that the joiner gets.
    pub fn subject(&self) -> SpiffeId {
        gateway_of(self.trust_domain().clone(), self.cluster.clone())
    }

    /// The 1 to 8 addresses to dial, as `HOST:PORT`, the preferred first.
    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// The 1 to 4 pins of the roots (active and standby).
    pub fn pins(&self) -> &[SpkiPin] {
        &self.pins
    }

    /// The secret. Send it to the issuer only after its roots match the pins and its identity is
    /// [`JoinToken::issuer`].
    pub fn secret(&self) -> &[u8] {
        self.secret.expose()
    }
}

/// Why a text is not a valid join token. The error does not contain the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// The prefix is missing.
    #[error("not a join token, expected text that begins with {TOKEN_PREFIX}")]
    NotAToken,
    /// The end is missing.
    #[error("the join token is incomplete; copy its whole line")]
    Truncated,
    /// There is text after its end.
    #[error("the join token is too long; copy only its line")]
    TooLong,
    /// A character outside the alphabet; positions are counted from 1.
    #[error("the join token contains an invalid character at position {0}; copy it again")]
    Character(usize),
    /// It was mistyped or damaged.
    #[error("the join token's checksum is wrong; it was mistyped or damaged, copy it again")]
    Checksum,
    /// It was created by a newer issuer.
    #[error("the join token has version {0}, this program supports version {VERSION}; upgrade the program")]
    Version(u8),
    /// A part is malformed although the checksum is right.
    #[error("the join token's {part} is malformed: {reason}")]
    Part {
        /// The part.
        part: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}

fn gateway_of(trust_domain: TrustDomain, cluster: Name) -> SpiffeId {
    SpiffeId::new(trust_domain, cluster, GATEWAY.parse().expect("the constant is a valid name"))
}

fn checksum(content: &[u8]) -> [u8; CHECKSUM_LEN] {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(TOKEN_PREFIX.as_bytes());
    context.update(content);
    let hash = context.finish();
    let mut sum = [0; CHECKSUM_LEN];
    sum.copy_from_slice(&hash.as_ref()[..CHECKSUM_LEN]);
    sum
}

fn decode_base64(encoded: &str) -> Result<zeroize::Zeroizing<Vec<u8>>, TokenError> {
    // Wiped in any case; the decoder's own buffer would not be after an error.
    let mut bytes = zeroize::Zeroizing::new(vec![0; base64::decoded_len_estimate(encoded.len())]);
    match URL_SAFE_NO_PAD.decode_slice(encoded, &mut bytes) {
        Ok(length) => {
            bytes.truncate(length);
            Ok(bytes)
        }
        Err(base64::DecodeSliceError::OutputSliceTooSmall) => Err(TokenError::TooLong),
        Err(base64::DecodeSliceError::DecodeError(error)) => Err(wrong_base64(&error)),
    }
}

fn wrong_base64(error: &base64::DecodeError) -> TokenError {
    match error {
        base64::DecodeError::InvalidByte(at, _) => TokenError::Character(TOKEN_PREFIX.len() + at + 1),
        // The last character has unused bits set, or the length is impossible: characters are missing.
        _ => TokenError::Truncated,
    }
}

fn check_count(part: &'static str, count: usize, max: usize) -> Result<(), TokenError> {
    if (1..=max).contains(&count) {
        return Ok(());
    }
    Err(TokenError::Part { part, reason: format!("expected 1 to {max}, found {count}") })
}

/// Checks `HOST:PORT`. The host is an IPv4 address, an IPv6 address in brackets, or a DNS name; the port is
/// at least 1.
pub(crate) fn check_address(address: &str) -> Result<(), TokenError> {
    let refuse =
        |reason: &str| TokenError::Part { part: "address", reason: format!("{address:?}: {reason}") };
    if address.len() > 255 {
        return Err(TokenError::Part { part: "address", reason: "longer than 255 characters".into() });
    }
    let (host, port) = address.rsplit_once(':').ok_or_else(|| refuse("must be HOST:PORT"))?;
    let digits = !port.is_empty() && port.bytes().all(|c| c.is_ascii_digit());
    if !digits || port.parse::<u16>().is_ok_and(|p| p == 0) || port.parse::<u16>().is_err() {
        return Err(refuse("the port must be a number from 1 to 65535"));
    }
    if let Some(inner) = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        return inner
            .parse::<Ipv6Addr>()
            .map(|_| ())
            .map_err(|_| refuse("the text in [ ] must be an IPv6 address"));
    }
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-' || c == b'_')
            && !label.starts_with('-')
    };
    // A name may be absolute.
    let name = host.strip_suffix('.').unwrap_or(host);
    if host.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6()) || !name.split('.').all(is_label) {
        return Err(refuse("the host must be a DNS name, an IPv4 address or an IPv6 address in [ ]"));
    }
    Ok(())
}

/// Reads the fields of a token one after the other.
struct TokenReader<'a>(&'a [u8]);

impl<'a> TokenReader<'a> {
    fn take_bytes(&mut self, len: usize) -> Result<&'a [u8], TokenError> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(TokenError::Truncated)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], TokenError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take_bytes(N)?);
        Ok(array)
    }

    fn count(&mut self, part: &'static str, max: usize) -> Result<usize, TokenError> {
        let count = usize::from(self.take_bytes(1)?[0]);
        check_count(part, count, max).map(|()| count)
    }

    fn text(&mut self) -> Result<&'a str, TokenError> {
        let len = usize::from(self.take_bytes(1)?[0]);
        let bytes = self.take_bytes(len)?;
        std::str::from_utf8(bytes)
            .map_err(|_| TokenError::Part { part: "text", reason: "not valid UTF-8".into() })
    }

    fn name<T: std::str::FromStr<Err: fmt::Display>>(&mut self, part: &'static str) -> Result<T, TokenError> {
        self.text()?.parse().map_err(|e: T::Err| TokenError::Part { part, reason: e.to_string() })
    }
}

#[cfg(test)]
mod tests;
