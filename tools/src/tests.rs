//! The commands, called with their flags, on buckets in local folders.

mod delete_series;
mod odd_blocks;
mod rules;
mod salvage;
mod tombstones;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Parser;

use crate::error::{Cause, CommandOutcome, ToolError};
use crate::output::Output;
use crate::output::tests::CapturedOutput;
use crate::{ToolsArgs, execute};

#[derive(Parser)]
#[command(name = "tools")]
struct Line {
    #[command(flatten)]
    tools: ToolsArgs,
}

/// The output and the result of a command.
struct Done {
    outcome: Result<CommandOutcome, ToolError>,
    text: String,
}

impl Done {
    /// The output of a command that found no problem.
    #[track_caller]
    fn fine(self) -> String {
        assert_eq!(
            self.outcome.map_err(|error| error.to_string()),
            Ok(CommandOutcome::Fine),
            "{}",
            self.text
        );
        self.text
    }

    /// The output of a command that found problems.
    #[track_caller]
    fn found(self) -> String {
        assert_eq!(
            self.outcome.map_err(|error| error.to_string()),
            Ok(CommandOutcome::Found),
            "{}",
            self.text
        );
        self.text
    }

    /// The error line of a command that failed with this cause.
    #[track_caller]
    fn failed(self, cause: Cause) -> String {
        let error = self.outcome.expect_err(&self.text);
        assert_eq!(error.cause(), cause, "{error}");
        let line = error.to_string();
        assert_eq!(line.lines().count(), 1, "{line}");
        line
    }

    fn json(self) -> serde_json::Value {
        serde_json::from_str(&self.fine()).unwrap()
    }
}

fn tools(args: &[&str]) -> Done {
    let line = Line::try_parse_from([&["tools"], args].concat()).unwrap_or_else(|error| panic!("{error}"));
    let kept = CapturedOutput::default();
    let mut output = Output::new(kept.clone());
    let tokio = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let outcome = tokio.block_on(execute(line.tools.command, &mut output));
    drop(output);
    Done { outcome, text: kept.text() }
}

/// The folders of a test: `data` with three generated blocks, and two empty buckets.
struct ToolsWorld {
    dir: tempfile::TempDir,
}

/// Blocks in `data`, in the order of their times.
const FIRST: usize = 0;
const SECOND: usize = 1;

impl ToolsWorld {
    fn new() -> Self {
        let world = Self { dir: tempfile::tempdir().unwrap() };
        for bucket in ["a", "b"] {
            fs::create_dir(world.path(bucket)).unwrap();
        }
        let data = world.text("data");
        let shape = ["--series=240", "--blocks=3", "--interval=1m", "--histograms=0.1"];
        tools(&[&["block", "generate", "--output-dir", &data][..], &shape].concat()).fine();
        world
    }

    /// A world whose blocks are in bucket `a`.
    fn uploaded() -> Self {
        let world = Self::new();
        world.upload().fine();
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    fn config(&self, bucket: &str) -> String {
        format!("{{type: FILESYSTEM, config: {{directory: {:?}}}}}", self.path(bucket))
    }

    /// `tools bucket ... --objstore.config` of bucket `a`.
    fn bucket(&self, args: &[&str]) -> Done {
        tools(&[&["bucket", "--objstore.config", &self.config("a")][..], args].concat())
    }

    fn upload(&self) -> Done {
        self.bucket(&["upload-blocks", "--path", &self.text("data"), "--label", "cluster=\"eu-1\""])
    }

    fn ids(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path("data")).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut ids: Vec<String> = names.filter(|name| tsdb::parse_block_id(name).is_some()).collect();
        ids.sort();
        ids
    }

    /// A file of a block in bucket `a`.
    fn file(&self, block: usize, file: &str) -> PathBuf {
        self.path("a").join(&self.ids()[block]).join(file)
    }
}

#[test]
fn generated_blocks_are_the_same_for_the_same_seed() {
    let world = ToolsWorld::new();
    let again = world.text("again");
    let shape = ["--series=240", "--blocks=3", "--interval=1m", "--histograms=0.1"];
    tools(&[&["block", "generate", "--output-dir", &again][..], &shape].concat()).fine();
    for id in world.ids() {
        for file in ["index", "chunks/000001", "meta.json"] {
            let read = |dir: &str| fs::read(world.path(dir).join(&id).join(file)).unwrap();
            assert!(read("data") == read("again"), "{id}/{file}");
        }
    }
    let twice = tools(&[
        "block",
        "generate",
        "--output-dir",
        &again,
        "--series=240",
        "--interval=1m",
        "--histograms=0.1",
    ]);
    assert!(twice.failed(Cause::Conflict).contains("exists"), "a block is never overwritten");
    let wrong = tools(&["block", "generate", "--output-dir", &again, "--churn=2"]).failed(Cause::Usage);
    assert!(wrong.contains("share of churn"), "{wrong}");
}

