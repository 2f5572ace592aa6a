//! Random replicas of a series that is known, and the properties that their deduplication must have.
//!
//! `ISTHMUS_CASES=20000 cargo test -p series random_replicas` tries more cases than usual.

mod case;

use crate::dedup::interval::Intervals;
use crate::dedup::oracle::case::{Case, LOOKBACK};
use crate::dedup::track::Track;
use crate::dedup::windows::{first_read, length};
use crate::testing::Random;

/// The length of the windows of deduplication.
fn block(window: i64) -> i64 {
    length(window.max(LOOKBACK / 3))
}

/// The samples in a window, which is open on the left.
fn inside(times: &[i64], end: i64, window: i64) -> &[i64] {
    let from = times.partition_point(|&t| t <= end - window);
    &times[from..times.partition_point(|&t| t <= end).max(from)]
}

/// The growth of a counter between the first and the last sample of a window.
fn growth(case: &Case, times: &[i64]) -> f64 {
    let step = |pair: &[i64]| {
        let (a, b) = (case.value(pair[0]), case.value(pair[1]));
        if b < a { b } else { b - a }
    };
    times.windows(2).map(step).sum()
}

fn resets(case: &Case, times: &[i64]) -> usize {
    times.windows(2).filter(|pair| case.value(pair[1]) < case.value(pair[0])).count()
}

/// The interval that is learnt at a sample.
struct Learnt {
    time: i64,
    shortest: i64,
    longest: i64,
}

/// The intervals that are learnt at the samples of all replicas, in windows of this length.
fn learnt(case: &Case, length: i64) -> Vec<Learnt> {
    let tracks: Vec<Track> = case.kept.iter().map(|kept| Track::of_times(kept.clone())).collect();
    let intervals = &mut Intervals::new(&tracks, length);
    let mut learn = |time: i64| {
        let start = time.div_euclid(length) * length;
        // The window after it asks, too.
        let [a, b] = [start, start + length].map(|start| {
            intervals.begin_window(start);
            intervals.at(time)
        });
        Learnt { time, shortest: a.min(b), longest: a.max(b) }
    };
    let mut all: Vec<Learnt> = case.kept.iter().flatten().map(|&time| learn(time)).collect();
    all.sort_unstable_by_key(|learnt| learnt.time);
    all
}

/// What was learnt from one time to another.
fn learnt_between(learnt: &[Learnt], from: i64, to: i64) -> &[Learnt] {
    let begin = learnt.partition_point(|learnt| learnt.time < from);
    &learnt[begin..learnt.partition_point(|learnt| learnt.time <= to).max(begin)]
}

/// How often the properties were compared, and how often a condition left a comparison out.
#[derive(Debug, Default)]
struct Tally {
    /// Samples of answers; those after a reset that all replicas lost, whose values are not compared.
    samples: usize,
    after_lost_resets: usize,
    /// Windows of queries.
    windows: usize,
    /// Windows around a change of the interval: the count is not compared.
    changes: usize,
    /// Windows where a longer interval is learnt than the true one: not compared with the best replica.
    longer: usize,
    /// Windows where a shorter one is learnt: not compared with the truth.
    shorter: usize,
    /// Windows of less than two intervals: not compared with the truth.
    short_windows: usize,
    /// Windows with two resets within two intervals: resets are not compared.
    double_resets: usize,
    /// Windows of complete replicas; those that were not compared with the replica alone.
    complete: usize,
    complete_left_out: usize,
    /// Queries with another begin; those that were compared only where more data lies before.
    begins: usize,
    begins_without_data: usize,
}

