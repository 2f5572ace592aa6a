//! Tombstones that another program has put into a bucket: no command may let deleted samples appear again.

use tsdb::{Block, BlockMeta, Tombstones};

use super::*;

/// A bucket whose first block has tombstones, which delete all samples of its first series, and the first minute of the
/// second one.
fn world() -> (ToolsWorld, String) {
    let world = ToolsWorld::uploaded();
    let id = world.ids()[FIRST].clone();
    let block = Block::open(&world.path("data").join(&id)).unwrap();
    let start = block.meta().min_time;
    let mut series = block.select(&[], model::TimeRange::ALL).unwrap();
    let mut next = || series.next().unwrap().unwrap().reference;
    let mut stones = Tombstones::default();
    stones.delete(next(), model::TimeRange::ALL);
    stones.delete(next(), model::TimeRange::new(start, start.offset_millis(30_000)));
    fs::write(world.file(FIRST, "tombstones"), stones.to_bytes()).unwrap();
    let path = world.file(FIRST, "meta.json");
    let mut meta: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    meta["stats"]["numTombstones"] = 2.into();
    fs::write(&path, meta.to_string()).unwrap();
    (world, id)
}

#[test]
fn tombstones_in_a_bucket_are_applied_by_dump_and_rewrite() {
    let (world, id) = world();
    let config = world.config("a");
    let dump = |block: &str| {
        let text = tools(&["block", "dump", block, "--objstore.config", &config]).fine();
        text.lines().map(ToOwned::to_owned).collect::<Vec<_>>()
    };
    let all = tools(&["block", "dump", &world.path("data").join(&id).display().to_string()]).fine();
    let (all, left) = (all.lines().count(), dump(&id));
    // A series of two hours at 1 minute, and one sample.
    assert_eq!(left.len(), all - 121);

    let args = ["rewrite", "--id", &id, "--tmp.dir", &world.text("tmp"), "--output=json"];
    assert!(world.bucket(&args).failed(Cause::Usage).contains("--apply-tombstones"));
    let rows = world.bucket(&[&args[..], &["--apply-tombstones", "--dry-run=false"]].concat()).json();
    assert_eq!((&rows[0]["samplesDeleted"], &rows[0]["seriesDeleted"]), (&121.into(), &1.into()), "{rows}");
    assert_eq!(dump(rows[0]["new"].as_str().unwrap()), left);
    let new = world.path("a").join(rows[0]["new"].as_str().unwrap());
    let meta = BlockMeta::parse(&fs::read(new.join("meta.json")).unwrap()).unwrap();
    assert_eq!(meta.stats.tombstones, 0);

    // A rewrite for another reason applies them too.
    let yaml = "- {matchers: '{__name__=\"nothing\"}'}";
    let rows = world.bucket(&[&args[..], &["--rewrite.to-delete-config", yaml]].concat()).json();
    assert_eq!(rows[0]["samplesDeleted"], 121, "{rows}");
    // A block without tombstones is not changed.
    let other = ["rewrite", "--id", &world.ids()[SECOND], "--apply-tombstones", "--output=json"];
    assert_eq!(world.bucket(&other).json()[0]["result"], "nothing to change");
}

#[test]
fn tombstones_in_a_bucket_are_found_and_not_lost_in_a_copy() {
    let (world, id) = world();
    let report = world.bucket(&["verify"]).found();
    assert!(report.contains(&format!("{id}: manifest: tombstones: Thanos ignores them")), "{report}");
    assert_eq!(report.lines().count(), 2, "{report}");
    let to = world.config("b");
    for dry in [&["--dry-run"][..], &[]] {
        let args =
            ["replicate", "--single-run", "--objstore-to.config", &to, "--tmp.dir", &world.text("tmp")];
        let copied = world.bucket(&[&args[..], dry].concat()).found();
        let line = copied.lines().find(|line| line.contains(&id)).unwrap();
        assert!(line.contains("FAILED") && line.contains("rewrite --apply-tombstones"), "{copied}");
    }
    assert!(!world.path("b").join(&id).exists());

    // Counts that do not agree: the deletions are not those of this block.
    fs::write(world.file(FIRST, "tombstones"), Tombstones::default().to_bytes()).unwrap();
    let error =
        tools(&["block", "dump", &id, "--objstore.config", &world.config("a")]).failed(Cause::Damaged);
    assert!(error.contains("tombstones"), "{error}");
    let args = ["rewrite", "--id", &id, "--apply-tombstones", "--tmp.dir", &world.text("tmp")];
    world.bucket(&args).failed(Cause::Damaged);
}
