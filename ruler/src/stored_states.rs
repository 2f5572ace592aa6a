//! The stored states of alerts in the data folder of this ruler.

use localstore::LocalStore;
use model::Timestamp;
use rules::{RestoreQuery, StoredState};
use series::{ChunkSampleValue, decode_chunk};
use storeapi::{SeriesRequest, Store, collect_series};

/// The last sample of each series that a query selects, also staleness markers.
///
/// # Errors
/// The folder cannot be read.
pub(crate) async fn stored_states(
    store: &LocalStore,
    query: &RestoreQuery,
) -> Result<Vec<StoredState>, String> {
    let request = SeriesRequest::new(query.range, query.matchers.clone());
    let stream = store.series(request).await.map_err(|why| why.to_string())?;
    let (found, _) = collect_series(stream).await.map_err(|why| why.to_string())?;
    let mut states = Vec::with_capacity(found.len());
    for series in found {
        let mut last: Option<(Timestamp, f64)> = None;
        // Chunks of the head and of a block may overlap.
        for chunk in series.chunks.iter().filter_map(|chunk| chunk.raw.as_ref()) {
            let mut samples = Vec::new();
            decode_chunk(chunk, &mut samples).map_err(|why| format!("series {}: {why}", series.labels))?;
            for sample in samples.iter().filter(|sample| query.range.contains(sample.at)) {
                if let ChunkSampleValue::Float(value) = sample.value
                    && last.is_none_or(|(at, _)| sample.at > at)
                {
                    last = Some((sample.at, value));
                }
            }
        }
        states.extend(last.map(|(at, value)| StoredState { labels: series.labels.clone(), at, value }));
    }
    Ok(states)
}