#[test]
fn blocks_are_uploaded_once_and_listed() {
    let world = ToolsWorld::new();
    let planned = world.bucket(&[
        "upload-blocks",
        "--path",
        &world.text("data"),
        "--label=cluster=eu-1",
        "--dry-run",
        "--output=json",
    ]);
    let planned = planned.json();
    assert!(planned.as_array().unwrap().iter().all(|row| row["result"] == "would be uploaded"), "{planned}");
    assert_eq!(world.bucket(&["ls"]).fine(), "", "a dry run uploads nothing");

    assert_eq!(world.upload().fine().matches("| uploaded").count(), 3);
    assert_eq!(world.upload().fine().matches("exists already").count(), 3);
    let ids = world.ids();
    assert_eq!(world.bucket(&["ls"]).fine(), ids.iter().map(|id| format!("{id}\n")).collect::<String>());
    let wide = world.bucket(&["ls", "--output=wide", "--max-time=2025-01-01T01:00:00Z"]).fine();
    assert_eq!(
        wide,
        format!(
            "{} -- 2025-01-01T00:00:00Z - 2025-01-01T02:00:00Z Diff: 2h, Compaction: 1, Downsample: 0s, Source: bucket.upload\n",
            ids[FIRST]
        )
    );
    let rules = "- {action: keep, source_labels: [__block_id], regex: ".to_owned() + &ids[SECOND] + "}";
    let sharded = world.bucket(&["ls", "--selector.relabel-config", &rules]).fine();
    assert_eq!(sharded, format!("{}\n", ids[SECOND]));
    let metas = world.bucket(&["ls", "--output=json"]).fine();
    assert_eq!(metas.matches("\"upload_time\"").count(), 3, "{metas}");

    let rows = world.bucket(&["inspect", "--output=json", "-l", "cluster=\"eu-1\""]).json();
    assert_eq!(rows.as_array().unwrap().len(), 3);
    assert_eq!((&rows[0]["series"], &rows[0]["labels"]["cluster"]), (&240.into(), &"eu-1".into()));
    let none = world.bucket(&["inspect", "--output=csv", "--selector=cluster=us-1"]).fine();
    assert_eq!(none.lines().count(), 1, "{none}");
}

#[test]
fn listings_read_the_index_of_a_bucket_and_not_each_block() {
    let world = ToolsWorld::uploaded();
    let ids = world.ids();
    let listed = |args: &[&str]| -> Vec<String> {
        let text = world.bucket(args).fine();
        ids.iter().filter(|id| text.contains(id.as_str())).cloned().collect()
    };
    // The compactor writes the index. The blocks are too recent to be merged.
    let data = format!("--data-dir={}", world.text("compact"));
    world.bucket(&["compact", &data, "--consistency-delay=1h"]).fine();
    fs::remove_file(world.file(0, "meta.json")).unwrap();
    for command in ["ls", "inspect"] {
        assert_eq!(listed(&[command]), ids, "{command}: the index shows the block");
        assert_eq!(listed(&[command, "--ignore-bucket-index"]), ids[1..], "{command}");
    }
    // A damaged index is no index.
    fs::write(world.path("a").join("isthmus/index"), b"garbage").unwrap();
    assert_eq!(listed(&["ls"]), ids[1..]);
}

#[test]
fn damaged_and_overlapping_blocks_are_not_uploaded_and_do_not_stop_the_others() {
    let world = ToolsWorld::new();
    let segment = world.path("data").join(&world.ids()[SECOND]).join("chunks/000001");
    flip(&segment, 3000);
    let report = world.upload().found();
    assert_eq!((report.matches("| uploaded").count(), report.matches("FAILED").count()), (2, 1), "{report}");
    assert!(report.contains("checksum"), "{report}");

    let other = world.text("other");
    let args = ["block", "generate", "--output-dir", &other, "--series=10", "--start=2025-01-01T01:00:00Z"];
    tools(&args).fine();
    let report = world.bucket(&["upload-blocks", "--path", &other, "--label=cluster=eu-1"]).found();
    assert!(report.contains(&format!("overlaps block {}", world.ids()[FIRST])), "{report}");
    world.bucket(&["upload-blocks", "--path", &other, "--label=cluster=us-1"]).fine();
}

