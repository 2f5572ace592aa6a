//! When a group is evaluated.

use std::sync::Arc;
use std::time::Duration;

use model::Timestamp;
use rules::Schedule;
use runtime::Shutdown;

use crate::evaluation::{Evaluator, RunningGroup};
use crate::now::now;

/// Evaluates a group at each instant of its schedule until `stop`. An evaluation that takes too long leaves out those that it overlaps.
pub(crate) async fn keep_evaluating(evaluator: Arc<Evaluator>, running: Arc<RunningGroup>, stop: Shutdown) {
    let schedule = running.group().schedule();
    let mut at = schedule.after(now());
    running.metrics.due(0);
    loop {
        if stop.until_triggered(until(at, schedule.interval())).await.is_none() {
            return;
        }
        let left = now().millis_since(at.offset_millis(millis(schedule.interval())));
        let left = Duration::from_millis(u64::try_from(-left).unwrap_or(0));
        evaluator.evaluate(&running, at, left, &stop).await;
        let Some(next) = stop.until_triggered(next(&schedule, at)).await else { return };
        running.metrics.due(next.1);
        running.problems().due(next.1);
        at = next.0;
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// Waits until the time of day is `at`, or has jumped back by more than an interval.
async fn until(at: Timestamp, interval: Duration) {
    loop {
        let left = at.millis_since(now());
        if left <= 0 || left > millis(interval).saturating_mul(2) {
            return;
        }
        // The time of day may jump, so it is read again after a while.
        let left = Duration::from_millis(left.unsigned_abs());
        tokio::time::sleep(left.min(Duration::from_secs(10))).await;
    }
}

/// Waits for the evaluation after that of `last`: its instant, and how many were left out.
async fn next(schedule: &Schedule, last: Timestamp) -> (Timestamp, u64) {
    let interval = millis(schedule.interval());
    loop {
        let time = now();
        if let Some(next) = schedule.next(last, time) {
            return (next.at, next.missed);
        }
        if last.millis_since(time) > interval {
            // The time of day has jumped back. Its samples are refused until it has caught up, which rules then report.
            return (schedule.after(time), 0);
        }
        until(last.offset_millis(interval), schedule.interval()).await;
    }
}
