//! `tools bucket mark`: put marks on blocks, or take them away.

use ::bucket::Bucket;
use ::bucket::marks::{self, Mark, MarkKind, MarkState};
use tsdb::Ulid;

use crate::error::{Cause, Outcome, Result, ToolError};
use crate::output::Output;
use crate::text;

/// Flags of `tools bucket mark`.
#[derive(Debug, clap::Args)]
pub(crate) struct MarkArgs {
    /// Block to mark (repeatable)
    #[arg(long, value_name = "ULID", required = true, value_parser = text::block_id)]
    id: Vec<Ulid>,

    /// Which mark
    #[arg(long, value_name = "MARK", value_enum)]
    marker: Marker,

    /// Why, for whoever finds the mark; needed unless marks are removed
    #[arg(long, value_name = "TEXT", required_unless_present = "remove")]
    details: Option<String>,

    /// Takes the mark away instead
    #[arg(long)]
    remove: bool,

    /// Says what would be done, and does nothing
    #[arg(long)]
    dry_run: bool,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Marker {
    /// The compactor deletes the block after its delete delay
    #[value(name = "deletion-mark.json")]
    Deletion,
    /// The block is left out of compaction
    #[value(name = "no-compact-mark.json")]
    NoCompact,
    /// The block is not downsampled
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

pub(super) async fn run(args: MarkArgs, bucket: &Bucket, output: &mut Output) -> Result<Outcome> {
    let kind = args.marker.kind();
    // All are looked at before the first is marked: a typing error shall not do half of the work.
    for id in &args.id {
        let listing = bucket.list_dir(&id.to_string()).await?;
        if listing.dirs.is_empty() && listing.objects.is_empty() {
            return Err(ToolError::new(
                Cause::Missing,
                format!("block {id} is not in bucket {:?}: nothing was marked", bucket.name()),
            ));
        }
    }
    for id in args.id {
        let line = match (args.remove, args.dry_run) {
            (false, false) => {
                let mut mark = Mark::new(kind, id, text::now());
                mark.details = args.details.clone();
                match marks::create(bucket, &mark).await? {
                    MarkState::Marked(standing) if standing == mark => format!("{id}: {kind} made"),
                    standing => describe(id, kind, &standing),
                }
            }
            (true, false) => match marks::read(bucket, id, kind).await? {
                MarkState::Absent => format!("{id}: has no {kind}"),
                _ => {
                    marks::remove(bucket, id, kind).await?;
                    format!("{id}: {kind} removed")
                }
            },
            (remove, true) => match marks::read(bucket, id, kind).await? {
                MarkState::Absent if remove => format!("{id}: has no {kind}"),
                MarkState::Absent => format!("{id}: {kind} would be made"),
                _ if remove => format!("{id}: {kind} would be removed"),
                standing => describe(id, kind, &standing),
            },
        };
        output.line(line)?;
    }
    Ok(Outcome::Fine)
}

/// A mark that was there before.
fn describe(id: Ulid, kind: MarkKind, standing: &MarkState) -> String {
    match standing {
        MarkState::Marked(mark) => {
            let details = mark.details.as_deref().map(|text| format!(": {text}")).unwrap_or_default();
            format!("{id}: has {kind} since {}{details}", text::instant(mark.time))
        }
        MarkState::Unusable(reason) => format!("{id}: has a {kind} that cannot be used: {reason}"),
        MarkState::Absent => format!("{id}: has no {kind}"),
    }
}