#[test]
fn dumps_are_those_of_promtool() {
    let world = ToolsWorld::new();
    let text = world.path("text");
    let data = world.path("imported");
    fs::create_dir_all(data.join("wal")).unwrap();
    fs::write(
        &text,
        "# TYPE a counter\na_total{x=\"b \\\"c\\\" \\\\ \\n\"} 1e9 1700000000.125\na_total{x=\"y\"} 0.00001 1700000000\n\
         # TYPE g gauge\ng NaN 1700000000\ng -Inf 1700000030\n# EOF\n",
    )
    .unwrap();
    let promtool = |args: &[&str]| Command::new("promtool").args(args).output();
    let (from, to) = (text.display().to_string(), data.display().to_string());
    match promtool(&["tsdb", "create-blocks-from", "openmetrics", &from, &to]) {
        Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr)),
        Err(_) => return println!("skipped: promtool is not installed"),
    }
    let block =
        fs::read_dir(&data).unwrap().map(|entry| entry.unwrap().path()).find(|path| !path.ends_with("wal"));
    let block = block.unwrap().display().to_string();
    let theirs = promtool(&["tsdb", "dump", &to]).unwrap();
    let ours = tools(&["block", "dump", &block]).fine();
    assert_eq!(ours, String::from_utf8(theirs.stdout).unwrap());
    assert_eq!(ours.lines().count(), 4, "{ours}");

    let one = tools(&["block", "dump", &block, "--match=a_total{x=\"y\"}", "--output=openmetrics"]).fine();
    assert_eq!(one, "a_total{x=\"y\"} 1e-05 1700000000.000\n# EOF\n");
    let late = tools(&["block", "dump", &block, "--min-time=2023-11-14T22:13:30Z", "--output=json"]).fine();
    assert_eq!(late, "{\"metric\":{\"__name__\":\"g\"},\"values\":[[1700000030,\"-Inf\"]]}\n");
    tools(&["block", "verify", &block]).fine();

    // The world's blocks have histograms, which that version of promtool leaves out of its dump.
    fs::create_dir(world.path("data").join("wal")).unwrap();
    let theirs = promtool(&["tsdb", "dump", &world.text("data")]).unwrap();
    fs::remove_dir(world.path("data").join("wal")).unwrap();
    let sorted = |texts: &[String]| {
        let mut lines: Vec<String> = texts.iter().flat_map(|text| text.lines().map(str::to_owned)).collect();
        lines.retain(|line| !line.contains("{count:"));
        lines.sort();
        lines
    };
    let path = |id: &String| world.path("data").join(id).display().to_string();
    let ours: Vec<String> =
        world.ids().iter().map(|id| tools(&["block", "dump", &path(id)]).fine()).collect();
    assert!(ours.concat().contains("{count:"));
    assert!(sorted(&ours) == sorted(&[String::from_utf8(theirs.stdout).unwrap()]));
}

#[test]
fn differences_of_blocks_are_reported() {
    let world = ToolsWorld::uploaded();
    let ids = world.ids();
    let local = world.path("data").join(&ids[FIRST]).display().to_string();
    let config = world.config("a");
    let remote = ["--objstore.config", config.as_str()];
    let equal = tools(&[&["block", "diff", &local, &ids[FIRST]][..], &remote].concat()).fine();
    assert!(equal.starts_with("series:  240 equal, 0 different"), "{equal}");
    let other = tools(&[&["block", "diff", &local, &ids[SECOND], "--limit=3"][..], &remote].concat()).found();
    assert_eq!(other.lines().filter(|line| line.starts_with(['<', '>', '!'])).count(), 3, "{other}");
    assert!(other.contains("series:  0 equal, 240 different"), "{other}");
    let json =
        tools(&[&["block", "diff", &local, &ids[SECOND], "--output=json"][..], &remote].concat()).found();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["equal"], &json["totals"]["differentSeries"]), (&false.into(), &240.into()));
}

