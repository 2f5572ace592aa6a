//! `tools bucket rewrite --salvage`: replaces damaged blocks of a bucket by what can be read of them.

use std::path::Path;

use ::bucket::{Bucket, DownloadError, DownloadOptions, Retry, deletions, download};
use tsdb::Ulid;

use crate::blocking::blocking;
use crate::bucket::rewrite::replace::{DONE_ALREADY, Replacement, mark_old, publish_new, replaced_already};
use crate::bucket::rewrite::{CHANGE_LOG, RewriteArgs, SOURCE, keep_change_log};
use crate::error::{CommandOutcome, DescribeAction, Result, ToolError};
use crate::folder::WorkingFolder;
use crate::output::{Output, TableFormat};
use crate::salvage::{SalvageOptions, Salvaged, new_id, salvage};

pub(super) async fn run(args: &RewriteArgs, bucket: &Bucket, output: &mut Output) -> Result<CommandOutcome> {
    let (mut table, mut outcome, mut failure) = (Salvaged::table(), CommandOutcome::Fine, None);
    for id in &args.id {
        match salvage_block(*id, args, bucket).await {
            Ok((done, new, result)) => {
                if args.output == TableFormat::Table {
                    done.lines().iter().try_for_each(|line| output.line(line))?;
                }
                if done.losses.is_any() {
                    outcome = CommandOutcome::Found;
                }
                table.push(done.row(&id.to_string(), new, result));
            }
            // The results of earlier blocks are printed too.
            Err(error) => {
                failure = Some(error);
                break;
            }
        }
    }
    if failure.is_none() || !table.is_empty() {
        output.table(&table, args.output)?;
    }
    failure.map_or(Ok(outcome), Err)
}

/// Salvages a block. Returns what was found, the id of the new block if there is one, and the result.
async fn salvage_block(
    id: Ulid,
    args: &RewriteArgs,
    bucket: &Bucket,
) -> Result<(Salvaged, Option<Ulid>, &'static str)> {
    let new = new_id(id);
    if replaced_already(id, new, bucket).await? {
        return Ok((Salvaged::default(), Some(new), DONE_ALREADY));
    }
    let folder = WorkingFolder::create(&args.tmp_dir, "salvage")?;
    let dir = folder.path().join(id.to_string());
    let found = fetch(id, bucket, &dir).await?;

    let log = match args.dry_run || !args.add_change_log {
        true => None,
        false => {
            let path = folder.path().join(CHANGE_LOG);
            let file = std::fs::File::create(&path).context(format_args!("write {}", path.display()))?;
            Some(std::io::BufWriter::new(file))
        }
    };
    let options = SalvageOptions { new, dry_run: args.dry_run, source: SOURCE, limit: args.limit, log };
    let (parent, prom_blocks) = (folder.path().to_owned(), args.prom_blocks);
    let mut done = blocking(move || {
        has_labels(&dir, id, prom_blocks)?;
        salvage(&dir, found, &parent, options)
    })
    .await?;
    let meta = match done.meta.take() {
        _ if done.problems == 0 => return Ok((done, None, "nothing to salvage: the block is good")),
        None => return Ok((done, None, "would be salvaged")),
        Some(meta) => meta,
    };
    deletions::copy(bucket, id, bucket, new, Retry::default()).await?;
    let was_there = publish_new(args, folder.path(), meta, bucket).await?;
    keep_change_log(args, folder.path(), new)?;
    let result = match args.delete_blocks {
        true => mark_old(id, Replacement::Block(new), bucket).await?,
        false if was_there => "done already",
        false => "salvaged",
    };
    Ok((done, Some(new), result))
}

/// Downloads a block. Differences from its manifest are problems of the block, which are returned; then it is downloaded as
/// it is.
async fn fetch(id: Ulid, bucket: &Bucket, dir: &Path) -> Result<Vec<String>> {
    let mut options = DownloadOptions::default();
    let problem = match download(bucket, id, dir, &options).await {
        Ok(_) => return Ok(Vec::new()),
        Err(error @ DownloadError::File { .. }) => error.to_string(),
        Err(error) => return Err(error.into()),
    };
    options.ignores_manifest = true;
    download(bucket, id, dir, &options).await?;
    Ok(vec![problem])
}

/// Checks that the block has external labels, without which only a Prometheus can use it.
fn has_labels(dir: &Path, id: Ulid, prom_blocks: bool) -> Result<()> {
    let bytes = std::fs::read(dir.join(tsdb::META_FILE)).context(format_args!("read {}", dir.display()))?;
    let labels = tsdb::BlockMeta::parse(&bytes).ok().and_then(|meta| meta.thanos).map(|thanos| thanos.labels);
    match prom_blocks || labels.is_none_or(|labels| !labels.is_empty()) {
        true => Ok(()),
        false => Err(ToolError::usage(format!(
            "block {id} has no external labels: use --prom-blocks to rewrite it nevertheless"
        ))),
    }
}
