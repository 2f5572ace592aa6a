//! `tools block salvage`: writes what can be read of a damaged block in a folder as a new block.

use std::path::PathBuf;

use tsdb::META_FILE;

use crate::block::place;
use crate::blocking::blocking;
use crate::error::{CommandOutcome, DescribeAction, Result};
use crate::output::{Output, TableFormat};
use crate::salvage::{SalvageOptions, Salvaged, new_id, salvage};

/// The `thanos.source` of salvaged blocks.
const SOURCE: &str = "block.salvage";

/// Flags of `tools block salvage`.
#[derive(Debug, clap::Args)]
pub(crate) struct SalvageArgs {
    /// Folder of the damaged block, which is not changed; for a block in a bucket, use `tools bucket rewrite --salvage`
    #[arg(value_name = "BLOCK")]
    block: PathBuf,

    /// Folder for the new block, which gets an id of its own; created if it does not exist
    #[arg(long, value_name = "DIR")]
    output_dir: PathBuf,

    /// Print what would be lost, and write nothing
    #[arg(long)]
    dry_run: bool,

    /// Number of problems, and of losses, that are printed; the table counts all of them
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: usize,

    /// Format of the report
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value = "table")]
    output: TableFormat,
}

pub(super) async fn run(args: SalvageArgs, output: &mut Output) -> Result<CommandOutcome> {
    if !args.block.join(META_FILE).exists() {
        return Err(place::no_block(&args.block));
    }
    if !args.dry_run {
        let doing = format_args!("--output-dir: create folder {}", args.output_dir.display());
        std::fs::create_dir_all(&args.output_dir).context(doing)?;
    }
    let (dir, parent) = (args.block.clone(), args.output_dir.clone());
    let (dry_run, limit) = (args.dry_run, args.limit);
    let (new, done) = blocking(move || {
        let old = std::fs::read(dir.join(META_FILE)).context(format_args!("read {}", dir.display()))?;
        let new = tsdb::BlockMeta::parse(&old).map(|meta| new_id(meta.ulid)).unwrap_or_default();
        let options = SalvageOptions { new, dry_run, source: SOURCE, limit, log: None };
        Ok((new, salvage(&dir, Vec::new(), &parent, options)?))
    })
    .await?;
    let (new, result) = match (done.problems == 0, args.dry_run) {
        (true, _) => (None, "nothing to salvage: the block is good"),
        (false, true) => (None, "would be salvaged"),
        (false, false) => (Some(new), "salvaged"),
    };
    if args.output == TableFormat::Table {
        done.lines().iter().try_for_each(|line| output.line(line))?;
    }
    let mut table = Salvaged::table();
    table.push(done.row(&args.block.display().to_string(), new, result));
    output.table(&table, args.output)?;
    Ok(if done.losses.is_any() { CommandOutcome::Found } else { CommandOutcome::Fine })
}
