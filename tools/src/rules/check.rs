//! `tools rules check`: reports every mistake of rule files.

use std::path::PathBuf;

use rules::{RuleFile, RuleMistake};
use serde_json::{Value, json};

use crate::error::{CommandOutcome, Result};
use crate::output::Output;
use crate::rules::language::LanguageFlags;
use crate::rules::report::{RuleReportFormat, files, read};
use crate::text;

/// Flags of `tools rules check`.
#[derive(Debug, clap::Args)]
pub(crate) struct CheckArgs {
    /// Rule files; the last part of a path may have * for any text
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,

    /// Fail if a rule has the name and the labels of another rule of its file. By default this is only reported
    #[arg(long)]
    fail_on_duplicates: bool,

    #[command(flatten)]
    language: LanguageFlags,

    /// Format of the report
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value = "text")]
    output: RuleReportFormat,
}

pub(super) async fn run(args: CheckArgs, output: &mut Output) -> Result<CommandOutcome> {
    let options = args.language.rules();
    let (mut outcome, mut reports) = (CommandOutcome::Fine, Vec::new());
    for path in files(&args.files)? {
        let parsed = RuleFile::parse(&read(&path)?, &options);
        let (summary, mistakes, duplicates) = match parsed {
            Ok(file) => (summary(&file), Vec::new(), file.duplicates()),
            Err(mistakes) => (String::new(), mistakes, Vec::new()),
        };
        if !mistakes.is_empty() || (args.fail_on_duplicates && !duplicates.is_empty()) {
            outcome = CommandOutcome::Found;
        }
        let path = path.display();
        match args.output {
            RuleReportFormat::Json => reports.push(json!({
                "file": path.to_string(),
                "mistakes": mistakes.iter().map(mistake).collect::<Vec<_>>(),
                "duplicates": duplicates.iter().map(mistake).collect::<Vec<_>>(),
            })),
            RuleReportFormat::Text if mistakes.is_empty() => {
                output.line(format_args!("{path}: good: {summary}"))?;
                duplicates.iter().try_for_each(|duplicate| output.line(format_args!("  {duplicate}")))?;
            }
            RuleReportFormat::Text => {
                output.line(format_args!("{path}: {}", text::count(mistakes.len() as u64, "mistake")))?;
                mistakes.iter().try_for_each(|mistake| output.line(format_args!("  {mistake}")))?;
            }
        }
    }
    if args.output == RuleReportFormat::Json {
        output.json(&reports)?;
    }
    Ok(outcome)
}

fn summary(file: &RuleFile) -> String {
    let rules = file.groups.iter().flat_map(|group| &group.rules);
    let alerting = rules.clone().filter(|rule| rule.alerting().is_some()).count();
    let recording = rules.count() - alerting;
    format!(
        "{}, {}, {}",
        text::count(file.groups.len() as u64, "group"),
        text::count(alerting as u64, "alerting rule"),
        text::count(recording as u64, "recording rule")
    )
}

fn mistake(mistake: &RuleMistake) -> Value {
    json!({
        "line": mistake.line,
        "group": mistake.group,
        "rule": mistake.rule.as_ref().map(|(number, name)| json!({ "number": number, "name": name })),
        "field": mistake.field,
        "message": mistake.text,
    })
}