/// The properties of an answer for one window. Returns what is violated.
fn check(case: &Case, window: i64, tally: &mut Tally) -> Result<(), String> {
    let answer = case.answer(i64::MIN, window);
    let times: Vec<i64> = answer.iter().map(|(time, _)| *time).collect();
    let mut all: Vec<i64> = case.kept.iter().flatten().copied().collect();
    all.sort_unstable();
    all.dedup();
    let (Some(&begin), Some(&last)) = (all.first(), all.last()) else { return Ok(()) };
    if !times.is_sorted_by(|a, b| a < b) {
        return Err("order: times do not ascend".to_owned());
    }
    // Where all replicas lose the samples around a reset, it can look as if one of them were behind.
    let lost = |reset: &i64| {
        let after = all.partition_point(|time| time < reset);
        after > 0 && after < all.len() && all[after] - all[after - 1] > 2 * case.interval(*reset)
    };
    let first_lost = case.resets.iter().copied().find(lost).unwrap_or(i64::MAX);
    for &(time, value) in &answer {
        let is_exact = time < first_lost;
        tally.samples += 1;
        tally.after_lost_resets += usize::from(!is_exact);
        if all.binary_search(&time).is_err() || is_exact && value != case.value(time) {
            return Err(format!("values: {time} has {value}, not {}", case.value(time)));
        }
    }
    let learnt = learnt(case, block(window));
    gaps(case, &times, &all, &learnt)?;
    let whole: Vec<&Vec<i64>> =
        case.kept.iter().zip(&case.scrapes).filter(|(k, s)| k == s).map(|(k, _)| k).collect();
    // At the ends it is not known whether a sample is missing.
    let mut at = begin + window + 2 * case.interval(begin);
    while at <= last - 2 * case.interval(last) {
        let interval = case.interval(at - window).max(case.interval(at));
        // A sample that is lost at a change of the interval cannot be told from the change.
        let restart = |(from, _): &(i64, i64)| (at - window - 2 * interval..=at + interval).contains(from);
        let changes = case.intervals[1..].iter().any(restart);
        let ours = inside(&times, at, window);
        let least = inside(&times, at + 2 * case.jitter, window + 4 * case.jitter).len();
        let most = inside(&times, at - 2 * case.jitter, window - 4 * case.jitter).len();
        let best = case.kept.iter().map(|kept| inside(kept, at, window).len()).max().unwrap_or(0);
        let truth = case.scrapes.iter().map(|scrapes| inside(scrapes, at, window).len()).max().unwrap_or(0);
        // Shortly before the interval becomes shorter, the shorter one is learnt, and some scrapes are counted twice. Where
        // all replicas lose so much that a longer one is learnt, fewer are counted than a replica has.
        let around = learnt_between(&learnt, at - window - block(window), at + block(window));
        let is_short = |learnt: &Learnt| learnt.shortest < case.interval(learnt.time) / 4 * 3;
        let is_long = |learnt: &Learnt| learnt.longest > case.interval(learnt.time) / 4 * 5;
        let steady = !changes && !around.iter().any(is_short);
        let known = !around.iter().any(is_long);
        let useful = window >= 2 * interval;
        // With jitter, each change of the clock can gain a part of a scrape.
        let slack = 1 + usize::from(case.jitter > 0);
        tally.windows += 1;
        tally.changes += usize::from(changes);
        tally.longer += usize::from(!known);
        tally.shorter += usize::from(around.iter().any(is_short));
        tally.short_windows += usize::from(!useful);
        if known && !changes && least + 1 < best || steady && useful && most > truth + slack {
            return Err(format!("count: {} at {at}, best {best}, truth {truth}", ours.len()));
        }
        let scrape = (interval + 2 * case.jitter) as f64;
        let grown = growth(case, ours);
        let best_grown = case.kept.iter().map(|kept| growth(case, inside(kept, at, window)));
        let best_grown = best_grown.fold(0.0, f64::max);
        let true_growth =
            growth(case, &(0..=window / 100).map(|n| at - window + n * 100).collect::<Vec<_>>());
        let around_window = inside(&times, at + interval, window + 2 * interval);
        let wide = growth(case, around_window);
        // What a counter grew between a sample and the next reset is lost, in other replicas less than in this answer.
        let resets_inside =
            case.resets.iter().filter(|&&reset| at - window < reset && reset <= at).count() as f64;
        if grown > true_growth + scrape || known && wide + scrape * (1.0 + resets_inside) < best_grown {
            return Err(format!("growth: {grown} at {at}, best {best_grown}, truth {true_growth}"));
        }
        // A complete replica, too, does not see that a counter began anew if it does so twice within two intervals.
        let is_seen = case
            .resets
            .windows(2)
            .all(|pair| pair[1] - pair[0] > 2 * interval || pair[1] < at - window - interval || pair[0] > at);
        tally.double_resets += usize::from(!is_seen);
        let best_resets = case.kept.iter().map(|kept| resets(case, inside(kept, at, window))).max();
        if is_seen && resets(case, around_window) + 1 < best_resets.unwrap_or(0) {
            return Err(format!("resets: at {at}"));
        }
        for whole in &whole {
            let alone = inside(whole, at, window).len();
            // With jitter, a window of two intervals can have a single scrape, whatever the answer.
            let is_long = window >= (2 + i64::from(case.jitter > 0)) * interval;
            let is_compared = steady && known && is_long;
            tally.complete += 1;
            tally.complete_left_out += usize::from(!is_compared);
            if is_compared && alone >= 2 && ours.len() < 2 {
                return Err(format!("whole: {} of {alone} at {at}", ours.len()));
            }
        }
        at += (window / 4).max(case.interval(at) / 3).max(1);
    }
    Ok(())
}

