//! Checks everything in a block against its checksums, and all parts against each other.
//!
//! Reads the whole block once, with its chunks, and reports all problems instead of stopping at the first one. Memory grows
//! with the number of series and of label values, not of samples: about four bytes per series and fifty per label value.

mod chunks;
mod findings;
mod lists;

use std::path::Path;

use model::Labels;

use crate::block::Block;
use crate::error::BlockPart;
use crate::index::RawEntry;
use crate::postings::Postings;
use crate::{ChunkMeta, SeriesRef};
use chunks::ChunkCheck;
use findings::Findings;
pub use findings::{Verification, VerifyEvent};
use lists::ListCheck;

/// Progress is reported after this many series.
const PROGRESS_SERIES: u64 = 1000;

/// Verifies the block in directory `dir`. A block that cannot be opened is one problem.
pub fn verify_dir(dir: &Path, report: &mut dyn FnMut(VerifyEvent)) -> Verification {
    match Block::load(dir) {
        Ok(block) => block.verify(report),
        Err(error) => {
            report(VerifyEvent::Problem(error));
            Verification { problems: 1, ..Verification::default() }
        }
    }
}

impl Block {
    /// Reads the whole block and calls `report` for each problem.
    ///
    /// It checks all checksums; that symbols, labels, series and chunks are in order, and all symbols in use exist; that
    /// postings lists have exactly the series with the label; that chunks decode to the number of samples and the times in
    /// headers, index and `meta.json`; that segments have these chunks and nothing else; that tombstones are of series of the
    /// block; and the sizes of files that `meta.json` lists.
    pub fn verify(&self, report: &mut dyn FnMut(VerifyEvent)) -> Verification {
        let mut findings = Findings::new(self, report);
        findings.run();
        findings.found
    }
}

