//! `tools bucket cleanup`: removes blocks whose deletion mark is old enough, and abandoned uploads.
//!
//! The rules are those of the compactor. Blocks whose `meta.json` cannot be used are reported and never removed: one
//! flipped bit must not cost weeks of data.

use std::time::Duration;

use ::bucket::marks::{self, MarkKind, MarkState};
use ::bucket::{
    Bucket, PartialVerdict, Retry, delete_block, delete_partial, deletions, judge_partial, store_time,
};
use model::Timestamp;
use runtime::parse_duration;
use tsdb::Ulid;

use crate::bucket::select::RelabelFlags;
use crate::bucket::view;
use crate::error::{CommandOutcome, Result};
use crate::output::{Output, Table, TableCell, TableFormat};
use crate::progress::{TaskProgress, Unit};
use crate::text;

/// Flags of `tools bucket cleanup`.
#[derive(Debug, clap::Args)]
pub(crate) struct CleanupArgs {
    /// Time between marking a block for deletion and removing it
    #[arg(long, value_name = "DURATION", default_value = "48h", value_parser = parse_duration)]
    delete_delay: Duration,

    /// Time without a new object after which an upload counts as abandoned; less than 48h counts as 48h
    #[arg(long, value_name = "DURATION", default_value = "30m", value_parser = parse_duration)]
    consistency_delay: Duration,

    /// Print what would be removed, and remove nothing
    #[arg(long)]
    dry_run: bool,

    /// Format of the report
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value = "table")]
    output: TableFormat,

    #[command(flatten)]
    relabel: RelabelFlags,

    #[command(flatten)]
    view: view::ViewFlags,
}

pub(super) async fn run(args: CleanupArgs, bucket: &Bucket, output: &mut Output) -> Result<CommandOutcome> {
    let mut options = view::all(false);
    options.filters.selector = args.relabel.load()?;
    options.gather = vec![MarkKind::Deletion];
    let view = args.view.fetch(bucket, options).await?;
    // Ages are measured by the store's clock, which is read by writing an object. A dry run writes nothing and uses the
    // clock of this machine.
    let nothing_ages = view.marks.is_empty() && view.partial.is_empty();
    let now = if args.dry_run || nothing_ages { text::now() } else { store_time(bucket).await? };

    let mut due = Vec::new();
    let mut report = CleanupReport::new(args.dry_run);
    for (id, mark) in
        view.marks.iter().filter(|((kind, _), _)| *kind == MarkKind::Deletion).map(|((_, id), m)| (*id, m))
    {
        match due_in(mark.age(now), args.delete_delay) {
            None => {
                let why = format!("marked at {}{}", text::instant(mark.time), details(mark));
                due.push((id, "marked", Due::Mark, why));
            }
            Some(left) => {
                report.keep(id, "marked", format!("removed in {} at the earliest", text::whole_seconds(left)))
            }
        }
    }
    for id in &view.partial {
        match judge(*id, &args, bucket, now).await? {
            Ok((rule, why)) => due.push((*id, "partial", rule, why)),
            Err(why) => report.keep(*id, "partial", why),
        }
    }
    for (id, reason) in &view.corrupt {
        report.keep(
            *id,
            "corrupt",
            format!("{reason}: it is never removed automatically; check it yourself"),
        );
    }

    if !args.dry_run {
        // Otherwise deletions that go over to merged blocks would be forgotten with the blocks that have them.
        deletions::carry(bucket, &view.deletions, &view.tombstones, || true, Retry::default()).await?;
    }
    let progress = TaskProgress::new("remove", Unit::Count("blocks"), due.len() as u64);
    for (id, what, rule, why) in due {
        progress.at(id.to_string());
        if args.dry_run {
            report.push(id, what, "would be removed", why);
        } else {
            match remove(id, rule, args.delete_delay, bucket, now).await {
                Ok(Ok(())) => report.push(id, what, "removed", why),
                Ok(Err(why)) => report.keep(id, what, why),
                // The results of earlier blocks are printed too.
                Err(error) => {
                    progress.finish();
                    output.table(&report.table, args.output)?;
                    return Err(error);
                }
            }
        }
        progress.add(1);
    }
    progress.finish();
    output.table(&report.table, args.output)?;
    Ok(if view.corrupt.is_empty() { CommandOutcome::Fine } else { CommandOutcome::Found })
}

/// The rule by which a block is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    /// Its deletion mark is old enough. Its removal may have begun already.
    Mark,
    /// Its upload was abandoned.
    Abandoned,
}

/// Removes a block if its rule still applies, otherwise returns why it is kept: since the first check, its upload may have
/// finished, or its mark may have been removed.
async fn remove(
    id: Ulid,
    rule: Due,
    delete_delay: Duration,
    bucket: &Bucket,
    now: Timestamp,
) -> Result<std::result::Result<(), String>> {
    match rule {
        Due::Abandoned => Ok(match delete_partial(bucket, id, now, Retry::default()).await? {
            PartialVerdict::Abandoned { .. } => Ok(()),
            PartialVerdict::Keep(why) => Err(why.to_owned()),
        }),
        Due::Mark => {
            match marks::load(bucket, id, MarkKind::Deletion).await? {
                MarkState::Marked(mark) => {
                    if let Some(left) = due_in(mark.age(now), delete_delay) {
                        return Ok(Err(format!(
                            "it was marked again; removed in {} at the earliest",
                            text::whole_seconds(left)
                        )));
                    }
                }
                MarkState::Unusable(reason) => {
                    return Ok(Err(format!("its deletion mark cannot be used: {reason}")));
                }
                MarkState::Absent => {
                    return Ok(Err("its deletion mark was removed meanwhile".to_owned()));
                }
            }
            delete_block(bucket, id, Retry::default()).await?;
            Ok(Ok(()))
        }
    }
}