/// No gap is wider than one interval more than the widest one that all replicas together have there. Where they lose so
/// much that their samples show a longer interval, it is that one.
fn gaps(case: &Case, times: &[i64], all: &[i64], learnt: &[Learnt]) -> Result<(), String> {
    let longest = |from: i64, to: i64| {
        let longest = learnt_between(learnt, from, to).iter().map(|learnt| learnt.longest).max().unwrap_or(0);
        longest.max(case.interval(from)) + 2 * case.jitter
    };
    for pair in times.windows(2) {
        let from = all.partition_point(|&t| t < pair[0]);
        let to = all.partition_point(|&t| t <= pair[1]);
        let cover = all[from..to].windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0);
        let mut interval = longest(pair[0], pair[1]);
        if case.intervals.iter().any(|(from, _)| pair[0] < *from && *from <= pair[1]) {
            // Where the scrapes begin anew, a complete replica has a distance up to the sum of both intervals.
            interval += case.interval(pair[1]);
        }
        let gap = pair[1] - pair[0];
        if gap > cover + interval {
            return Err(format!("gap: {gap} at {}, cover {cover}, interval {interval}", pair[0]));
        }
    }
    if let (Some(first), Some(last)) = (times.first(), times.last()) {
        let (begin, end) = (all[0], all[all.len() - 1]);
        if first - begin > longest(begin, *first) / 2 * 3 || end - last > longest(*last, end) / 2 * 3 {
            return Err(format!("ends: {first} to {last} of {begin} to {end}"));
        }
    }
    Ok(())
}

/// The same samples, wherever the range of the query begins. Where fewer than two intervals of data lie before the window of
/// deduplication that contains the begin, only once one more window and three intervals of data lie before them.
fn check_begin(case: &Case, window: i64, seed: u64, tally: &mut Tally) -> Result<(), String> {
    let random = &mut Random::seeded(seed ^ 0x55);
    let begin = case.intervals[0].0;
    let whole = case.answer(i64::MIN, window);
    let learnt = learnt(case, block(window));
    let longest = case.intervals.iter().map(|(_, interval)| *interval);
    let longest = longest.chain(learnt.iter().map(|learnt| learnt.longest)).max().unwrap_or(0);
    for _ in 0..4 {
        let from = begin + random.below((case.end - begin) as usize) as i64;
        let read = first_read(from, window.max(LOOKBACK / 3));
        let first = case.kept.iter().flatten().filter(|&&time| time >= read).min().copied().unwrap_or(from);
        let is_known = first + 2 * longest <= from.div_euclid(block(window)) * block(window);
        let settled = if is_known { from } else { from.max(first + block(window) + 3 * longest) };
        tally.begins += 1;
        tally.begins_without_data += usize::from(!is_known);
        let part = case.answer(from, window);
        let tail = |list: &[(i64, f64)]| list[list.partition_point(|(time, _)| *time < settled)..].to_vec();
        let (a, b) = (tail(&whole), tail(&part));
        // Two replicas at different levels have the level of the first one, which depends on the begin. No function of
        // counters does.
        let level = a.first().zip(b.first()).map_or(0.0, |(a, b)| a.1 - b.1);
        let is_level = level == 0.0 || case.above.iter().any(|above| *above != 0.0);
        let is_same = |(a, b): &(&(i64, f64), &(i64, f64))| {
            a.0 == b.0 && (a.1 - level - b.1).abs() <= a.1.abs() * 1e-9 * f64::from(u8::from(level != 0.0))
        };
        if a.len() != b.len() || !is_level || !a.iter().zip(&b).all(|pair| is_same(&pair)) {
            let differs = a.iter().zip(&b).find(|pair| !is_same(pair));
            let counts = (a.len(), b.len());
            return Err(format!("begin: from {from} settled {settled} differs {differs:?} {counts:?}"));
        }
    }
    Ok(())
}

