//! The signature of a root over a trust bundle.
//!
//! ```text
//!   size   what
//!   1      version, 1
//!   8      sequence of the bundle, big endian
//!   32     pin of the root that signed
//!   rest   signature, at most 512 bytes
//! ```

use crate::pin::SpkiPin;

const VERSION: u8 = 1;
const MAX_SIGNATURE_BYTES: usize = 512;

/// Which root signed a bundle, and the signature. Nothing is verified yet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct RootSignature {
    /// Number of the bundle; a later one replaces an earlier one.
    pub(crate) sequence: u64,
    /// The root that signed.
    pub(crate) signer: SpkiPin,
    pub(crate) signature: Vec<u8>,
}

impl RootSignature {
    /// Parses the bytes of [`RootSignature::to_bytes`].
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let (&version, rest) = bytes.split_first()?;
        let (sequence, rest) = rest.split_first_chunk::<8>()?;
        let (signer, signature) = rest.split_first_chunk::<32>()?;
        let is_valid = version == VERSION && (1..=MAX_SIGNATURE_BYTES).contains(&signature.len());
        is_valid.then(|| Self {
            sequence: u64::from_be_bytes(*sequence),
            signer: SpkiPin::from_bytes(*signer),
            signature: signature.to_vec(),
        })
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        bytes.extend(self.sequence.to_be_bytes());
        bytes.extend(self.signer.as_bytes());
        bytes.extend(&self.signature);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_round_trip_and_damaged_ones_are_rejected() {
        let signature =
            RootSignature { sequence: 7, signer: SpkiPin::from_bytes([3; 32]), signature: vec![1; 104] };
        let bytes = signature.to_bytes();
        assert_eq!(RootSignature::parse(&bytes), Some(signature));
        for len in 0..42 {
            assert_eq!(RootSignature::parse(&bytes[..len]), None, "cut at {len}");
        }
        let mut newer = bytes.clone();
        newer[0] = 2;
        assert_eq!(RootSignature::parse(&newer), None);
        assert_eq!(RootSignature::parse(&[&bytes[..], &[0; 512]].concat()), None, "too long");
    }
}
