//! The contract of a store, as a suite of tests that every implementer runs.
//!
//! ```
//! # use std::sync::Arc;
//! # use storeapi::{Store, acceptance, memory::MemoryStore};
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! acceptance::run(|dataset| async move {
//!     let store = MemoryStore::from_samples(dataset.external, dataset.series).unwrap();
//!     (Arc::new(store) as Arc<dyn Store>, ())
//! })
//! .await;
//! # }
//! ```
//!
//! A failing case panics with its name and the answer. StoreAPI is interpreted as Thanos 0.43 does.

mod cases;
mod labels;

use std::future::Future;
use std::sync::Arc;

use model::{Labels, Sample};

use crate::Store;

/// Time of the first sample of the data set, in milliseconds since the epoch; a multiple of two hours.
pub const START_MILLIS: i64 = 1_699_999_200_000;
/// Distance between two samples in milliseconds.
pub const INTERVAL_MILLIS: i64 = 15_000;
/// Samples of each series: enough for several chunks.
pub const SAMPLES: usize = 300;

/// The data that a store is filled with.
#[derive(Clone, Debug)]
pub struct Dataset {
    /// The external labels that the store attaches.
    pub external: Labels,
    /// Its series under their own labels, each with samples in order of time.
    pub series: Vec<(Labels, Vec<Sample>)>,
}

/// Runs all cases. `load` puts a data set into the implementation. It returns the store, and a value that is dropped after
/// the store. It is called twice: with the data of the suite, and without series.
pub async fn run<F, Fut, Guard>(load: F)
where
    F: Fn(Dataset) -> Fut,
    Fut: Future<Output = (Arc<dyn Store>, Guard)>,
{
    let dataset = dataset();
    let (store, guard) = load(dataset.clone()).await;
    cases::all(&*store, &dataset).await;
    labels::all(&*store, &dataset).await;
    drop((store, guard));
    let (store, guard) = load(Dataset { external: dataset.external.clone(), series: Vec::new() }).await;
    cases::empty(&*store).await;
    drop((store, guard));
}

fn labels_of(pairs: &[(&str, &str)]) -> Labels {
    Labels::from_pairs(pairs.iter().copied()).expect("the suite's labels are well formed")
}

/// The data of the suite: a few series, chosen for their labels.
pub fn dataset() -> Dataset {
    let external = labels_of(&[("cluster", "eu-1"), ("environment", "test"), ("replica", "a")]);
    let sets: [&[(&str, &str)]; 12] = [
        &[("__name__", "requests_total"), ("instance", "i-0"), ("job", "api")],
        &[("__name__", "requests_total"), ("instance", "i-1"), ("job", "api")],
        &[("__name__", "requests_total"), ("instance", "i-10"), ("job", "api")],
        &[("__name__", "requests_total"), ("instance", "i-2"), ("job", "db")],
        // With `replica` in place the second comes first ("quorum" < "replica"); without it, the first does.
        &[("__name__", "sorts"), ("job", "api")],
        &[("__name__", "sorts"), ("job", "api"), ("quorum", "1")],
        &[("__name__", "sorts"), ("job", "api"), ("zone", "z")],
        // Series that are equal but for labels that a request may ask to remove.
        &[("__name__", "twins"), ("job", "api"), ("pod", "p-1")],
        &[("__name__", "twins"), ("job", "api"), ("pod", "p-2")],
        // Its own labels differ from the external labels, which win.
        &[("__name__", "shadowed"), ("cluster", "liar"), ("job", "api")],
        // Text that is not ASCII, and characters that need escapes.
        &[("__name__", "text"), ("job", "a\"b\\c\nd"), ("word", "größe→")],
        &[("__name__", "up"), ("job", "api")],
    ];
    let samples = |offset: usize| -> Vec<Sample> {
        let sample = |i: usize| {
            Sample::new(START_MILLIS + i as i64 * INTERVAL_MILLIS, (offset * 1000 + i) as f64 / 4.0)
        };
        (0..SAMPLES).map(sample).collect()
    };
    let series = sets.iter().enumerate().map(|(i, set)| (labels_of(set), samples(i))).collect();
    Dataset { external, series }
}