impl Findings<'_> {
    fn run(&mut self) {
        let block = self.block;
        for segment in 0..block.segments.count() as u32 {
            self.ok_or_report(block.segments.check_header(segment));
        }
        block.wrong_sizes().into_iter().for_each(|problem| self.problem(problem));
        self.symbols();
        let Some(all) = self.ok_or_report(block.index.all_postings()) else { return };
        let mut lists = ListCheck::default();
        let mut chunks = ChunkCheck::new(&block.segments);
        self.series(&all, &mut lists, &mut chunks);
        lists.finish(self);
        chunks.finish(self);
        self.tombstones(&all);
        self.stats();
    }

    /// Symbols are sorted and valid UTF-8. Some may be unused: a compaction keeps the symbols of deleted series.
    fn symbols(&mut self) {
        let place = self.place(BlockPart::Symbols);
        let mut last: Option<Vec<u8>> = None;
        let mut problems = Vec::new();
        let read = self.block.index.for_each_symbol(|offset, bytes| {
            if std::str::from_utf8(bytes).is_err() {
                problems.push(place.malformed(offset, "the symbol is not valid UTF-8"));
            }
            if last.as_ref().is_some_and(|last| last.as_slice() >= bytes) {
                problems.push(place.malformed(offset, "the symbol does not sort after the one before it"));
            }
            let last = last.get_or_insert_default();
            last.clear();
            last.extend_from_slice(bytes);
        });
        problems.into_iter().for_each(|problem| self.problem(problem));
        self.ok_or_report(read);
    }

    fn series(&mut self, all: &Postings, lists: &mut ListCheck, chunks: &mut ChunkCheck<'_>) {
        let index = &self.block.index;
        let mut scan = index.scan(all.clone().into_iter());
        let mut raw = RawEntry::default();
        let mut last: Option<Labels> = None;
        let of = all.len() as u64;
        let mut done = 0;
        while let Some(read) = scan.next_raw(&mut raw) {
            done += 1;
            if let Some(reference) = self.ok_or_report(read) {
                self.entry(reference, &raw, &mut last, lists, chunks);
                self.found.stats.series += 1;
            } else {
                chunks.lose_track();
            }
            if done % PROGRESS_SERIES == 0 || done == of {
                self.progress(done, of);
            }
        }
    }

    fn entry(
        &mut self,
        reference: SeriesRef,
        raw: &RawEntry,
        last: &mut Option<Labels>,
        lists: &mut ListCheck,
        chunks: &mut ChunkCheck<'_>,
    ) {
        let index = &self.block.index;
        let offset = index.series_offset(reference);
        let place = self.place(BlockPart::Series);
        self.found.series_max_bytes = self.found.series_max_bytes.max(raw.size_bytes);
        if let Some(false) = self.ok_or_report(index.labels_are_sorted(raw)) {
            self.problem(place.malformed(offset, "the labels of the series are not sorted by name"));
        }
        if let Some(labels) = self.ok_or_report(index.labels(reference, raw)) {
            lists.add(reference, &labels);
            if last.as_ref().is_some_and(|last| *last >= labels) {
                let what = format!("series {labels} does not sort after the one before it");
                self.problem(place.malformed(offset, what));
            }
            self.series = Some(labels.clone());
            *last = Some(labels);
        }
        if raw.chunks.is_empty() {
            self.problem(place.malformed(offset, "the series has no chunks"));
        }
        let mut before: Option<&ChunkMeta> = None;
        for (number, chunk) in raw.chunks.iter().enumerate() {
            let (min, max) = (chunk.range.min, chunk.range.max);
            if min > max {
                let what = format!("chunk {number} of the series begins at {min}, after its end at {max}");
                self.problem(place.malformed(offset, what));
            }
            if let Some(before) = before.filter(|before| before.range.max >= min) {
                let what = format!(
                    "chunk {number} of the series begins at {min}, the one before it ends at {}",
                    before.range.max
                );
                self.problem(place.malformed(offset, what));
            }
            before = Some(chunk);
            chunks.add(self, chunk);
        }
        self.series = None;
    }

    fn tombstones(&mut self, all: &Postings) {
        let block = self.block;
        let place = self.place(BlockPart::Tombstones);
        for series in block.tombstones().series().filter(|series| !all.contains(*series)) {
            let what = format!("it deletes samples of series {}, which is not in the index", series.0);
            self.problem(place.contradiction(None, what));
        }
        if block.tombstones().beyond() > 0 {
            let what = format!(
                "{} of its intervals are of series whose numbers have more than 32 bits, which no index has",
                block.tombstones().beyond()
            );
            self.problem(place.contradiction(None, what));
        }
        self.found.stats.tombstones = block.tombstones().count();
    }

    /// The counts are those in `meta.json`.
    fn stats(&mut self) {
        let meta = &self.block.meta;
        let (said, found) = (meta.stats.clone(), self.found.stats.clone());
        let place = self.place(BlockPart::Meta);
        // Downsampled blocks of Thanos keep these two counts of the raw block.
        let is_raw = meta.resolution().is_zero();
        let is_split = is_raw && (said.float_samples > 0 || said.histogram_samples > 0);
        for (name, said, found, is_told) in [
            ("samples", said.samples, found.samples, true),
            ("float samples", said.float_samples, found.float_samples, is_split),
            ("histogram samples", said.histogram_samples, found.histogram_samples, is_split),
            ("series", said.series, found.series, true),
            ("chunks", said.chunks, found.chunks, true),
            ("tombstones", said.tombstones, found.tombstones, self.block.tombstones.is_some()),
        ] {
            if is_told && said != found {
                self.problem(
                    place.contradiction(None, format!("it counts {said} {name}, but the block has {found}")),
                );
            }
        }
        if let Some(range) = self.found.range {
            let (min, max) = (meta.min_time, meta.max_time);
            if range.min < min || range.max >= max {
                let (first, last) = (range.min, range.max);
                let what =
                    format!("it covers [{min}, {max}), but the block has samples from {first} to {last}");
                self.problem(place.contradiction(None, what));
            }
        }
    }
}
