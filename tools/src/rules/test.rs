//! `tools rules test`: runs unit tests of rules.

use std::path::{Path, PathBuf};

use model::SearchRegex;
use rules::{TestReport, UnitTestFile, UnitTestOptions};
use serde_json::{Value, json};

use crate::blocking::blocking;
use crate::error::{CommandOutcome, Result, ToolError};
use crate::output::Output;
use crate::rules::language::LanguageFlags;
use crate::rules::report::{RuleReportFormat, files, read};
use crate::text;

/// Flags of `tools rules test`.
#[derive(Debug, clap::Args)]
pub(crate) struct TestArgs {
    /// Files of unit tests; the last part of a path may have * for any text. Their rule files are relative to them
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,

    /// Run only tests whose name contains a match of this regular expression; repeatable
    #[arg(long, value_name = "REGEX")]
    run: Vec<String>,

    #[command(flatten)]
    language: LanguageFlags,

    /// Format of the report
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value = "text")]
    output: RuleReportFormat,
}

/// What became of a file of tests.
struct FileReport {
    path: PathBuf,
    /// Mistakes of the file, or of what it names. Nothing was run then.
    mistakes: Vec<String>,
    tests: Vec<TestReport>,
}

impl FileReport {
    fn failed(&self) -> usize {
        self.tests.iter().filter(|test| !test.failures.is_empty()).count()
    }
}

pub(super) async fn run(args: TestArgs, output: &mut Output) -> Result<CommandOutcome> {
    let mut selected = Vec::new();
    for pattern in &args.run {
        let regex = SearchRegex::new(pattern);
        selected.push(regex.map_err(|error| ToolError::usage(format!("--run: {pattern:?}: {error}")))?);
    }
    let (mut outcome, mut reports) = (CommandOutcome::Fine, Vec::new());
    for path in files(&args.files)? {
        let (options, selected) = (args.language.tests(), selected.clone());
        let work = move || {
            run_file(path, &options, |name| {
                selected.is_empty() || selected.iter().any(|regex| regex.is_match(name))
            })
        };
        let report = blocking(work).await?;
        if report.failed() > 0 || !report.mistakes.is_empty() {
            outcome = CommandOutcome::Found;
        }
        match args.output {
            RuleReportFormat::Text => print(&report, output)?,
            RuleReportFormat::Json => reports.push(as_json(&report)),
        }
        output.flush()?;
    }
    if args.output == RuleReportFormat::Json {
        output.json(&reports)?;
    }
    Ok(outcome)
}

/// Runs the tests of a file.
fn run_file(path: PathBuf, options: &UnitTestOptions, selects: impl Fn(&str) -> bool) -> Result<FileReport> {
    let mut report = FileReport { path, mistakes: Vec::new(), tests: Vec::new() };
    match UnitTestFile::parse(&read(&report.path)?) {
        Err(mistakes) => report.mistakes = mistakes.iter().map(ToString::to_string).collect(),
        Ok(file) => {
            let folder = report.path.parent().unwrap_or(Path::new("")).to_owned();
            let mut rules = Vec::new();
            for name in &file.rule_files {
                let found = files(&[folder.join(name)]).and_then(|paths| {
                    paths
                        .into_iter()
                        .map(|path| Ok((path.display().to_string(), read(&path)?)))
                        .collect::<Result<Vec<_>>>()
                });
                match found {
                    Ok(mut texts) => rules.append(&mut texts),
                    Err(error) => report.mistakes.push(format!("rule_files: {error}")),
                }
            }
            if report.mistakes.is_empty() {
                report.tests = file.run(&rules, options, selects);
            }
        }
    }
    Ok(report)
}

fn print(report: &FileReport, output: &mut Output) -> Result<()> {
    let path = report.path.display();
    if !report.mistakes.is_empty() {
        output.line(format_args!("{path}: {}", text::count(report.mistakes.len() as u64, "mistake")))?;
        return report.mistakes.iter().try_for_each(|mistake| output.line(format_args!("  {mistake}")));
    }
    let (failed, all) = (report.failed(), report.tests.len());
    if failed == 0 {
        let checks: usize = report.tests.iter().map(|test| test.checks).sum();
        let (tests, checks) = (text::count(all as u64, "test"), text::count(checks as u64, "check"));
        return output.line(format_args!("{path}: passed: {tests}, {checks}"));
    }
    output.line(format_args!("{path}: failed: {failed} of {}", text::count(all as u64, "test")))?;
    for test in report.tests.iter().filter(|test| !test.failures.is_empty()) {
        output.line(format_args!("  {}:", test.name))?;
        for failure in &test.failures {
            let line = failure.line.map_or_else(String::new, |line| format!("line {line}: "));
            output.line(format_args!("    {line}{}", failure.what))?;
            failure
                .differences
                .iter()
                .try_for_each(|difference| output.line(format_args!("      {difference}")))?;
        }
    }
    Ok(())
}

fn as_json(report: &FileReport) -> Value {
    let tests = report.tests.iter().map(|test| {
        let failures = test.failures.iter().map(|failure| {
            json!({ "line": failure.line, "what": failure.what, "differences": failure.differences })
        });
        json!({ "name": test.name, "checks": test.checks, "failures": failures.collect::<Vec<_>>() })
    });
    json!({
        "file": report.path.display().to_string(),
        "mistakes": report.mistakes,
        "tests": tests.collect::<Vec<_>>(),
    })
}
