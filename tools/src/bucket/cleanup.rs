//! `tools bucket cleanup`: removes blocks whose deletion mark is old enough, and uploads that were given up.
//!
//! The rules are those of the compactor. Blocks with a `meta.json` that cannot be read are reported and never
//! removed: one flipped bit must not cost weeks of data.

use std::time::Duration;

use ::bucket::marks::{self, MarkKind, MarkState};
use ::bucket::{Bucket, PartialVerdict, Retry, delete_block, judge_partial, store_time};
use model::Timestamp;
use runtime::parse_duration;
use tsdb::Ulid;

use super::select::RelabelFlags;
use super::view;
use crate::error::{Outcome, Result};
use crate::output::{Cell, Output, Table, TableFormat};
use crate::progress::{Progress, Unit};
use crate::text;

/// Flags of `tools bucket cleanup`.
#[derive(Debug, clap::Args)]
pub(crate) struct CleanupArgs {
    /// How long a block stays after it was marked for deletion
    #[arg(long, value_name = "DURATION", default_value = "48h", value_parser = parse_duration)]
    delete_delay: Duration,

    /// How long an upload may rest before it counts as given up; 48h where less is given
    #[arg(long, value_name = "DURATION", default_value = "30m", value_parser = parse_duration)]
    consistency_delay: Duration,

    /// Says what would be removed, and removes nothing
    #[arg(long)]
    dry_run: bool,

    /// Form of the report
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value = "table")]
    output: TableFormat,

    #[command(flatten)]
    relabel: RelabelFlags,

    #[command(flatten)]
    view: view::ViewFlags,
}

pub(super) async fn run(args: CleanupArgs, bucket: &Bucket, output: &mut Output) -> Result<Outcome> {
    let mut options = view::all(false);
    options.filters.selector = args.relabel.load()?;
    options.gather = vec![MarkKind::Deletion];
    let view = args.view.fetch(bucket, options).await?;
    // Ages count by the store's clock, which is read by writing an object; a dry run writes nothing.
    let nothing_ages = view.marks.is_empty() && view.partial.is_empty();
    let now = if args.dry_run || nothing_ages { text::now() } else { store_time(bucket).await? };

    let mut due = Vec::new();
    let mut report = Report::new(args.dry_run);
    for (id, mark) in
        view.marks.iter().filter(|((kind, _), _)| *kind == MarkKind::Deletion).map(|((_, id), m)| (*id, m))
    {
        match due_in(mark.age(now), args.delete_delay) {
            None => {
                due.push((id, "marked", format!("marked at {}{}", text::instant(mark.time), details(mark))))
            }
            Some(left) => report.keep(id, "marked", format!("for another {}", text::whole_seconds(left))),
        }
    }
    for id in &view.partial {
        match judge(*id, &args, bucket, now).await? {
            Ok(why) => due.push((*id, "partial", why)),
            Err(why) => report.keep(*id, "partial", why),
        }
    }
    for (id, reason) in &view.corrupt {
        report.keep(*id, "corrupt", format!("{reason}: look at it; it is never removed by itself"));
    }

    let progress = Progress::new("remove", Unit::Count("blocks"), due.len() as u64);
    for (id, what, why) in due {
        progress.at(id.to_string());
        if args.dry_run {
            report.push(id, what, "would be removed", why);
        } else {
            match delete_block(bucket, id, Retry::default()).await {
                Ok(_) => report.push(id, what, "removed", why),
                // The blocks removed so far are worth telling.
                Err(error) => {
                    progress.finish();
                    output.table(&report.table, args.output)?;
                    return Err(error.into());
                }
            }
        }
        progress.add(1);
    }
    progress.finish();
    output.table(&report.table, args.output)?;
    Ok(if view.corrupt.is_empty() { Outcome::Fine } else { Outcome::Found })
}

/// How long something of this age still stays; `None` when its time has come.
fn due_in(age: Duration, delay: Duration) -> Option<Duration> {
    if age > delay { None } else { Some(delay - age) }
}

fn details(mark: &marks::Mark) -> String {
    mark.details.as_deref().map(|details| format!(": {details}")).unwrap_or_default()
}

/// Whether a block without `meta.json` is to be removed (and why), or stays (and why).
async fn judge(
    id: Ulid,
    args: &CleanupArgs,
    bucket: &Bucket,
    now: Timestamp,
) -> Result<std::result::Result<String, String>> {
    // A removal that was interrupted: the mark goes last, so that it can be ended.
    match marks::read(bucket, id, MarkKind::Deletion).await? {
        MarkState::Marked(mark) => {
            return Ok(match due_in(mark.age(now), args.delete_delay) {
                None => Ok(format!("its removal was interrupted; marked at {}", text::instant(mark.time))),
                Some(left) => Err(format!("marked; for another {}", text::whole_seconds(left))),
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
                None => Ok(format!("nothing was written since {}", text::instant(newest))),
                Some(left) => Err(format!("for another {}", text::whole_seconds(left))),
            }
        }
    })
}

/// What becomes of each block.
struct Report {
    table: Table,
    kept: &'static str,
}

impl Report {
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
            Cell::text(id.to_string()),
            Cell::text(state),
            Cell::text(result),
            Cell::text(why),
        ]);
    }
}
