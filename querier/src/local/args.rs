//! The flags of queries over one store, with the names of Prometheus.

use std::time::Duration;

use runtime::{ConfigMistakes, parse_duration};

use crate::config::Feature;
use crate::memory;

/// `--query.*`.
#[derive(Clone, Debug, clap::Args)]
pub struct LocalQueryArgs {
    /// Cancel queries that take longer, including the time that they wait for a free slot; requests may ask
    /// for less
    #[arg(long = "query.timeout", value_name = "DURATION", default_value = "2m", value_parser = parse_duration)]
    timeout: Duration,

    /// Ignore samples older than this in instant selectors
    #[arg(long = "query.lookback-delta", value_name = "DURATION", default_value = "5m", value_parser = parse_duration)]
    lookback_delta: Duration,

    /// Run at most this many queries at the same time; further queries wait
    #[arg(long = "query.max-concurrency", value_name = "N", default_value_t = 20)]
    max_concurrency: usize,

    /// Reject queries that decode more samples than this
    #[arg(long = "query.max-samples", value_name = "N", default_value_t = 50_000_000)]
    max_samples: u64,

    /// Reject queries that need more memory than this, including series that are read ahead; a quarter of
    /// --query.max-total-memory if not set
    #[arg(long = "query.max-memory", value_name = "BYTES", value_parser = runtime::parse_bytes)]
    max_memory: Option<u64>,

    /// Reject a query when all queries together would need more memory than this; a quarter of the memory of
    /// the machine or container if not set
    #[arg(long = "query.max-total-memory", value_name = "BYTES", value_parser = runtime::parse_bytes)]
    max_total_memory: Option<u64>,
}

/// The checked flags.
#[derive(Clone, Debug)]
pub struct CheckedLocalQueryArgs {
    pub(crate) timeout: Duration,
    pub(crate) lookback_delta: Duration,
    pub(crate) max_concurrency: usize,
    pub(crate) max_samples: u64,
    pub(crate) max_total_samples: u64,
    pub(crate) max_memory: u64,
    pub(crate) max_total_memory: u64,
    pub(crate) features: Vec<Feature>,
}

impl LocalQueryArgs {
    /// Checks the flags together. `features` are the features of queries that are enabled.
    ///
    /// # Errors
    /// One line for each flag whose value cannot be used.
    pub fn check(&self, features: Vec<Feature>) -> Result<CheckedLocalQueryArgs, ConfigMistakes> {
        let mut mistakes = ConfigMistakes::default();
        for (flag, length) in
            [("--query.timeout", self.timeout), ("--query.lookback-delta", self.lookback_delta)]
        {
            if length.is_zero() {
                mistakes.push(format!("{flag}=0s: must be greater than zero"));
            }
        }
        if self.max_concurrency == 0 {
            mistakes.push("--query.max-concurrency=0: must be at least 1");
        }
        // Half of what a querier takes: the head needs memory, too.
        let max_total_memory = self.max_total_memory.unwrap_or_else(|| memory::for_all_queries() / 2);
        mistakes.or_ok(CheckedLocalQueryArgs {
            timeout: self.timeout,
            lookback_delta: self.lookback_delta,
            max_concurrency: self.max_concurrency,
            max_samples: self.max_samples,
            max_total_samples: self.max_samples.saturating_mul(5),
            max_memory: self.max_memory.unwrap_or_else(|| memory::for_one_query(max_total_memory)),
            max_total_memory,
            features,
        })
    }
}

impl CheckedLocalQueryArgs {
    /// The longest time of a query.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    pub(crate) fn has(&self, feature: Feature) -> bool {
        self.features.contains(&feature)
    }
}