#[test]
fn every_kind_of_damage_is_reported_and_a_good_bucket_has_no_problem() {
    let world = ToolsWorld::uploaded();
    assert_eq!(world.bucket(&["verify"]).fine(), "3 blocks, 0 problems\n");
    flip(&world.file(FIRST, "chunks/000001"), 3000);
    fs::write(world.file(SECOND, "junk"), "x").unwrap();
    let corrupt = world.path("a").join("01JGG764R0QENP71C7C19NMGE8");
    fs::create_dir(&corrupt).unwrap();
    fs::write(corrupt.join("meta.json"), "{").unwrap();
    let copy = world.path("a").join("01JGG764R0QENP71C7C19NMGE9");
    fs::create_dir_all(copy.join("chunks")).unwrap();
    for file in ["index", "chunks/000001"] {
        fs::copy(world.file(SECOND, file), copy.join(file)).unwrap();
    }
    let meta = fs::read_to_string(world.file(SECOND, "meta.json")).unwrap();
    let renamed = meta.replacen(&world.ids()[SECOND], "01JGG764R0QENP71C7C19NMGE9", 1);
    fs::write(copy.join("meta.json"), renamed).unwrap();

    let report = world.bucket(&["verify"]).found();
    for expected in [
        "chunks/000001 does not match its manifest: the SHA-256 differs",
        "chunks/000001 at byte",
        "manifest: junk does not belong to the block",
        "01JGG764R0QENP71C7C19NMGE8: meta: meta.json: EOF",
        "duplicated_compaction: has the same content as block",
    ] {
        assert!(report.contains(expected), "{expected}: {report}");
    }
    let quick = world.bucket(&["verify", "--issues=overlapped_blocks"]).found();
    assert!(quick.starts_with("01JGG764R0QENP71C7C19NMGE8: meta") && quick.lines().count() == 2, "{quick}");
    let id = &world.ids()[2];
    assert_eq!(world.bucket(&["verify", "--id", id]).fine(), "1 block, 0 problems\n");
}

#[test]
fn a_truncated_object_is_reported_with_all_other_problems() {
    let world = ToolsWorld::uploaded();
    fs::write(world.file(FIRST, "junk"), "x").unwrap();
    for file in ["chunks/000001", "index"] {
        let path = world.file(SECOND, file);
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        let report = world.bucket(&["verify"]).found();
        assert!(report.contains("junk does not belong to the block"), "{report}");
        assert!(report.contains(&format!("{file} is {} bytes large", whole.len() / 2)), "{report}");
        assert!(report.contains("3 blocks, "), "{report}");
        let id = &world.ids()[SECOND];
        let analyzed = world.bucket(&["analyze", "--id", id]).failed(Cause::Damaged);
        assert!(analyzed.contains("bytes large, its manifest says"), "{analyzed}");
        tools(&["block", "dump", id, "--objstore.config", &world.config("a")]).failed(Cause::Damaged);
        fs::write(&path, whole).unwrap();
    }
    // A file in the place of the working folder is not a problem of a block. Problems found before are reported.
    let tmp = world.text("a/junk-file");
    fs::write(&tmp, "").unwrap();
    let done = world.bucket(&["verify", "--tmp.dir", &tmp]);
    assert!(done.text.contains("junk does not belong to the block"), "{}", done.text);
    assert!(done.outcome.is_err());
}

#[test]
fn sizes_that_do_not_add_up_are_reported() {
    let world = ToolsWorld::uploaded();
    let path = world.file(FIRST, "meta.json");
    let mut meta: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    for file in meta["thanos"]["files"].as_array_mut().unwrap() {
        if file["rel_path"] != "meta.json" {
            file["size_bytes"] = u64::MAX.into();
        }
    }
    fs::write(&path, meta.to_string()).unwrap();
    let report = world.bucket(&["verify"]).found();
    assert!(report.contains("its manifest says 18446744073709551615"), "{report}");
    let to = world.config("b");
    let report = world.bucket(&["replicate", "--objstore-to.config", &to, "--single-run"]).found();
    assert_eq!(report.matches("| copied").count(), 2, "{report}");
    world.bucket(&["inspect"]).fine();
}

#[test]
fn chunks_out_of_order_are_reported() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/conformance");
    let conformance = std::env::var_os("ISTHMUS_CONFORMANCE").map_or(here, PathBuf::from);
    let index = conformance.join("blocks/out_of_order_chunks/index");
    if !index.exists() {
        return println!("skipped: {} is absent", index.display());
    }
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("chunks")).unwrap();
    fs::copy(index, dir.path().join("index")).unwrap();
    fs::write(dir.path().join("chunks/000001"), b"\x85\xbd\x40\xdd\x01\0\0\0").unwrap();
    let meta =
        r#"{"ulid":"01JGG764R0QENP71C7C19NMGE8","minTime":0,"maxTime":9223372036854775807,"version":1}"#;
    fs::write(dir.path().join("meta.json"), meta).unwrap();
    let report = tools(&["block", "verify", &dir.path().display().to_string()]).found();
    assert!(report.contains("chunk 1 of the series begins at 1, the one before it ends at"), "{report}");
}

