//! Deletions of series: which samples of a block are deleted although they are still in its files.
//!
//! ```text
//! isthmus/tombstones/<ULID>.json   {"version": 1, "id": "<ULID>", "deletions": [
//!                                    {"id": "...", "matchers": [{"name", "op", "value"}], "min_time", "max_time", "time", "details"}]}
//! meta.json                        thanos.rewrites[].deletions_applied[].request_id: deletions that are done in this block
//! ```
//!
//! ```text
//! deletion    which samples are deleted        effective   for which blocks a deletion holds
//! mark        the object of a block            objects     marks in a bucket
//! ```
//!
//! Readers mask these samples; a compactor writes the block again without them. A deletion in the mark of one block holds for every
//! block that shares a source with it, also for merged and downsampled ones, unless their `meta.json` says that it is done there: so a
//! mark that comes while blocks are being merged is not lost. Thanos ignores these objects.

mod deletion;
mod effective;
mod mark;
mod objects;
#[cfg(test)]
mod tests;

pub use deletion::Deletion;
pub use effective::{BlockDeletions, applied, effective};
pub use mark::TombstonesMark;
pub use objects::{TombstonesError, add, carry, copy, load, remove};
