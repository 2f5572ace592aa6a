//! Blocks that are not as expected: with times far from now, with labels of their own, overlapping each other.

use model::Timestamp;
use tsdb::{BlockMeta, BlockOptions, ThanosMeta, Ulid, Workload};

use super::*;
use crate::text;

/// Writes a block of few series to a folder of the world; returns its id.
fn write(world: &ToolsWorld, folder: &str, number: u64, start: i64, labels: &[(&str, &str)]) -> String {
    let start = Timestamp::from_millis(start);
    let workload = Workload { seed: number, series: 5, start, ..Workload::default() };
    let id = Ulid::from_parts(1_700_000_000_000 + number, 1);
    let mut options = BlockOptions::new(id);
    if !labels.is_empty() {
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        options.thanos = Some(ThanosMeta { labels, ..ThanosMeta::default() });
    }
    fs::create_dir_all(world.path(folder)).unwrap();
    workload.write(&world.path(folder), options, &mut |_| {}).unwrap();
    id.to_string()
}

/// 2025-01-01T00:00:00Z.
const NEW_YEAR: i64 = 1_735_689_600_000;

fn empty_world() -> ToolsWorld {
    let world = ToolsWorld { dir: tempfile::tempdir().unwrap() };
    for bucket in ["a", "b"] {
        fs::create_dir(world.path(bucket)).unwrap();
    }
    world
}

#[test]
fn without_time_flags_blocks_of_any_time_are_selected() {
    let world = empty_world();
    // Microseconds in place of milliseconds, and a time long before the year 0.
    for (number, start) in [(1, NEW_YEAR * 1000), (2, -NEW_YEAR * 1000)] {
        let id = write(&world, "data", number, start, &[]);
        let block = world.path("data").join(&id).display().to_string();
        assert_eq!(tools(&["block", "dump", &block]).fine().lines().count(), 5 * 240, "dump {id}");
        let limited = tools(&[
            "block",
            "dump",
            &block,
            "--min-time=0000-01-01T00:00:01Z",
            "--max-time=9999-12-31T23:59:58Z",
        ]);
        assert_eq!(limited.fine(), "", "dump {id} with limits");
    }
    world.upload().fine();
    assert_eq!(world.bucket(&["ls"]).fine().lines().count(), 2);
    let to = world.config("b");
    let replicated = world.bucket(&["replicate", "--single-run", "--objstore-to.config", &to]);
    replicated.fine();
    assert_eq!(tools(&["bucket", "--objstore.config", &to, "ls"]).fine().lines().count(), 2);
    let blocks = world.ids().into_iter().map(|id| world.path("data").join(id).display().to_string());
    let [one, two]: [String; 2] = blocks.collect::<Vec<_>>().try_into().unwrap();
    tools(&["block", "diff", &one, &two]).found();
}

#[test]
fn blocks_of_one_upload_are_compared_with_each_other() {
    let world = empty_world();
    let first = write(&world, "data", 1, NEW_YEAR, &[]);
    let second = write(&world, "data", 2, NEW_YEAR + 3_600_000, &[]);
    for run in ["planned", "done", "repeated"] {
        let dry = if run == "planned" { &["--dry-run"][..] } else { &[] };
        let args = ["upload-blocks", "--path", &world.text("data"), "--label", "cluster=\"eu-1\""];
        let report = world.bucket(&[&args[..], dry].concat()).found();
        let line = report.lines().find(|line| line.contains(&second)).unwrap();
        assert!(line.contains(&format!("overlaps block {first}")), "{run}: {report}");
    }
    assert_eq!(world.bucket(&["ls"]).fine(), format!("{first}\n"));
}

#[test]
fn labels_of_an_upload_are_added_to_those_of_the_block() {
    let world = empty_world();
    let id = write(&world, "data", 1, NEW_YEAR, &[("cluster", "old"), ("replica", "a")]);
    world.upload().fine();
    let meta = BlockMeta::parse(&fs::read(world.path("a").join(id).join("meta.json")).unwrap()).unwrap();
    let labels: Vec<_> = meta.thanos.unwrap().labels.into_iter().collect();
    let expected = [("cluster", "eu-1"), ("replica", "a")].map(|(n, v)| (n.to_owned(), v.to_owned()));
    assert_eq!(labels, expected);
}