#[test]
fn replication_copies_what_is_missing() {
    let world = ToolsWorld::uploaded();
    let to = world.config("b");
    let tmp = world.text("tmp");
    let base = ["replicate", "--objstore-to.config", &to, "--single-run", "--tmp.dir", &tmp];
    let run = |more: &[&str]| world.bucket(&[&base[..], more].concat());
    assert_eq!(run(&["--dry-run"]).fine().matches("would be copied").count(), 3);
    assert_eq!(run(&["--matcher=cluster=\"us-1\""]).fine().matches("copied").count(), 0);
    assert_eq!(run(&["--resolution=5m"]).fine().matches("copied").count(), 0);
    assert_eq!(run(&["--id", &world.ids()[SECOND]]).fine().matches("| copied").count(), 1);
    let report = run(&[]).fine();
    assert_eq!(
        (report.matches("| copied").count(), report.matches("exists already").count()),
        (2, 1),
        "{report}"
    );
    let verified = tools(&["bucket", "verify", "--objstore.config", &to]).fine();
    assert_eq!(verified, "3 blocks, 0 problems\n");
    assert_eq!(fs::read_dir(world.path("tmp")).unwrap().count(), 0, "no temporary file remains");

    fs::remove_file(world.file(FIRST, "index")).unwrap();
    fs::remove_dir_all(world.path("b").join(&world.ids()[FIRST])).unwrap();
    assert!(run(&[]).found().contains("index is missing"));
}

#[test]
fn marks_are_added_removed_and_applied_by_cleanup() {
    let world = ToolsWorld::uploaded();
    let id = &world.ids()[FIRST];
    let mark = |more: &[&str]| {
        world.bucket(&[&["mark", "--marker=deletion-mark.json", "--id", id][..], more].concat())
    };
    assert!(mark(&["--details=gone", "--dry-run"]).fine().contains("would be created"));
    assert!(mark(&["--details=gone"]).fine().contains("created"));
    assert!(mark(&["--details=again"]).found().contains(": gone"), "a mark is never overwritten");
    assert_eq!(world.bucket(&["ls", "--exclude-delete"]).fine().lines().count(), 2);
    assert!(mark(&["--remove"]).fine().contains("removed"));
    assert!(mark(&["--remove"]).found().contains("has no"));
    let absent = ["mark", "--marker=no-compact-mark.json", "--details=x", "--id=01JGG764R0QENP71C7C19NMGE8"];
    assert!(world.bucket(&absent).failed(Cause::Missing).contains("nothing was marked"));

    mark(&["--details=gone"]).fine();
    let partial = world.path("a").join("01JGG764R0QENP71C7C19NMGE9");
    fs::create_dir(&partial).unwrap();
    fs::write(partial.join("index"), "x").unwrap();
    let corrupt = world.path("a").join("01JGG764R0QENP71C7C19NMGE8");
    fs::create_dir(&corrupt).unwrap();
    fs::write(corrupt.join("meta.json"), "{").unwrap();
    let kept = world.bucket(&["cleanup"]).found();
    assert_eq!(kept.matches("| kept").count(), 3, "{kept}");
    assert!(
        world.bucket(&["cleanup", "--delete-delay=0s", "--dry-run"]).found().contains("would be removed")
    );
    assert!(world.file(FIRST, "meta.json").exists());
    let removed = world.bucket(&["cleanup", "--delete-delay=0s"]).found();
    assert_eq!(
        (removed.matches("| removed").count(), removed.matches("| kept").count()),
        (1, 2),
        "{removed}"
    );
    assert!(!world.path("a").join(id).exists() && partial.exists() && corrupt.exists());
    let abandoned = std::time::SystemTime::now() - std::time::Duration::from_secs(49 * 3600);
    fs::File::options().write(true).open(partial.join("index")).unwrap().set_modified(abandoned).unwrap();
    assert!(world.bucket(&["cleanup"]).found().contains("nothing was written since"));
    assert!(!partial.exists() && corrupt.exists(), "a corrupt block is never removed");
}

