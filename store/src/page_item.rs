//! What a cache outside of memory has for one page: its key, and a value that shows whether it is whole.
//!
//! ```text
//! key    isthmus:1:<bucket, 32 hex digits>:<ULID>:<file>:<size of the object>:<page>
//! value  "IsP1", be32 length of the page, be32 crc32c of key and page, the page
//! ```
//!
//! Servers are shared by stores of several buckets, and anyone with access to them may write anything. So the key names the
//! bucket with its endpoint and prefix, and the checksum covers the key: the page of another object is as useless as garbage.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use bytes::{BufMut, Bytes, BytesMut};
use tsdb::Ulid;

const MAGIC: &[u8; 4] = b"IsP1";
/// Bytes of a value before the page.
pub(crate) const HEADER_BYTES: usize = 12;

/// The identity of a bucket in the keys of its pages.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct BucketId(Box<str>);

impl BucketId {
    /// The identity of the bucket that `location` names: the kind of store, its endpoint, the bucket and the prefix.
    pub(crate) fn new(location: &str) -> Self {
        let hash = digest(&SHA256, location.as_bytes());
        Self(hash.as_ref().iter().take(16).map(|byte| format!("{byte:02x}")).collect())
    }
}

impl fmt::Debug for BucketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The beginning of the keys of all pages of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ObjectKey(Box<str>);

impl ObjectKey {
    /// The key of a file of a block: 0 for the index, otherwise the number of the segment.
    pub(crate) fn new(bucket: &BucketId, block: Ulid, file: u32, size_bytes: u64) -> Self {
        Self(format!("isthmus:1:{}:{block}:{file}:{size_bytes}:", bucket.0).into())
    }

    /// The key of a page.
    pub(crate) fn page(&self, page: u32) -> String {
        format!("{}{page}", self.0)
    }
}

/// The value of a page.
pub(crate) fn seal(key: &str, page: &[u8]) -> Bytes {
    let mut value = BytesMut::with_capacity(HEADER_BYTES + page.len());
    value.put_slice(MAGIC);
    // Pages have 16 KiB at most.
    value.put_u32(page.len() as u32);
    value.put_u32(checksum(key, page));
    value.put_slice(page);
    value.freeze()
}

/// The page in a value; `None` if it is not the whole page of `length` bytes that was stored under this key.
pub(crate) fn open(key: &str, value: &Bytes, length: usize) -> Option<Bytes> {
    let (head, page) = value.split_at_checked(HEADER_BYTES)?;
    let is_whole = head[..4] == *MAGIC
        && page.len() == length
        && head[4..8] == (length as u32).to_be_bytes()
        && head[8..] == checksum(key, page).to_be_bytes();
    // A copy: a slice would keep the header, and what else was read with it.
    is_whole.then(|| Bytes::copy_from_slice(page))
}

fn checksum(key: &str, page: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(key.as_bytes()), page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_page_of_the_key_is_found_in_a_value() {
        let (one, other) = (BucketId::new("S3 a/b"), BucketId::new("S3 a/c"));
        let key = |bucket: &BucketId, file, size| ObjectKey::new(bucket, Ulid::nil(), file, size).page(3);
        let name = key(&one, 1, 70_000);
        let page: Vec<u8> = (0..1000).map(|n| n as u8).collect();
        let value = seal(&name, &page);
        assert_eq!(open(&name, &value, 1000).as_deref(), Some(&page[..]));
        for wrong in [key(&other, 1, 70_000), key(&one, 2, 70_000), key(&one, 1, 70_001)] {
            assert_ne!(wrong, name);
            assert_eq!(open(&wrong, &value, 1000), None, "{wrong}");
        }
        assert_eq!(open(&name, &value, 999), None);
        for cut in 0..value.len() {
            assert_eq!(open(&name, &value.slice(..cut), 1000), None, "cut at {cut}");
        }
        for at in 0..value.len() {
            let mut flipped = value.to_vec();
            flipped[at] ^= 1 << (at % 8);
            assert_eq!(open(&name, &flipped.into(), 1000), None, "flipped at {at}");
        }
        // memcached permits keys of 250 bytes without spaces.
        let longest = ObjectKey::new(&one, Ulid::from_parts(u64::MAX, u128::MAX), u32::MAX, u64::MAX);
        let longest = longest.page(u32::MAX);
        assert!(longest.len() <= 150 && longest.bytes().all(|byte| byte.is_ascii_graphic()), "{longest}");
    }
}