/// The growth of a counter of which some replicas are behind, or at another level: not more than the truth, and not less than
/// that of a replica, but for a scrape and the time by which replicas are behind.
fn check_growth(case: &Case, window: i64) -> Result<(), String> {
    let answer = case.answer(i64::MIN, window);
    let (Some((first, _)), Some((last, _))) = (answer.first(), answer.last()) else { return Ok(()) };
    let learnt = learnt(case, block(window));
    let mut at = first + window + 2 * case.interval(*first);
    while at <= last - 2 * case.interval(*last) {
        let from = answer.partition_point(|(time, _)| *time <= at - window);
        let ours = &answer[from..answer.partition_point(|(time, _)| *time <= at).max(from)];
        let step =
            |pair: &[(i64, f64)]| if pair[1].1 < pair[0].1 { pair[1].1 } else { pair[1].1 - pair[0].1 };
        let grown: f64 = ours.windows(2).map(step).sum();
        let behind = case.behind.iter().copied().max().unwrap_or(0);
        let times: Vec<i64> = (0..=(window + behind) / 100).map(|n| at - window - behind + n * 100).collect();
        let truth = growth(case, &times);
        let around = learnt_between(&learnt, at - window - block(window), at + block(window));
        let known = !around.iter().any(|learnt| learnt.longest > case.interval(learnt.time) / 4 * 5);
        let interval = case.interval(at - window).max(case.interval(at));
        let scrape = (interval + 2 * case.jitter + behind) as f64;
        let best = case.kept.iter().map(|kept| growth(case, inside(kept, at, window - 2 * interval)));
        let resets =
            case.resets.iter().filter(|&&reset| at - window - behind < reset && reset <= at).count() as f64;
        if grown > truth + scrape
            || known && grown + scrape * (2.0 + resets) < best.clone().fold(0.0, f64::max)
        {
            let best = best.clone().fold(0.0, f64::max);
            return Err(format!(
                "growth of uneven replicas: {grown} at {at}, best {best}, truth {truth}, scrape {scrape}"
            ));
        }
        at += (window / 4).max(case.interval(at) / 3).max(1);
    }
    Ok(())
}

/// All properties of a case; what is violated.
fn check_case(seed: u64, tally: &mut Tally) -> Result<(), String> {
    let case = Case::new(seed);
    for intervals in [2, 4, 10, 20] {
        let window = intervals * case.intervals[0].1;
        check(&case, window, tally)
            .and_then(|()| check_begin(&case, window, seed, tally))
            .map_err(|text| format!("seed {seed}, {intervals} intervals: {text}"))?;
    }
    let uneven = case.uneven(seed);
    if uneven.histograms {
        return Ok(());
    }
    for intervals in [2, 10] {
        let window = intervals * uneven.intervals[0].1;
        check_growth(&uneven, window)
            .and_then(|()| match uneven.has_levels() && uneven.longest_absence() > block(window) {
                // What a replica had before a long absence is not read again.
                true => Ok(()),
                false => check_begin(&uneven, window, seed, tally),
            })
            .map_err(|text| format!("seed {seed}, {intervals} intervals, uneven: {text}"))?;
    }
    Ok(())
}

#[test]
fn random_replicas_are_deduplicated_as_the_true_series_demands() {
    let cases = std::env::var("ISTHMUS_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(200);
    let mut tally = Tally::default();
    let violations: Vec<String> = (0..cases).filter_map(|seed| check_case(seed, &mut tally).err()).collect();
    violations.iter().for_each(|text| println!("{text}"));
    println!("{tally:#?}");
    assert!(violations.is_empty(), "{} of {cases} cases", violations.len());
}

/// The interval is that of the true series, if some replica keeps half of its samples, but for the last scrapes before it
/// becomes shorter or the data ends.
#[test]
fn the_interval_of_scrapes_is_learnt_although_samples_are_lost() {
    let mut samples = 0;
    for seed in 0..300 {
        let case = Case::new(seed);
        let half = case.kept.iter().zip(&case.scrapes).filter(|(kept, all)| 2 * kept.len() > all.len());
        if half.count() == 0 || case.intervals.len() > 1 {
            continue;
        }
        let interval = case.intervals[0].1;
        for learnt in learnt(&case, block(2 * interval)) {
            if learnt.time > case.end - 40 * interval {
                continue;
            }
            samples += 1;
            let range = interval / 4 * 3..=interval / 4 * 5;
            assert!(
                range.contains(&learnt.shortest) && range.contains(&learnt.longest),
                "seed {seed}: {interval} {} {}",
                learnt.shortest,
                learnt.longest
            );
        }
    }
    assert!(samples > 10_000, "{samples}");
}
