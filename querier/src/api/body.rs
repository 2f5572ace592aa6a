//! The text of an answer. It counts towards the memory of its query while it is written, and then towards the
//! memory of all queries until it is sent.

use std::sync::Arc;

use budget::{Budget, BudgetLimits, Interrupt, LimitError, Reservation, Stop, TotalBudget};
use bytes::Bytes;

/// Minimum capacity of the first piece.
const FIRST_BYTES: usize = 1 << 10;
/// Minimum capacity of later pieces. Pieces are never moved, as one growing text would be.
const PIECE_BYTES: usize = 256 << 10;

/// A text that is written piece by piece.
#[derive(Debug)]
pub(super) struct AnswerText {
    pieces: Vec<Vec<u8>>,
    open: Vec<u8>,
    /// Capacity of the current piece that is reserved.
    counted: usize,
    reserved: Reservation,
    interrupt: Interrupt,
}

impl AnswerText {
    /// Creates an empty text, whose memory counts towards `budget`.
    pub(super) fn new(budget: &Budget, interrupt: Interrupt) -> Self {
        let reserved = Reservation::new(budget);
        Self { pieces: Vec::new(), open: Vec::new(), counted: 0, reserved, interrupt }
    }

    /// The buffer to write to, with room for about `bytes`. The room is reserved before it is allocated. Text
    /// beyond that room is counted at the next call.
    ///
    /// # Errors
    /// The query would exceed its memory limit, or was cancelled.
    pub(super) fn room(&mut self, bytes: usize) -> Result<&mut Vec<u8>, Stop> {
        self.interrupt.check()?;
        self.count(self.open.capacity())?;
        if self.open.capacity() - self.open.len() <= bytes {
            let least = (2 * self.open.capacity()).clamp(FIRST_BYTES, PIECE_BYTES);
            self.pieces.push(std::mem::take(&mut self.open));
            self.counted = 0;
            self.count(bytes.max(least))?;
            self.open.reserve_exact(self.counted);
        }
        Ok(&mut self.open)
    }

    fn count(&mut self, room: usize) -> Result<(), LimitError> {
        let more = room.saturating_sub(self.counted);
        self.counted += more;
        if more > 0 { self.reserved.add(more as u64) } else { Ok(()) }
    }

    /// The whole text, ready to be sent. The query has finished; text that is not sent yet counts towards
    /// `total`.
    ///
    /// # Errors
    /// The query, or all queries together, would exceed their memory limit.
    pub(super) fn finish(mut self, total: &TotalBudget) -> Result<Vec<Bytes>, LimitError> {
        self.count(self.open.capacity())?;
        self.pieces.push(self.open);
        let room: usize = self.pieces.iter().map(Vec::capacity).sum();
        // A separate budget, so that a slow client does not keep the samples of the query reserved.
        drop(self.reserved);
        let mut reserved = Reservation::new(&Budget::new(total, BudgetLimits::UNLIMITED, Interrupt::new()));
        reserved.add(room as u64)?;
        let reserved = Arc::new(reserved);
        let pieces = self.pieces.into_iter().filter(|text| !text.is_empty());
        Ok(pieces
            .map(|text| Bytes::from_owner(TextPiece { text, _reserved: Arc::clone(&reserved) }))
            .collect())
    }
}

/// A piece of a text that is being sent, with its memory reservation.
struct TextPiece {
    text: Vec<u8>,
    _reserved: Arc<Reservation>,
}

impl AsRef<[u8]> for TextPiece {
    fn as_ref(&self) -> &[u8] {
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use promql::QUERIES;

    use super::*;

    fn budget(total: &TotalBudget, bytes: u64) -> Budget {
        Budget::new(total, BudgetLimits::bytes(bytes), Interrupt::new())
    }

    #[test]
    fn text_is_counted_from_its_allocation_until_it_is_sent() {
        let total = TotalBudget::new(&QUERIES, BudgetLimits::bytes(4 << 20));
        let mut text = AnswerText::new(&budget(&total, 2 << 20), Interrupt::new());
        let mut expected = Vec::new();
        for at in 0..20_000 {
            let part = format!("part {at} of a text, ");
            text.room(8).unwrap().extend_from_slice(part.as_bytes());
            expected.extend_from_slice(part.as_bytes());
        }
        assert!(total.reserved_bytes() >= expected.len() as u64 - 100);
        let pieces = text.finish(&total).unwrap();
        assert!(pieces.len() > 1 && pieces.concat() == expected);
        assert!(total.reserved_bytes() >= expected.len() as u64);
        let last = pieces.last().unwrap().slice(1..);
        drop(pieces);
        assert_ne!(total.reserved_bytes(), 0);
        drop(last);
        assert_eq!(total.reserved_bytes(), 0);
    }

    #[test]
    fn text_fails_at_each_memory_limit_and_when_the_query_is_cancelled() {
        let total = TotalBudget::new(&QUERIES, BudgetLimits::bytes(1 << 20));
        let fill = |limit: u64| {
            let mut text = AnswerText::new(&budget(&total, limit), Interrupt::new());
            loop {
                match text.room(1000) {
                    Ok(out) => out.extend_from_slice(&[b'x'; 1000]),
                    Err(error) => break error.to_string(),
                }
            }
        };
        assert!(fill(300_000).contains("max_bytes=300000"));
        assert!(fill(u64::MAX).contains("max_total_bytes=1048576"));
        assert_eq!(total.reserved_bytes(), 0);
        let mut text = AnswerText::new(&budget(&total, 1000), Interrupt::new());
        assert!(text.room(1 << 30).unwrap_err().to_string().contains("max_bytes=1000"));
        let interrupt = Interrupt::new();
        interrupt.cancel();
        assert_eq!(AnswerText::new(&budget(&total, 1000), interrupt).room(1).err(), Some(Stop::Cancelled));
    }
}
