//! Reads a file of a block from begin to end in large pieces, the next piece while the current one is in use.
//!
//! A merge reads index and segments in order, but in thousands of small ranges. From an object store each would be a request.

use std::io;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tsdb::ReadAt;

/// A file whose reads are answered from pieces of a fixed size. Reads that jump are passed on as they are.
///
/// Memory: two pieces.
pub(crate) struct ReadAhead<F> {
    file: F,
    piece_bytes: u64,
    runtime: Handle,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The piece that is in use, and where it begins.
    begin: u64,
    piece: Bytes,
    /// Where the last read that was passed on began and ended. A read that goes on from there begins a new piece.
    passed_on: Range<u64>,
    /// The piece after the current one.
    next: Option<JoinHandle<io::Result<Bytes>>>,
}

impl State {
    fn end(&self) -> u64 {
        self.begin + self.piece.len() as u64
    }

    /// The bytes of `range`, if they are in the piece.
    fn slice(&self, range: &Range<u64>) -> Option<Bytes> {
        let is_inside = self.begin <= range.start && range.end <= self.end();
        is_inside
            .then(|| self.piece.slice((range.start - self.begin) as usize..(range.end - self.begin) as usize))
    }
}

impl<F: ReadAt + Clone + 'static> ReadAhead<F> {
    /// The file, read in pieces of `piece_bytes`. Must be called on a runtime, which reads the pieces.
    pub(crate) fn new(file: F, piece_bytes: u64) -> Self {
        Self { file, piece_bytes: piece_bytes.max(1), runtime: Handle::current(), state: Mutex::default() }
    }

    /// Begins to read the piece from `begin` on.
    fn fetch(&self, begin: u64) -> Option<JoinHandle<io::Result<Bytes>>> {
        let range = begin..(begin + self.piece_bytes).min(self.file.size_bytes());
        if range.is_empty() {
            return None;
        }
        let file = self.file.clone();
        Some(self.runtime.spawn_blocking(move || file.read_at(range)))
    }

    /// The piece that was asked for before.
    fn take(&self, state: &mut State) -> io::Result<Option<Bytes>> {
        let Some(next) = state.next.take() else { return Ok(None) };
        self.runtime.block_on(next).map_err(io::Error::other)?.map(Some)
    }
}

impl<F: ReadAt + Clone + 'static> ReadAt for ReadAhead<F> {
    fn size_bytes(&self) -> u64 {
        self.file.size_bytes()
    }

    fn read_at(&self, range: Range<u64>) -> io::Result<Bytes> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bytes) = state.slice(&range) {
            return Ok(bytes);
        }
        let length = range.end.saturating_sub(range.start);
        let goes_on = (state.begin..=state.end()).contains(&range.start) && !state.piece.is_empty();
        let begins = (state.passed_on.start..=state.passed_on.end).contains(&range.start);
        if range.end > self.file.size_bytes() || length > self.piece_bytes || !(goes_on || begins) {
            let bytes = self.file.read_at(range.clone())?;
            state.passed_on = range;
            return Ok(bytes);
        }
        if !goes_on {
            // The reader is somewhere else now. A piece that is on its way is not needed.
            *state = State::default();
        }
        let end = state.end();
        let next = if goes_on { self.take(&mut state)? } else { None };
        let kept =
            if goes_on { state.piece.slice((range.start - state.begin) as usize..) } else { Bytes::new() };
        let mut piece = match next {
            Some(next) if kept.is_empty() => next,
            Some(next) => [kept.as_ref(), next.as_ref()].concat().into(),
            None => {
                let from = if goes_on { end } else { range.start };
                let read = self.file.read_at(from..(from + self.piece_bytes).min(self.file.size_bytes()))?;
                if kept.is_empty() { read } else { [kept.as_ref(), read.as_ref()].concat().into() }
            }
        };
        if (piece.len() as u64) < length {
            piece = self.file.read_at(range.clone())?;
        }
        (state.begin, state.piece) = (range.start, piece);
        state.next = self.fetch(state.end());
        state.slice(&range).ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Bytes that count their reads.
    #[derive(Clone)]
    struct Counted(Bytes, Arc<AtomicUsize>);

    impl ReadAt for Counted {
        fn size_bytes(&self) -> u64 {
            self.0.size_bytes()
        }

        fn read_at(&self, range: Range<u64>) -> io::Result<Bytes> {
            self.1.fetch_add(1, Ordering::Relaxed);
            self.0.read_at(range)
        }
    }

    fn file(length: usize) -> (Bytes, Counted) {
        let bytes: Bytes = (0..length).map(|at| (at * 7 % 251) as u8).collect::<Vec<_>>().into();
        (bytes.clone(), Counted(bytes, Arc::default()))
    }

    #[test]
    fn any_order_of_reads_gives_the_bytes_of_the_file() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let _entered = runtime.enter();
        let (bytes, counted) = file(10_000);
        let ahead = ReadAhead::new(counted, 512);
        let mut random = 12345_u64;
        let mut at = 0;
        for step in 0..20_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let length = (random >> 33) % if step % 50 == 0 { 3_000 } else { 60 };
            if step % 97 == 0 || at + length > 10_000 {
                at = (random >> 40) % 9_000;
            }
            let range = at..(at + length).min(10_000);
            assert_eq!(
                ahead.read_at(range.clone()).unwrap(),
                bytes.slice(range.start as usize..range.end as usize)
            );
            at = if step % 3 == 0 { range.start + length / 2 } else { range.end };
        }
        assert_eq!(ahead.read_at(9_999..10_001).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn reads_in_order_are_few_large_ones() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let _entered = runtime.enter();
        let (bytes, counted) = file(100_000);
        let ahead = ReadAhead::new(counted.clone(), 10_000);
        for at in (0..100_000).step_by(25) {
            // Each read is longer than the step, as reads of chunks are.
            let end = (at + 60).min(100_000);
            assert_eq!(ahead.read_at(at..end).unwrap(), bytes.slice(at as usize..end as usize));
        }
        assert!(counted.1.load(Ordering::Relaxed) <= 12, "{:?}", counted.1);
    }
}
