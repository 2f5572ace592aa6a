//! The heads of the issuer's audit log that a cluster keeps, and what contradicts them.
//!
//! Each head covers all entries before it. A head is kept only with the proof that the log still contains the newest one that
//! is kept: the issuer sends the hash that its log has at that number. If this hash differs, entries were removed or
//! rewritten, and the kept heads are the evidence, because the issuing CA has signed them.
//!
//! This file only decides; `held_audit` reads and writes.

use std::time::{Duration, UNIX_EPOCH};

use identity::SignedAuditHead;
use serde::{Deserialize, Serialize};

use crate::clock::rfc3339;

/// Heads that are kept; the oldest is dropped for a newer one.
const MAX_HEADS: usize = 16;

/// A head, with its signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct KeptHead {
    pub(super) number: u64,
    pub(super) hash: String,
    /// In seconds since the epoch.
    signed_at: u64,
    /// The signed bytes, each as two hexadecimal digits.
    signed: String,
}

/// What contradicts the kept heads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Contradiction {
    pub(super) why: String,
    /// The sequence of the trust bundle at that time. A later bundle means that a root accepts the log as it is.
    bundle: u64,
}

/// The kept heads, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct KeptHeads {
    heads: Vec<KeptHead>,
    contradiction: Option<Contradiction>,
}

/// What becomes of a head that was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It says nothing new.
    Nothing,
    /// It is kept.
    Kept,
    /// It came without the proof for the newest one that is kept, which must be reported.
    Unproven,
    /// It contradicts a kept head. The kept ones stay.
    Contradicts,
    /// The log contains the newest kept head again.
    Agrees,
    /// A root has accepted the log after a contradiction: the kept heads were replaced.
    Accepted,
}

impl KeptHead {
    /// A head whose signature was verified.
    pub(super) fn of(head: &SignedAuditHead) -> Self {
        Self {
            number: head.number(),
            hash: head.hash().to_owned(),
            signed_at: head.signed_at().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
            signed: head.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect(),
        }
    }
}

impl KeptHeads {
    /// The newest head.
    pub(super) fn newest(&self) -> Option<&KeptHead> {
        self.heads.last()
    }

    /// What contradicts them now.
    pub(super) fn contradiction(&self) -> Option<&Contradiction> {
        self.contradiction.as_ref()
    }

    /// What becomes of a head that was received. `since_hash` is the hash that the log has at the number `since`,
    /// empty if it has no such entry. `bundle` is the sequence of the trust bundle in use.
    pub(super) fn offer(&mut self, new: KeptHead, since: u64, since_hash: &str, bundle: u64) -> Outcome {
        let Some(newest) = self.heads.last().cloned() else {
            self.heads.push(new);
            return Outcome::Kept;
        };
        if self.contradiction.as_ref().is_some_and(|found| bundle > found.bundle) {
            *self = Self { heads: vec![new], contradiction: None };
            return Outcome::Accepted;
        }
        if let Some(why) = self.contradicts(&new, since, since_hash) {
            if self.contradiction.is_some() {
                return Outcome::Nothing;
            }
            self.contradiction = Some(Contradiction { why, bundle });
            return Outcome::Contradicts;
        }
        if (since, since_hash) != (newest.number, newest.hash.as_str()) {
            let same = (new.number, &new.hash) == (newest.number, &newest.hash);
            return if same || since == newest.number { Outcome::Nothing } else { Outcome::Unproven };
        }
        if self.contradiction.take().is_some() {
            return Outcome::Agrees;
        }
        if new.number <= newest.number {
            return Outcome::Nothing;
        }
        self.heads.push(new);
        if self.heads.len() > MAX_HEADS {
            self.heads.remove(0);
        }
        Outcome::Kept
    }

    /// Which kept head is contradicted, in one line.
    fn contradicts(&self, new: &KeptHead, since: u64, since_hash: &str) -> Option<String> {
        let at = |head: &KeptHead| rfc3339(UNIX_EPOCH + Duration::from_secs(head.signed_at));
        let told = self.heads.iter().find(|kept| kept.number == since).filter(|kept| kept.hash != since_hash);
        if let Some(kept) = told {
            let (number, at) = (kept.number, at(kept));
            return Some(match since_hash {
                "" => format!("entry {number}, whose head was signed at {at}, was removed from it"),
                _ => format!("its first {number} entries are not those whose head was signed at {at}"),
            });
        }
        let newest = self.heads.last()?;
        if new.number < newest.number && new.signed_at > newest.signed_at {
            return Some(format!(
                "it had {} entries at {}, and {} at {}",
                newest.number,
                at(newest),
                new.number,
                at(new)
            ));
        }
        let same = self.heads.iter().find(|kept| kept.number == new.number && kept.hash != new.hash)?;
        let (number, at) = (same.number, at(same));
        Some(format!("its first {number} entries are not those whose head was signed at {at}"))
    }