#[test]
fn verify_goes_on_after_a_folder_that_is_not_a_block() {
    let world = empty_world();
    let id = write(&world, "data", 1, NEW_YEAR, &[]);
    let block = world.path("data").join(id).display().to_string();
    let (other, gone) = (world.text("a"), world.text("gone"));
    let report = tools(&["block", "verify", &other, &gone, &block]).found();
    assert!(report.contains(&format!("{other}: 1 problem")), "{report}");
    assert!(report.contains(&format!("{gone}: 1 problem")), "{report}");
    assert!(report.contains(&format!("{block}: good: 5 series")), "{report}");
    tools(&["block", "verify", &gone]).failed(Cause::Missing);
}

#[test]
fn names_from_a_block_cannot_control_a_terminal_or_a_table() {
    let world = empty_world();
    write(&world, "data", 1, NEW_YEAR, &[("team", "a|b\u{1b}[2J\nc")]);
    world.upload().fine();
    for args in [&["inspect"][..], &["inspect", "--output=tsv"], &["ls", "--output=wide"], &["analyze"]] {
        let text = world.bucket(args).fine();
        assert!(!text.contains('\u{1b}'), "{args:?}: {text:?}");
    }
    let table = world.bucket(&["inspect"]).fine();
    let cell = "team=a\\|b\\u{1b}[2J\\nc";
    assert!(table.contains(cell), "{table}");
}

#[test]
fn a_mark_that_changes_nothing_and_a_mark_from_the_future_are_noticed() {
    let world = empty_world();
    let id = write(&world, "data", 1, NEW_YEAR, &[]);
    world.upload().fine();
    let mark = |more: &[&str]| {
        world.bucket(&[&["mark", "--id", &id, "--marker=no-compact-mark.json"][..], more].concat())
    };
    mark(&["--remove"]).found();
    mark(&["--details=x", "--dry-run"]).fine();
    mark(&["--details=x"]).fine();
    mark(&["--details=x"]).found();
    let file = world.path("a").join(&id).join("no-compact-mark.json");
    let later = text::now() + std::time::Duration::from_secs(86_400);
    let text = fs::read_to_string(&file).unwrap();
    let mut fields: serde_json::Value = serde_json::from_str(&text).unwrap();
    world.bucket(&["verify", "--issues=manifest"]).fine();
    fields["no_compact_time"] = (later.as_millis() / 1000).into();
    fs::write(&file, fields.to_string()).unwrap();
    let report = world.bucket(&["verify", "--issues=manifest"]).found();
    assert!(report.contains("no-compact-mark.json is from") && report.contains("in the future"), "{report}");
    fields["details"] = "one\ntwo".into();
    fs::write(&file, fields.to_string()).unwrap();
    let text = mark(&["--details=x"]).found();
    assert!(text.contains(": one\\ntwo") && text.lines().count() == 1, "{text}");
    fs::write(&file, "<html>sign in</html>").unwrap();
    let report = world.bucket(&["verify", "--issues=manifest"]).found();
    assert!(report.contains("no-compact-mark.json cannot be used"), "{report}");
}

#[test]
fn a_damaged_chunk_names_its_series() {
    let world = empty_world();
    let id = write(&world, "data", 1, NEW_YEAR, &[]);
    let segment = world.path("data").join(&id).join("chunks/000001");
    let mut bytes = fs::read(&segment).unwrap();
    bytes[40] ^= 0x40;
    fs::write(&segment, bytes).unwrap();
    let report = tools(&["block", "verify", &world.path("data").join(&id).display().to_string()]).found();
    assert!(report.contains("chunks/000001 at byte") && report.contains(", series app_"), "{report}");
}

#[test]
fn an_error_of_a_meta_names_the_file_once() {
    let world = empty_world();
    let id = write(&world, "data", 1, NEW_YEAR, &[]);
    let block = world.path("data").join(&id);
    fs::write(block.join("meta.json"), "<html>").unwrap();
    let error = tools(&["block", "dump", &block.display().to_string()]).failed(Cause::Damaged);
    assert_eq!(error, format!("block {id}: meta.json: expected value at line 1 column 1"));
}