/// Time until something of this age may be removed; `None` if it may be removed now.
fn due_in(age: Duration, delay: Duration) -> Option<Duration> {
    if age > delay { None } else { Some(delay - age) }
}

fn details(mark: &marks::Mark) -> String {
    mark.details.as_deref().map(|details| format!(": {details}")).unwrap_or_default()
}

/// Whether a block without `meta.json` is removed, by which rule and why; or why it is kept.
async fn judge(
    id: Ulid,
    args: &CleanupArgs,
    bucket: &Bucket,
    now: Timestamp,
) -> Result<std::result::Result<(Due, String), String>> {
    // After an interrupted removal the mark still exists, because it is removed last.
    match marks::load(bucket, id, MarkKind::Deletion).await? {
        MarkState::Marked(mark) => {
            return Ok(match due_in(mark.age(now), args.delete_delay) {
                None => {
                    let since = text::instant(mark.time);
                    Ok((Due::Mark, format!("its removal was interrupted; marked at {since}")))
                }
                Some(left) => {
                    Err(format!("marked; removed in {} at the earliest", text::whole_seconds(left)))
                }
            });
        }
        MarkState::Unusable(reason) => return Ok(Err(format!("its deletion mark cannot be used: {reason}"))),
        MarkState::Absent => {}
    }
    Ok(match judge_partial(bucket, id, now).await? {
        PartialVerdict::Keep(why) => Err(why.to_owned()),
        PartialVerdict::Abandoned { newest } => {
            let age = Duration::from_millis(u64::try_from(now.millis_since(newest)).unwrap_or(0));
            match due_in(age, args.consistency_delay) {
                None => Ok((Due::Abandoned, format!("nothing was written since {}", text::instant(newest)))),
                Some(left) => Err(format!("removed in {} at the earliest", text::whole_seconds(left))),
            }
        }
    })
}

/// The result for each block.
struct CleanupReport {
    table: Table,
    kept: &'static str,
}

impl CleanupReport {
    fn new(dry_run: bool) -> Self {
        let table =
            Table::new(&[("BLOCK", "block"), ("STATE", "state"), ("RESULT", "result"), ("WHY", "why")]);
        Self { table, kept: if dry_run { "would be kept" } else { "kept" } }
    }

    fn keep(&mut self, id: Ulid, state: &str, why: String) {
        self.push(id, state, self.kept, why);
    }

    fn push(&mut self, id: Ulid, state: &str, result: &str, why: String) {
        self.table.push(vec![
            TableCell::text(id.to_string()),
            TableCell::text(state),
            TableCell::text(result),
            TableCell::text(why),
        ]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::bucket::marks::Mark;
    use ::bucket::{BucketConfig, BucketMetrics, layout};

    async fn bucket(dir: &tempfile::TempDir) -> Bucket {
        let config = format!("{{type: FILESYSTEM, config: {{directory: {:?}}}}}", dir.path());
        BucketConfig::parse(&config).unwrap().open(&BucketMetrics::default()).unwrap()
    }

    fn block() -> Ulid {
        tsdb::parse_block_id("01JGG764R0QENP71C7C19NMGE9").unwrap()
    }

    async fn put(bucket: &Bucket, file: &str) {
        bucket.put(&layout::block_file(block(), file), "x".into()).await.unwrap();
    }

    /// The store's time in so many hours.
    async fn in_hours(bucket: &Bucket, hours: i64) -> Timestamp {
        store_time(bucket).await.unwrap().offset_millis(hours * 3_600_000)
    }

    #[tokio::test]
    async fn an_upload_that_finishes_after_the_check_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let bucket = bucket(&dir).await;
        put(&bucket, "index").await;
        let now = in_hours(&bucket, 49).await;
        let judged = judge_partial(&bucket, block(), now).await.unwrap();
        assert!(matches!(judged, PartialVerdict::Abandoned { .. }), "{judged:?}");
        put(&bucket, "meta.json").await;
        let removed = remove(block(), Due::Abandoned, Duration::ZERO, &bucket, now).await.unwrap();
        assert_eq!(removed, Err("it has a meta.json".to_owned()));
        assert_eq!(bucket.list_all(&block().to_string()).await.unwrap().len(), 2);
    }

    #[tokio::test]
    async fn a_mark_that_is_removed_or_renewed_after_the_check_keeps_its_block() {
        let dir = tempfile::tempdir().unwrap();
        let bucket = bucket(&dir).await;
        put(&bucket, "index").await;
        put(&bucket, "meta.json").await;
        let now = in_hours(&bucket, 0).await;
        let delay = Duration::from_secs(48 * 3600);
        let try_to = async || remove(block(), Due::Mark, delay, &bucket, now).await.unwrap();
        assert!(try_to().await.unwrap_err().contains("was removed meanwhile"));
        marks::create(&bucket, &Mark::new(MarkKind::Deletion, block(), now)).await.unwrap();
        assert!(try_to().await.unwrap_err().contains("marked again; removed in"));
        assert_eq!(bucket.list_all(&block().to_string()).await.unwrap().len(), 3);
        marks::remove(&bucket, block(), MarkKind::Deletion).await.unwrap();
        let old = Mark::new(MarkKind::Deletion, block(), now.offset_millis(-49 * 3_600_000));
        marks::create(&bucket, &old).await.unwrap();
        try_to().await.unwrap();
        assert!(bucket.list_all(&block().to_string()).await.unwrap().is_empty());
    }
}