    /// What is kept, in one line.
    pub(super) fn text(&self) -> Option<String> {
        let newest = self.heads.last()?;
        let head = format!("head {}:{}", newest.number, newest.hash);
        let at = rfc3339(UNIX_EPOCH + Duration::from_secs(newest.signed_at));
        Some(match &self.contradiction {
            None => format!("{head}, signed at {at}"),
            Some(found) => {
                format!("ALTERED: {}; {head}, signed at {at}, is kept as evidence", found.why)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(number: u64, hash: &str, signed_at: u64) -> KeptHead {
        KeptHead { number, hash: hash.to_owned(), signed_at, signed: String::new() }
    }

    /// Heads 5:a and 8:b.
    fn two() -> KeptHeads {
        let mut kept = KeptHeads::default();
        assert_eq!(kept.offer(head(5, "a", 100), 0, "", 1), Outcome::Kept);
        assert_eq!(kept.offer(head(8, "b", 200), 5, "a", 1), Outcome::Kept);
        kept
    }

    #[test]
    fn a_head_is_kept_only_with_the_proof_for_the_newest_one() {
        let check = |new: KeptHead, since: u64, since_hash: &str, expected: Outcome| {
            let mut kept = two();
            assert_eq!(kept.offer(new, since, since_hash, 1), expected);
            assert_eq!(kept.contradiction().is_some(), expected == Outcome::Contradicts);
            assert_eq!(kept.heads.len(), if expected == Outcome::Kept { 3 } else { 2 });
        };
        check(head(9, "c", 300), 8, "b", Outcome::Kept);
        check(head(8, "b", 300), 8, "b", Outcome::Nothing);
        check(head(8, "b", 300), 0, "", Outcome::Nothing);
        check(head(9, "c", 300), 5, "a", Outcome::Unproven);
        check(head(9, "c", 300), 0, "", Outcome::Unproven);
        // Another gateway of the issuer signed it before the newest one.
        check(head(7, "x", 150), 8, "b", Outcome::Nothing);
        // A cut end, an emptied table, and a chain that was computed again, with fewer or more entries.
        check(head(7, "x", 300), 8, "", Outcome::Contradicts);
        check(head(7, "x", 300), 0, "", Outcome::Contradicts);
        check(head(0, "", 300), 8, "", Outcome::Contradicts);
        check(head(9, "c", 300), 8, "x", Outcome::Contradicts);
        check(head(9, "c", 300), 5, "x", Outcome::Contradicts);
        check(head(8, "x", 150), 0, "", Outcome::Contradicts);
        check(head(5, "x", 50), 0, "", Outcome::Contradicts);
    }

    #[test]
    fn a_contradiction_stays_until_the_log_agrees_or_a_root_accepts_it() {
        let mut kept = two();
        assert_eq!(kept.offer(head(3, "x", 300), 8, "", 1), Outcome::Contradicts);
        assert_eq!(kept.offer(head(4, "y", 400), 8, "", 1), Outcome::Nothing, "it was reported");
        assert!(
            kept.text()
                .unwrap()
                .starts_with("ALTERED: entry 8, whose head was signed at 1970-01-01T00:03:20Z")
        );
        let mut agrees = kept.clone();
        assert_eq!(agrees.offer(head(9, "c", 500), 8, "b", 1), Outcome::Agrees);
        assert_eq!(agrees.contradiction(), None);
        assert_eq!(agrees.offer(head(9, "c", 600), 8, "b", 1), Outcome::Kept);

        assert_eq!(kept.offer(head(4, "y", 500), 8, "", 2), Outcome::Accepted);
        assert_eq!((kept.newest().unwrap().number, kept.contradiction()), (4, None));
        // A later bundle alone accepts nothing that was not contradicted before it.
        assert_eq!(kept.offer(head(3, "z", 600), 4, "", 3), Outcome::Contradicts);
    }

    #[test]
    fn the_number_of_kept_heads_is_bounded() {
        let mut kept = KeptHeads::default();
        for number in 1..=100 {
            let (since, hash) = (number - 1, format!("h{}", number - 1));
            let outcome = kept.offer(head(number, &format!("h{number}"), number), since, &hash, 1);
            assert_eq!(outcome, Outcome::Kept, "{number}");
        }
        assert_eq!((kept.heads.len(), kept.newest().unwrap().number), (MAX_HEADS, 100));
    }
}
