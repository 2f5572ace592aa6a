//! `tools rules backfill`: writes blocks of what recording rules would have recorded in the past.

use std::path::{Path, PathBuf};
use std::time::Duration;

use model::Timestamp;
use promapi::{ClientOptions, PrometheusClient};
use rules::{RuleFile, RuleGroup, Schedule};
use runtime::{TimeArg, parse_duration};

use crate::error::{Cause, CommandOutcome, DescribeAction, Result, ToolError};
use crate::output::{Output, Table, TableCell, TableFormat};
use crate::progress::{TaskProgress, Unit};
use crate::rules::language::LanguageFlags;
use crate::rules::recorded::{RecordedRule, WindowSamples};
use crate::rules::report::{files, read};
use crate::text;

/// The length of each block, as Prometheus writes them.
const BLOCK: Duration = Duration::from_secs(2 * 3600);

/// Longest time that an answer may take.
const TIMEOUT: Duration = Duration::from_secs(300);

/// Flags of `tools rules backfill`.
#[derive(Debug, clap::Args)]
pub(crate) struct BackfillArgs {
    /// Rule files; the last part of a path may have * for any text. Alerting rules are left out
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,

    /// Prometheus, querier or other program with Prometheus' HTTP API that evaluates the expressions
    #[arg(long, value_name = "URL", default_value = "http://localhost:9090")]
    url: String,

    /// Start: RFC 3339, or relative to now, such as -30d
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    start: TimeArg,

    /// End: RFC 3339, or relative to now. A Prometheus or ruler that runs the rules has itself written what is newer than the
    /// default
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, default_value = "-3h")]
    end: TimeArg,

    /// Interval of groups that do not have one
    #[arg(long, value_name = "DURATION", default_value = "1m", value_parser = parse_duration)]
    eval_interval: Duration,

    /// Folder for the blocks; created if it does not exist
    #[arg(long, value_name = "DIR", default_value = "data")]
    output_dir: PathBuf,

    /// External label of the blocks, as of the ruler that is to have them (repeatable). Needed to upload them
    #[arg(long, value_name = "NAME=\"VALUE\"", value_parser = text::label)]
    label: Vec<(String, String)>,

    /// Accept answers with warnings, which may be incomplete. By default they end the command
    #[arg(long)]
    accept_warnings: bool,

    #[command(flatten)]
    language: LanguageFlags,

    /// Format of the list of blocks
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value = "table")]
    output: TableFormat,
}

/// Where and how expressions are evaluated.
struct Source {
    client: PrometheusClient,
    accept_warnings: bool,
}

pub(super) async fn run(args: BackfillArgs, output: &mut Output) -> Result<CommandOutcome> {
    let now = text::now();
    let (start, end) = (args.start.at(now), args.end.at(now));
    if start > end {
        let message = format!("--start {} is after --end {}", text::instant(start), text::instant(end));
        return Err(ToolError::usage(message));
    }
    let mut rules = load(&args)?;
    if rules.is_empty() {
        return Err(ToolError::usage("the files have no recording rule; alerting rules are left out"));
    }
    let options = ClientOptions { timeout: TIMEOUT, max_body_bytes: 1 << 30, ..ClientOptions::default() };
    let client = PrometheusClient::new(&args.url, options)
        .map_err(|error| ToolError::usage(format!("--url: {error}")))?;
    let source = Source { client, accept_warnings: args.accept_warnings };
    let dir = &args.output_dir;
    std::fs::create_dir_all(dir).context(format_args!("--output-dir: create folder {}", dir.display()))?;

    let columns = [
        ("ULID", "ulid"),
        ("FROM", "from"),
        ("UNTIL", "until"),
        ("#SERIES", "series"),
        ("#SAMPLES", "samples"),
    ];
    let mut table = Table::new(&columns);
    let length = BLOCK.as_millis() as i64;
    let first = start.as_millis().div_euclid(length);
    let last = end.as_millis().div_euclid(length);
    let windows = u64::try_from(last - first + 1).unwrap_or(0);
    let progress = TaskProgress::new("backfill", Unit::Count("blocks"), windows);
    for number in first..=last {
        let window = (Timestamp::from_millis(number * length), Timestamp::from_millis((number + 1) * length));
        let range = (window.0.max(start), window.1.offset_millis(-1).min(end));
        let samples = evaluate(&source, &mut rules, range).await?;
        if let Some(meta) = samples.write(dir, window, &args.label)? {
            table.push(vec![
                TableCell::text(meta.ulid.to_string()),
                TableCell::text(text::instant(meta.min_time)),
                TableCell::text(text::instant(meta.max_time)),
                TableCell::Number(meta.stats.series),
                TableCell::Number(meta.stats.samples),
            ]);
        }
        progress.add(1);
    }
    progress.finish();
    output.table(&table, args.output)?;
    Ok(CommandOutcome::Fine)
}

/// The recording rules of all files.
fn load(args: &BackfillArgs) -> Result<Vec<RecordedRule>> {
    let options = args.language.rules();
    let mut rules = Vec::new();
    for path in files(&args.files)? {
        let file = RuleFile::parse(&read(&path)?, &options).map_err(|mistakes| {
            let count = text::count(mistakes.len() as u64, "mistake");
            let first = mistakes.first().map(ToString::to_string).unwrap_or_default();
            ToolError::usage(format!("{}: {count}, first: {first}", path.display()))
        })?;
        for group in file.groups {
            rules.extend(recording_rules(&path, group, args.eval_interval));
        }
    }
    Ok(rules)
}

fn recording_rules(
    path: &Path,
    group: RuleGroup,
    eval_interval: Duration,
) -> impl Iterator<Item = RecordedRule> {
    let interval = group.interval.unwrap_or(eval_interval);
    let schedule = Schedule::new(&path.display().to_string(), &group.name, interval);
    let offset = group.query_offset.unwrap_or_default();
    let limit = group.limit;
    let recording = group.rules.into_iter().filter(|rule| rule.alerting().is_none());
    recording.map(move |rule| RecordedRule::new(rule, schedule, offset, limit))
}

/// What all rules record in a range, both ends included.
async fn evaluate(
    source: &Source,
    rules: &mut [RecordedRule],
    range: (Timestamp, Timestamp),
) -> Result<WindowSamples> {
    let mut samples = WindowSamples::default();
    for rule in rules {
        let Some((first, last)) = rule.instants(range) else { continue };
        let doing =
            format!("evaluate {} from {} to {}", rule.name(), text::instant(first), text::instant(last));
        let answer = source.client.query_range(rule.query(), first, last, rule.interval()).await;
        let answer = answer
            .map_err(|error| {
                let cause = if error.status().is_some() { Cause::Failed } else { Cause::Unreachable };
                ToolError::new(cause, error.to_string())
            })
            .context(&doing)?;
        if let Some(warning) = answer.warnings.first().filter(|_| !source.accept_warnings) {
            let message = format!(
                "{doing}: {warning}; the answer may be incomplete: repeat it, or use --accept-warnings"
            );
            return Err(ToolError::new(Cause::Failed, message));
        }
        rule.record(answer.data, (first, last), &mut samples)
            .map_err(|why| ToolError::new(Cause::Failed, format!("{doing}: {why}")))?;
    }
    Ok(samples)
}
