//! `tools bucket mark`: adds marks to blocks, or removes them.

use ::bucket::Bucket;
use ::bucket::marks::{self, Mark, MarkKind, MarkState};
use tsdb::Ulid;

use crate::error::{Cause, CommandOutcome, Result, ToolError};
use crate::output::Output;
use crate::text;

/// Flags of `tools bucket mark`.
#[derive(Debug, clap::Args)]
pub(crate) struct MarkArgs {
    /// Block to mark (repeatable)
    #[arg(long, value_name = "ULID", required = true, value_parser = text::block_id)]
    id: Vec<Ulid>,

    /// Kind of mark
    #[arg(long, value_name = "MARK", value_enum)]
    marker: Marker,

    /// Reason for the mark, as text for people; required unless --remove is given
    #[arg(long, value_name = "TEXT", required_unless_present = "remove")]
    details: Option<String>,

    /// Remove the mark instead of adding it
    #[arg(long)]
    remove: bool,

    /// Print what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Marker {
    /// The compactor deletes the block after its delete delay
    #[value(name = "deletion-mark.json")]
    Deletion,
    /// The compactor does not compact the block
    #[value(name = "no-compact-mark.json")]
    NoCompact,
    /// The compactor does not downsample the block
    #[value(name = "no-downsample-mark.json")]
    NoDownsample,
}

impl Marker {
    fn kind(self) -> MarkKind {
        match self {
            Self::Deletion => MarkKind::Deletion,
            Self::NoCompact => MarkKind::NoCompact,
            Self::NoDownsample => MarkKind::NoDownsample,
        }
    }
}

pub(super) async fn run(args: MarkArgs, bucket: &Bucket, output: &mut Output) -> Result<CommandOutcome> {
    let kind = args.marker.kind();
    // All ids are checked before the first block is marked, so that a typing error changes nothing.
    for id in &args.id {
        let listing = bucket.list_dir(&id.to_string()).await?;
        if listing.dirs.is_empty() && listing.objects.is_empty() {
            return Err(ToolError::new(
                Cause::Missing,
                format!("block {id} is not in bucket {:?}: nothing was marked", bucket.name()),
            ));
        }
    }
    let mut changed = false;
    for id in args.id {
        let before = marks::load(bucket, id, kind).await?;
        changed |= (before == MarkState::Absent) != args.remove;
        let line = match (args.remove, args.dry_run) {
            (false, false) => {
                let mut mark = Mark::new(kind, id, text::now());
                mark.details = args.details.clone();
                match marks::create(bucket, &mark).await? {
                    MarkState::Marked(existing) if existing == mark => format!("{id}: {kind} created"),
                    existing => describe(id, kind, &existing),
                }
            }
            (true, false) => match before {
                MarkState::Absent => format!("{id}: has no {kind}"),
                _ => {
                    marks::remove(bucket, id, kind).await?;
                    format!("{id}: {kind} removed")
                }
            },
            (remove, true) => match before {
                MarkState::Absent if remove => format!("{id}: has no {kind}"),
                MarkState::Absent => format!("{id}: {kind} would be created"),
                _ if remove => format!("{id}: {kind} would be removed"),
                existing => describe(id, kind, &existing),
            },
        };
        output.line(line)?;
    }
    // A script must notice that the command had no effect.
    Ok(if changed { CommandOutcome::Fine } else { CommandOutcome::Found })
}

/// A mark that was there before.
fn describe(id: Ulid, kind: MarkKind, existing: &MarkState) -> String {
    match existing {
        MarkState::Marked(mark) => {
            let details = mark
                .details
                .as_deref()
                .map(|details| format!(": {}", text::printable(details, false)))
                .unwrap_or_default();
            format!("{id}: has {kind} since {}{details}", text::instant(mark.time))
        }
        MarkState::Unusable(reason) => format!("{id}: has a {kind} that cannot be used: {reason}"),
        MarkState::Absent => format!("{id}: has no {kind}"),
    }
}
