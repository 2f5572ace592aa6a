//! Which replica leads at which time.

use crate::dedup::misses::Run;
use crate::dedup::piece::Piece;
use crate::dedup::track::Track;

/// Samples of two replicas that are closer than this are the same scrape, in milliseconds and as a part of the spacing.
const SAME_MILLIS: i64 = 10;
const SAME_PART: i64 = 64;

/// The samples of the leader at each time: the first replica that is in a [`Run`]. At some times no replica leads.
///
/// A change of leader loses nothing: every sample of the old leader before the change, and every sample of the new one
/// after it, is part of the answer.
///
/// When a leader missed a sample, the next one is not replaced for the time of `recovery`, unless it misses one, too.
pub(crate) fn lead(tracks: &[Track], runs: &[Vec<Run>], recovery: i64) -> Vec<Piece> {
    let mut pieces: Vec<Piece> = Vec::new();
    let mut next: Vec<usize> = vec![0; runs.len()];
    // Samples from here on are not decided yet. A new leader must not miss a sample before `seen`.
    let (mut from, mut seen, mut kept) = (i64::MIN, i64::MIN, i64::MIN);
    loop {
        for (next, runs) in next.iter_mut().zip(runs) {
            while runs.get(*next).is_some_and(|run| run.to < from) {
                *next += 1;
            }
        }
        let current = |replica: usize| runs[replica].get(next[replica]);
        let leads = |run: &&Run| run.from <= from && run.to >= seen;
        let leader = (0..runs.len()).find(|&replica| current(replica).is_some_and(|run| leads(&run)));
        if leader.is_none() {
            kept = i64::MIN;
        }
        // Only a replica that comes before the leader replaces it.
        let rivals = 0..leader.unwrap_or(runs.len());
        let begins = |replica: usize| {
            // Runs ascend, so the first one is the earliest.
            runs[replica][next[replica]..].iter().find_map(|run| {
                let begin = if run.from >= kept {
                    run.from
                } else {
                    *tracks[replica].times.get(tracks[replica].at_or_after(kept))?
                };
                (begin > from && begin <= run.to).then_some(begin)
            })
        };
        let begins: Vec<i64> = rivals.map(|rival| begins(rival).unwrap_or(i64::MAX)).collect();
        // Of rivals that come soon after each other, the one that is going to stay.
        let soon = begins.iter().min().map_or(i64::MAX, |first| first.saturating_add(recovery));
        let replaced = begins.into_iter().find(|begin| *begin <= soon && *begin < i64::MAX);
        let Some((leader, run)) = leader.and_then(|leader| Some((leader, current(leader)?))) else {
            let Some(begin) = replaced else { return pieces };
            (from, seen) = (begin, begin);
            continue;
        };
        let track = &tracks[leader];
        match replaced.filter(|&begin| begin <= run.to) {
            Some(begin) => {
                push(&mut pieces, tracks, leader, track.at_or_after(from)..track.at_or_after(begin));
                (from, seen) = (begin, begin);
            }
            None => {
                push(&mut pieces, tracks, leader, track.at_or_after(from)..track.after(run.to));
                if run.to == i64::MAX {
                    return pieces;
                }
                (from, seen) = (run.to.saturating_add(1), run.seen);
                kept = run.to.saturating_add(recovery);
            }
        }
    }
}

/// Adds samples of a replica. Its first sample is left out if it is the same scrape as the last one of another replica.
fn push(pieces: &mut Vec<Piece>, tracks: &[Track], replica: usize, mut samples: std::ops::Range<usize>) {
    let times = &tracks[replica].times[samples.clone()];
    if let (Some(last), Some(&first)) = (pieces.last().and_then(|p| p.times(tracks).last()), times.first()) {
        let spacing = times.get(1).map_or(0, |next| next.saturating_sub(first));
        if first.saturating_sub(*last) < SAME_MILLIS.min(spacing / SAME_PART) {
            samples.start += 1;
        }
    }
    if !samples.is_empty() {
        pieces.push(Piece { replica, samples });
    }
}