#[test]
fn a_rewrite_deletes_the_requested_samples_and_no_others() {
    let world = ToolsWorld::uploaded();
    let id = &world.ids()[FIRST];
    let tmp = world.text("tmp");
    fs::create_dir(&tmp).unwrap();
    let delete = "- matchers: '{job=\"api\"}'\n  intervals: [{mint: 1735689600000, maxt: 1735690000000}]\n- matchers: '{job=\"auth\"}'";
    let rewrite = |more: &[&str]| {
        let base = ["rewrite", "--id", id, "--tmp.dir", &tmp, "--output=json"];
        world.bucket(&[&base[..], more].concat())
    };
    let planned = rewrite(&["--rewrite.to-delete-config", delete]).json();
    assert_eq!(planned[0]["result"], "would be rewritten");
    assert_eq!(world.bucket(&["ls"]).fine().lines().count(), 3, "a dry run writes nothing");

    let args = ["--rewrite.to-delete-config", delete, "--dry-run=false", "--delete-blocks"];
    let done = rewrite(&args).json();
    assert_eq!(done[0]["result"], "rewritten; old block marked");
    let number = |field: &str| done[0][field].as_u64().unwrap();
    assert_eq!(number("samples"), number("samplesKept") + number("samplesDeleted"));
    let new = done[0]["new"].as_str().unwrap();
    let config = world.config("a");
    let dump = |id: &str| tools(&["block", "dump", id, "--objstore.config", &config]).fine();
    let is_kept = |line: &&str| {
        let millis: i64 = line.rsplit(' ').next().unwrap().parse().unwrap();
        let is_early = millis <= 1_735_690_000_000;
        !(line.contains("job=\"auth\"") || (line.contains("job=\"api\"") && is_early))
    };
    let (before, after) = (dump(id), dump(new));
    let expected: Vec<&str> = before.lines().filter(is_kept).collect();
    assert!(expected == after.lines().collect::<Vec<_>>());
    assert_eq!(number("samplesDeleted") as usize, before.lines().count() - expected.len());
    let log = fs::read_to_string(world.path("tmp").join(format!("{new}.change.log"))).unwrap();
    assert!(log.contains("Deleted ") && log.contains("job=\"auth\""), "{log}");
    let meta = fs::read_to_string(world.path("a").join(new).join("meta.json")).unwrap();
    assert!(meta.contains("\"deletions_applied\"") && meta.contains("bucket.rewrite"), "{meta}");
    assert_eq!(world.bucket(&["verify"]).fine(), "3 blocks, 0 problems\n");
    let again = rewrite(&args).json();
    assert_eq!(
        (&again[0]["result"], &again[0]["new"]),
        (&"done already; old block marked".into(), &new.into())
    );
    let other = ["--rewrite.to-delete-config", "- matchers: '{job=\"api\"}'"];
    assert!(rewrite(&other).failed(Cause::Conflict).contains("marked for deletion"));
}

