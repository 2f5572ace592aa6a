//! What each operator of a plan did: series, samples, memory and time. Time and counts are measured only on request.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use budget::Meter;

use crate::explain::OperatorStats;
use crate::value::column::Row;

/// Returns the time since some fixed instant. The engine has no clock; a driver that measures passes one.
pub type Clock = fn() -> Duration;

/// What one operator did so far.
#[derive(Debug, Default)]
pub(crate) struct OperatorMeter {
    series: AtomicU64,
    samples: AtomicU64,
    nanos: AtomicU64,
    memory: Meter,
}

/// The meters of all operators, in the order of the plan.
#[derive(Debug)]
pub(crate) struct Meters {
    clock: Option<Clock>,
    nodes: Vec<OperatorMeter>,
}

impl Meters {
    /// Meters for `nodes` operators; without a clock only the memory is metered.
    pub(crate) fn new(nodes: usize, clock: Option<Clock>) -> Self {
        Self { clock, nodes: (0..nodes).map(|_| OperatorMeter::default()).collect() }
    }

    /// Whether time and counts are measured.
    pub(crate) fn is_on(&self) -> bool {
        self.clock.is_some()
    }

    /// What each operator did.
    pub(crate) fn measured(&self) -> Vec<OperatorStats> {
        self.nodes.iter().map(OperatorMeter::measured).collect()
    }

    /// The meter of an operator.
    pub(crate) fn of(&self, node: usize) -> &OperatorMeter {
        &self.nodes[node]
    }

    /// Starts a timer.
    pub(crate) fn timer(&self) -> OperatorTimer {
        OperatorTimer { clock: self.clock, last: self.clock.map(|clock| clock()).unwrap_or_default() }
    }

    /// Counts the series of an operator's output, and their values.
    pub(crate) fn output(&self, node: usize, rows: &[Row]) {
        if self.is_on() {
            let present =
                |row: &Row| (0..row.column.len()).filter(|step| row.column.has(*step)).count() as u64;
            self.nodes[node].count(rows.len() as u64, rows.iter().map(present).sum());
        }
    }
}

impl OperatorMeter {
    /// Counts series and samples.
    pub(crate) fn count(&self, series: u64, samples: u64) {
        self.series.fetch_add(series, Ordering::Relaxed);
        self.samples.fetch_add(samples, Ordering::Relaxed);
    }

    /// Its memory.
    pub(crate) fn memory(&self) -> &Meter {
        &self.memory
    }

    fn measured(&self) -> OperatorStats {
        OperatorStats {
            series: self.series.load(Ordering::Relaxed),
            samples: self.samples.load(Ordering::Relaxed),
            peak_bytes: self.memory.peak_bytes(),
            time: Duration::from_nanos(self.nanos.load(Ordering::Relaxed)),
        }
    }
}

/// Measures the time of one operator after the other.
#[derive(Debug)]
pub(crate) struct OperatorTimer {
    clock: Option<Clock>,
    last: Duration,
}

impl OperatorTimer {
    /// Adds the time since the last call, or since the start, to `meter`.
    #[inline]
    pub(crate) fn record(&mut self, meter: &OperatorMeter) {
        if let Some(clock) = self.clock {
            let now = clock();
            let nanos = now.saturating_sub(self.last).as_nanos();
            meter.nanos.fetch_add(u64::try_from(nanos).unwrap_or(u64::MAX), Ordering::Relaxed);
            self.last = now;
        }
    }
}
