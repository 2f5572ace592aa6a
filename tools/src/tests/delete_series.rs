//! `tools bucket delete-series`: what is marked, what the compactor makes of it, and that no other command brings it back.

use super::*;

/// The series of a block that a dump shows, and its samples.
fn dumped(world: &ToolsWorld, id: &str) -> Vec<String> {
    let text = tools(&["block", "dump", id, "--objstore.config", &world.config("a")]).fine();
    text.lines().map(ToOwned::to_owned).collect()
}

fn mark_of(world: &ToolsWorld, bucket: &str, id: &str) -> PathBuf {
    world.path(bucket).join("isthmus/tombstones").join(format!("{id}.json"))
}

/// A matcher for one of the generated metrics.
fn selector(world: &ToolsWorld) -> String {
    let ids = world.ids();
    let block = tsdb::Block::open(&world.path("data").join(&ids[FIRST])).unwrap();
    let first = block.select(&[], model::TimeRange::ALL).unwrap().next().unwrap().unwrap();
    format!("{{__name__={:?}, cluster=\"eu-1\"}}", first.labels.get("__name__").unwrap())
}

#[test]
fn series_are_masked_and_removed_by_the_compactor_and_verify_says_when_they_are_gone() {
    let world = ToolsWorld::uploaded();
    let ids = world.ids();
    let selector = selector(&world);
    let delete = ["delete-series", "--match", &selector, "--output=json"];
    let dry = world.bucket(&[&delete[..], &["--dry-run"]].concat()).json();
    assert_eq!(dry.as_array().unwrap().len(), 3, "{dry}");
    assert_eq!(dry[0]["result"], "would be masked");
    assert!(!world.path("a").join("isthmus/tombstones").exists());
    assert_eq!(world.bucket(&["verify"]).fine().lines().count(), 1);

    let rows = world.bucket(&[&delete[..], &["--details=test", "--id", &ids[FIRST]]].concat()).json();
    assert_eq!((rows.as_array().unwrap().len(), &rows[0]["result"]), (1, &"masked".into()), "{rows}");
    let rows = world.bucket(&delete).json();
    let results: Vec<_> = rows.as_array().unwrap().iter().map(|row| row["result"].clone()).collect();
    assert_eq!(results, ["masked already", "masked", "masked"]);
    // A command without an effect says so.
    assert!(world.bucket(&delete).found().contains("masked already"));
    let report = world.bucket(&["verify"]).found();
    assert_eq!(report.matches("deleted_series: ").count(), 3, "{report}");

    let before: usize = ids.iter().map(|id| dumped(&world, id).len()).sum();
    let compact = ["compact", "--data-dir", &world.text("work"), "--consistency-delay=0s", "-o=json"];
    let would = world.bucket(&[&compact[..], &["--dry-run"]].concat());
    assert!(would.text.contains("compacted") || would.text.contains("would be rewritten"), "{}", would.text);
    world.bucket(&compact).fine();
    let left: Vec<String> = fs::read_dir(world.path("a"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| tsdb::parse_block_id(name).is_some())
        .filter(|name| !world.path("a").join(name).join("deletion-mark.json").exists())
        .collect();
    let after: Vec<String> = left.iter().flat_map(|id| dumped(&world, id)).collect();
    let metric = selector.split('"').nth(1).unwrap();
    assert!(!after.is_empty() && after.len() < before);
    assert!(after.iter().all(|line| !line.contains(&format!("{metric}{{"))), "{metric}");
    let report = world.bucket(&["verify"]);
    assert!(!report.text.contains("deleted_series"), "{}", report.text);
    // Only the old blocks, which are marked for deletion, still have them.
    let rows: serde_json::Value = serde_json::from_str(&world.bucket(&delete).found()).unwrap();
    for row in rows.as_array().unwrap() {
        assert!(
            row["result"] == "masked already" && ids.iter().any(|id| row["block"] == id.as_str()),
            "{rows}"
        );
    }
}

#[test]
fn copies_and_rewritten_blocks_are_masked_too() {
    let world = ToolsWorld::uploaded();
    let (id, selector) = (world.ids()[FIRST].clone(), selector(&world));
    world.bucket(&["delete-series", "--match", &selector, "--id", &id]).fine();
    let to = world.config("b");
    let args = ["replicate", "--single-run", "--objstore-to.config", &to, "--tmp.dir", &world.text("tmp")];
    world.bucket(&args).fine();
    let of = |path: PathBuf| {
        let mark: serde_json::Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        mark["deletions"].clone()
    };
    let requested = of(mark_of(&world, "a", &id));
    assert_eq!(of(mark_of(&world, "b", &id)), requested);
    let block = tsdb::Block::open(&world.path("data").join(&id)).unwrap();
    let last = block.select(&[], model::TimeRange::ALL).unwrap().last().unwrap().unwrap();
    let yaml = format!("- {{matchers: '{{__name__={:?}}}'}}", last.labels.get("__name__").unwrap());
    let tmp = world.text("tmp");
    let args = [
        "rewrite",
        "--id",
        &id,
        "--rewrite.to-delete-config",
        &yaml,
        "--dry-run=false",
        "-o=json",
        "--tmp.dir",
        &tmp,
    ];
    let rows = world.bucket(&args).json();
    if let Some(new) = rows[0]["new"].as_str() {
        assert_eq!(of(mark_of(&world, "a", new)), requested);
    } else {
        panic!("{rows}");
    }
}

#[test]
fn mistakes_change_nothing() {
    let world = ToolsWorld::uploaded();
    let wrong = |args: &[&str], cause| world.bucket(&[&["delete-series"][..], args].concat()).failed(cause);
    assert!(wrong(&["--match", "{"], Cause::Usage).contains("--match"));
    assert!(wrong(&["--match", "{a=~\".*\"}"], Cause::Usage).contains("matcher"));
    let times = ["--match", "up", "--min-time=2020-01-01T00:00:00Z", "--max-time=2019-01-01T00:00:00Z"];
    assert!(wrong(&times, Cause::Usage).contains("before it begins"));
    let absent = "01HZY3VQ6J0000000000000000";
    assert!(wrong(&["--match", "up", "--id", absent], Cause::Missing).contains("nothing was deleted"));
    assert!(!world.path("a").join("isthmus/tombstones").exists());
    // A mark that cannot be read hides its block, and is reported and not overwritten.
    let id = world.ids()[FIRST].clone();
    let path = mark_of(&world, "a", &id);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, "<html>").unwrap();
    let report = world.bucket(&["verify"]).found();
    assert!(report.contains(&format!("{id}: meta: isthmus/tombstones/{id}.json")), "{report}");
    world.bucket(&["delete-series", "--match", &selector(&world), "--id", &id]).failed(Cause::Missing);
    assert_eq!(fs::read_to_string(&path).unwrap(), "<html>");
}
