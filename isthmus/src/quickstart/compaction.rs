//! Checks that the compactor has merged and downsampled the history, and that the answers are still those of the blocks that were
//! written into the bucket.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::quickstart::demonstration::Demonstration;
use crate::quickstart::history::{INTERVAL, SAMPLES_OF_METRIC};
use crate::quickstart::period::{BLOCK, HistoryPeriod};
use crate::quickstart::querier::wait_for;
use crate::quickstart::seeded::{COUNTER, GAUGE, SeededAnswers};

/// How long the compactor may take for the history.
const COMPACTION: Duration = Duration::from_secs(180);
/// Seconds between the points of the finest downsampled data.
const FIVE_MINUTES: i64 = 300;

/// A block that the store serves.
struct ServedBlock {
    id: String,
    level: u64,
}

/// Waits until the store serves one raw block for the window of two days, and asks for its samples.
pub(super) async fn compacted(demonstration: &Demonstration) -> Result<String> {
    let block = wait_for("one block of two days", COMPACTION, || only_block(demonstration, 0)).await?;
    ensure!(block.level >= 2, "block {} has compaction level {}", block.id, block.level);
    let (before, plan) = (before(demonstration)?, demonstration.plan());
    let after = SeededAnswers::ask(&demonstration.querier(), plan, "").await?;
    let expected = SAMPLES_OF_METRIC as f64;
    ensure!(
        after.samples.iter().all(|samples| *samples == expected),
        "{COUNTER} has {:?} samples in two hours, expected {expected}",
        after.samples
    );
    after.check_equal(before)?;
    let blocks = plan.history.blocks_of_window();
    Ok(format!(
        "{blocks} blocks of 2h became block {} of 2d with level {}: {expected} samples of {COUNTER} in each 2h as before, sums and \
         maxima of {GAUGE} are unchanged",
        block.id, block.level
    ))
}

/// Waits until the store serves a block of 5 minutes for the window of two days, and asks for it.
pub(super) async fn downsampled(demonstration: &Demonstration) -> Result<String> {
    let resolution = FIVE_MINUTES * 1000;
    let block = wait_for("a block of 5m", COMPACTION, || only_block(demonstration, resolution)).await?;
    let (before, plan) = (before(demonstration)?, demonstration.plan());
    let coarse = SeededAnswers::ask(&demonstration.querier(), plan, "&max_source_resolution=5m").await?;
    let expected = (SAMPLES_OF_METRIC * INTERVAL / FIVE_MINUTES) as f64;
    ensure!(
        coarse.samples.iter().all(|points| *points == expected),
        "{COUNTER} has {:?} points of 5m in two hours, expected {expected}",
        coarse.samples
    );
    coarse.check_equal(before)?;
    let info =
        coarse.infos.iter().find(|info| info.contains("5m")).with_context(|| {
            format!("the querier does not say that it used data of 5m: {:?}", coarse.infos)
        })?;
    Ok(format!(
        "block {}: {expected} points of {COUNTER} in each 2h, sums and maxima of {GAUGE} are those of the raw samples; info: {info}",
        block.id
    ))
}

/// The answers before the compactor was started.
fn before(demonstration: &Demonstration) -> Result<&SeededAnswers> {
    demonstration.seeded().context("the compactor was not started")
}

/// The block of a resolution in milliseconds that has the whole window of two days, if there is no other one in it.
async fn only_block(demonstration: &Demonstration, resolution: i64) -> Result<ServedBlock> {
    let HistoryPeriod { begin, window_end, .. } = demonstration.plan().history;
    let body = demonstration.store_blocks().await?;
    let metas = body["data"]["blocks"].as_array().context("the store lists no blocks")?;
    let time = |meta: &Value, name: &str| meta[name].as_i64().unwrap_or(0) / 1000;
    let resolution_of = |meta: &Value| meta["thanos"]["downsample"]["resolution"].as_i64().unwrap_or(0);
    let in_window = |meta: &&Value| time(meta, "minTime") < window_end && time(meta, "maxTime") > begin;
    let found: Vec<&Value> =
        metas.iter().filter(in_window).filter(|meta| resolution_of(meta) == resolution).collect();
    let [meta] = found[..] else {
        anyhow::bail!("the store serves {} such blocks, expected one", found.len());
    };
    let length = time(meta, "maxTime").min(window_end) - time(meta, "minTime").max(begin);
    // The last point of a downsampled block may be before the end of its last window.
    ensure!(length > window_end - begin - BLOCK, "the block has {length} seconds of the window");
    Ok(ServedBlock {
        id: meta["ulid"].as_str().unwrap_or_default().to_owned(),
        level: meta["compaction"]["level"].as_u64().unwrap_or(0),
    })
}