#[test]
fn a_repeated_rewrite_makes_no_second_block() {
    let world = ToolsWorld::uploaded();
    let (ids, tmp) = (world.ids(), world.text("tmp"));
    let delete = "- matchers: '{job=\"auth\"}'";
    let base = ["rewrite", "--tmp.dir", &tmp, "--output=json", "--no-dry-run", "--rewrite.to-delete-config"];
    let base = base.map(|arg| if arg == "--no-dry-run" { "--dry-run=false" } else { arg });
    let run = |more: &[&str]| world.bucket(&[&base[..], &[delete], more].concat());

    // The first block is rewritten, the second one does not exist.
    let done = run(&["--id", &ids[FIRST], "--id=01JGG764R0QENP71C7C19NMGE8"]);
    let table: serde_json::Value = serde_json::from_str(&done.text).unwrap();
    assert_eq!(table[0]["result"], "rewritten", "results are printed before the error");
    done.failed(Cause::Missing);
    let new = table[0]["new"].as_str().unwrap().to_owned();
    assert_eq!(new[..10], ids[FIRST][..10], "the time of the old block");

    let meta = fs::read(world.path("a").join(&new).join("meta.json")).unwrap();
    let meta: serde_json::Value = serde_json::from_slice(&meta).unwrap();
    assert_eq!(meta["compaction"]["parents"][0]["ulid"], ids[FIRST].as_str());
    assert_eq!(meta["thanos"]["rewrites"][0]["sources"][0], ids[FIRST].as_str());

    // The same command finishes a run that was interrupted before it marked the block.
    let again = run(&["--id", &ids[FIRST]]).json();
    assert_eq!((&again[0]["result"], &again[0]["new"]), (&"done already".into(), &new.as_str().into()));
    let marked = run(&["--id", &ids[FIRST], "--delete-blocks"]).json();
    assert_eq!(marked[0]["result"], "rewritten; old block marked");
    assert_eq!(world.bucket(&["ls"]).fine().lines().count(), 4);
    assert_eq!(world.bucket(&["ls", "--exclude-delete"]).fine().lines().count(), 3);

    let none = "- matchers: '{job=\"nowhere\"}'";
    let nothing = world.bucket(&[&base[..], &[none, "--id", &ids[SECOND]]].concat()).json();
    assert_eq!(nothing[0]["result"], "nothing to change");
    let logs: Vec<_> = fs::read_dir(world.path("tmp")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(logs, [format!("{new}.change.log").as_str()], "a block that was not written has no log");
}

#[test]
fn a_dry_run_of_an_upload_prints_the_results_of_the_run() {
    let world = ToolsWorld::new();
    let ids = world.ids();
    let upload = |more: &[&str]| {
        let data = world.text("data");
        let base = ["upload-blocks", "--path", &data, "--label=cluster=eu-1", "--output=json"];
        let rows: serde_json::Value =
            serde_json::from_str(&world.bucket(&[&base[..], more].concat()).text).unwrap();
        let result = |row: &serde_json::Value| format!("{}: {}", row["result"], row["why"]).replace('"', "");
        rows.as_array().unwrap().iter().map(result).collect::<Vec<_>>()
    };
    world.upload();
    world.upload();
    let details = "--details=x";
    world.bucket(&["mark", "--marker=deletion-mark.json", details, "--id", &ids[FIRST]]).fine();
    fs::remove_file(world.file(SECOND, "meta.json")).unwrap();
    let other = fs::read_to_string(world.file(2, "meta.json")).unwrap();
    fs::write(world.file(2, "meta.json"), other.replace("eu-1", "eu-2")).unwrap();
    let planned = upload(&["--dry-run"]);
    assert!(!world.file(SECOND, "meta.json").exists(), "a dry run writes nothing");
    let done = upload(&[]);
    assert!(planned[FIRST].contains("is marked for deletion"), "{planned:?}");
    assert!(planned[2].contains("meta.json in the bucket differs"), "{planned:?}");
    assert_eq!((&planned[FIRST], &planned[2]), (&done[FIRST], &done[2]));
    assert_eq!((planned[SECOND].as_str(), done[SECOND].as_str()), ("would be uploaded: ", "uploaded: "));
}

#[test]
fn blocks_of_samples_out_of_order_may_overlap_and_deletions_are_warned_about() {
    let world = ToolsWorld::uploaded();
    let other = world.path("other");
    let args = [
        "block",
        "generate",
        "--output-dir",
        &world.text("other"),
        "--series=10",
        "--start=2025-01-01T01:00:00Z",
    ];
    tools(&args).fine();
    let block = fs::read_dir(&other).unwrap().next().unwrap().unwrap().path();
    let mut meta: serde_json::Value =
        serde_json::from_slice(&fs::read(block.join("meta.json")).unwrap()).unwrap();
    meta["compaction"]["hints"] = serde_json::json!(["from-out-of-order"]);
    let mut deleted = tsdb::Tombstones::default();
    let read = tsdb::Block::open(&block).unwrap();
    let begin = read.meta().min_time;
    for series in read.index().all_postings().unwrap().iter().take(2) {
        deleted.delete(series, model::TimeRange::new(begin, begin.offset_millis(600_000)));
    }
    fs::write(block.join("tombstones"), deleted.to_bytes()).unwrap();
    meta["stats"]["numTombstones"] = deleted.count().into();
    fs::write(block.join("meta.json"), meta.to_string()).unwrap();
    let report = world
        .bucket(&["upload-blocks", "--path", &world.text("other"), "--label=cluster=eu-1", "--dry-run"])
        .fine();
    assert!(report.contains("undoes 2 deletions: tombstones are not uploaded"), "{report}");
}

#[test]
fn a_rewrite_relabels_sorts_and_joins() {
    let world = ToolsWorld::uploaded();
    let id = &world.ids()[SECOND];
    let tmp = world.text("tmp");
    fs::create_dir(&tmp).unwrap();
    let rewrite = |rules: &str, more: &[&str]| {
        let base =
            ["rewrite", "--id", id, "--tmp.dir", &tmp, "--output=json", "--rewrite.to-relabel-config", rules];
        world.bucket(&[&base[..], more].concat())
    };
    let swap = "- {source_labels: [__name__], regex: '(.*)_(total|seconds|bytes)', target_label: __name__, replacement: '${2}_$1'}\n\
                - {action: labeldrop, regex: zone}";
    let done = rewrite(swap, &["--dry-run=false"]).json();
    assert_eq!(done[0]["result"], "rewritten");
    assert_eq!(done[0]["samples"], done[0]["samplesKept"]);
    assert!(done[0]["seriesRelabelled"].as_u64().unwrap() > 0);
    let config = world.config("a");
    let new = done[0]["new"].as_str().unwrap();
    let report = tools(&["block", "verify", new, "--objstore.config", &config]).fine();
    assert!(report.contains(": good: 240 series"), "{report}");

    // Targets have different scrape times. If two samples have the same time, they have different values.
    let joined = rewrite("- {action: labelkeep, regex: __name__}", &[]);
    match &joined.outcome {
        Ok(_) => assert!(joined.json()[0]["seriesJoined"].as_u64().unwrap() > 0),
        Err(error) => assert!(error.to_string().contains("different values"), "{error}"),
    }
    let all = rewrite("- {action: drop, source_labels: [job], regex: '.+'}", &[]).json();
    assert_eq!(all[0]["result"], "nothing would be left");
    let none = rewrite("- {action: labeldrop, regex: nowhere}", &["--dry-run=false"]).json();
    assert_eq!(none[0]["result"], "nothing to change");
}

#[test]
fn analysis_counts_series_by_metric_label_and_pair() {
    let world = ToolsWorld::uploaded();
    let all = world.bucket(&["analyze", "--output=json", "--limit=1000"]).json();
    assert_eq!(
        (&all["blocks"], &all["series"], &all["seriesOfLargestBlock"]),
        (&3.into(), &720.into(), &240.into())
    );
    let sum: u64 = all["metrics"].as_array().unwrap().iter().map(|row| row["series"].as_u64().unwrap()).sum();
    assert_eq!(sum, 720);

    // The slow way: from all series.
    let local = world.path("data").join(&world.ids()[FIRST]);
    let block = tsdb::Block::open(&local).unwrap();
    let (mut jobs, mut last_metric) = (std::collections::BTreeMap::<String, u64>::new(), 0);
    let last = block.index().label_values("__name__").unwrap().pop().unwrap();
    for series in block.select(&[], model::TimeRange::ALL).unwrap() {
        let labels = series.unwrap().labels;
        *jobs.entry(labels.value("job").to_owned()).or_default() += 1;
        last_metric += u64::from(labels.metric_name() == last);
    }
    let one = world.bucket(&["analyze", "--output=json", "--limit=1000", "--id", &world.ids()[FIRST]]).json();
    let pairs = one["pairs"].as_array().unwrap();
    for (job, series) in jobs {
        let row = pairs.iter().find(|row| row["label"] == "job" && row["value"] == job.as_str()).unwrap();
        assert_eq!(row["series"], series, "{job}");
    }
    let row = one["metrics"].as_array().unwrap().iter().find(|row| row["metric"] == last.as_str()).unwrap();
    assert_eq!(row["series"], last_metric, "the last list of the index");
}

#[test]
fn bad_input_is_named_in_one_line_with_what_to_do() {
    let world = ToolsWorld::new();
    let ls = |config: &str| tools(&["bucket", "ls", "--objstore.config", config]);
    for (config, cause, expected) in [
        ("{type: S4, config: {}}", Cause::Usage, "\"S4\" is unknown, expected FILESYSTEM, S3, GCS or AZURE"),
        ("{type: FILESYSTEM, config: {directory: /tmp}, prefx: a}", Cause::Usage, "prefx: unknown field"),
        ("{type: FILESYSTEM, config: {directory: /nowhere}}", Cause::Missing, "does not exist: create it"),
    ] {
        let line = ls(config).failed(cause);
        assert!(line.contains(expected), "{line}");
    }
    assert!(tools(&["bucket", "ls"]).failed(Cause::Usage).contains("--objstore.config-file=FILE"));
    let to = world.bucket(&["replicate", "--single-run"]).failed(Cause::Usage);
    assert!(to.contains("--objstore-to.config-file=FILE"), "{to}");
    let dump = |place: &str| tools(&["block", "dump", place]).failed(Cause::Missing);
    let data = dump(&world.text("data"));
    assert!(data.contains("is not a block, but contains 3 blocks: give one of them, such as"), "{data}");
    assert!(dump(&world.text("a")).contains("is not a block: it has no meta.json"));
    assert!(dump("/nowhere").starts_with("/nowhere: "));
    assert!(dump(&world.ids()[FIRST]).contains("give --objstore.config-file too"));
    let empty =
        world.bucket(&["upload-blocks", "--label=a=b", "--path", &world.text("b")]).failed(Cause::Missing);
    assert!(empty.contains("contains no block"), "{empty}");
}

/// Flips a bit of a file.
fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 4;
    fs::write(path, bytes).unwrap();
}
