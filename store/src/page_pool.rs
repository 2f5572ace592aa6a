//! Buffers for pages, which are used again. The cache gives up a page whenever it keeps a new one, for weeks. If each had memory
//! of its own from the allocator, holes would be left between what is short-lived, in each of the allocator's arenas.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

/// Bytes of a page.
pub(crate) const PAGE_BYTES: u64 = 16 << 10;

/// Most buffers that wait to be used again: 16 MiB.
const MOST_FREE: usize = 1024;

/// Whether `length` bytes are in a buffer of the pool. For less, a whole buffer would be a waste.
fn is_pooled(length: usize) -> bool {
    (PAGE_BYTES as usize * 3 / 4..=PAGE_BYTES as usize).contains(&length)
}

/// Bytes of memory that a copy of `length` bytes takes.
pub(crate) fn memory_of(length: usize) -> usize {
    if is_pooled(length) { PAGE_BYTES as usize } else { length }
}

/// Buffers of the size of a page. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct PagePool(Arc<Mutex<Vec<Box<[u8]>>>>);

impl PagePool {
    /// A copy of the content of a page or a part of it, which is in pieces, in memory of its own.
    pub(crate) fn copy(&self, pieces: &[&[u8]]) -> Bytes {
        let length = pieces.iter().map(|piece| piece.len()).sum();
        if !is_pooled(length) {
            return pieces.concat().into();
        }
        let free = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut buffer = free.unwrap_or_else(|| vec![0; PAGE_BYTES as usize].into_boxed_slice());
        let mut at = 0;
        for piece in pieces {
            buffer[at..at + piece.len()].copy_from_slice(piece);
            at += piece.len();
        }
        Bytes::from_owner(PooledPage { buffer, length, pool: self.clone() })
    }

    /// Number of buffers that wait to be used again.
    #[cfg(test)]
    fn free(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

/// The content of a page. Its buffer returns to the pool.
struct PooledPage {
    buffer: Box<[u8]>,
    length: usize,
    pool: PagePool,
}

impl AsRef<[u8]> for PooledPage {
    fn as_ref(&self) -> &[u8] {
        &self.buffer[..self.length]
    }
}

impl Drop for PooledPage {
    fn drop(&mut self) {
        let mut free = self.pool.0.lock().unwrap_or_else(PoisonError::into_inner);
        if free.len() < MOST_FREE {
            free.push(std::mem::take(&mut self.buffer));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_used_again_when_nothing_refers_to_them() {
        let pool = PagePool::default();
        let content = |byte: u8, length: u64| vec![byte; length as usize];
        let first = pool.copy(&[&content(1, PAGE_BYTES)]);
        let slice = first.slice(10..20);
        drop(first);
        assert_eq!((pool.free(), slice.as_ref()), (0, &content(1, 10)[..]));
        drop(slice);
        assert_eq!(pool.free(), 1);
        let shorter = pool.copy(&[&content(2, 3000), &content(2, PAGE_BYTES - 3007)]);
        assert_eq!((pool.free(), shorter.as_ref()), (0, &content(2, PAGE_BYTES - 7)[..]));
        // A short page has memory of its own.
        drop((shorter, pool.copy(&[&content(3, 100)])));
        assert_eq!(pool.free(), 1);
        let many: Vec<Bytes> = (0..MOST_FREE + 5).map(|_| pool.copy(&[&content(4, PAGE_BYTES)])).collect();
        drop(many);
        assert_eq!(pool.free(), MOST_FREE);
    }
}
