//! The blocks that a ruler uploads, compared with what it has recorded and what its StoreAPI answers.

use std::process::Command;
use std::time::SystemTime;

use super::*;

/// The range of blocks, in milliseconds. The ruler looks for blocks to cut five seconds after its start.
const RANGE: i64 = 2_000;

const RULES: &str = "groups:\n- name: g\n  interval: 100ms\n  rules:\n\
    \x20 - {record: 'recorded:time', expr: vector(time())}\n\
    \x20 - {record: 'recorded:odd', expr: 'vector(time()) * NaN or label_replace(vector(1e300), \"a\", \"b\\\"\\\\ü\", \"\", \"\")'}\n\
    \x20 - {alert: Fires, expr: vector(1)}\n";

/// Labels and samples of a line as `promtool tsdb dump` prints it: `{labels} value time`.
fn parsed(line: &str) -> (String, i64, String) {
    let (rest, time) = line.rsplit_once(' ').expect("a time");
    let (labels, value) = rest.rsplit_once(' ').expect("a value");
    (labels.to_owned(), time.parse().expect("milliseconds"), value.to_owned())
}

fn dump(command: &mut Command) -> BTreeMap<(String, i64), String> {
    let output = command.output().expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut found = BTreeMap::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let (labels, time, value) = parsed(line);
        assert_eq!(found.insert((labels, time), value), None, "{line} is there twice");
    }
    found
}

/// Samples of an answer as those of a dump.
fn as_dumped(samples: &BTreeMap<(String, String), String>) -> BTreeMap<(String, i64), String> {
    let of_series = |text: &str| {
        let labels: BTreeMap<String, String> = serde_json::from_str(text).expect("labels");
        let labels = labels.iter().filter(|(name, _)| !["cluster", "replica"].contains(&name.as_str()));
        let labels: Vec<String> = labels.map(|(name, value)| format!("{name}={value:?}")).collect();
        format!("{{{}}}", labels.join(", "))
    };
    let millis = |text: &str| (text.parse::<f64>().expect("seconds") * 1_000.0).round() as i64;
    samples.iter().map(|((series, time), value)| ((of_series(series), millis(time)), value.clone())).collect()
}

/// The only block in a folder.
fn block_in(folder: &Path) -> Result<PathBuf, String> {
    let entries = fs::read_dir(folder).map_err(|why| why.to_string())?;
    let mut paths = entries.map(|entry| entry.expect("an entry").path());
    paths.find(|path| path.join("meta.json").exists()).ok_or_else(|| "no block".to_owned())
}

/// Compares the section of Thanos with what its ruler writes.
fn check_meta(block: &Path) -> (i64, i64) {
    let text = fs::read_to_string(block.join("meta.json")).expect("a file");
    let meta: Value = serde_json::from_str(&text).expect("JSON");
    let thanos = &meta["thanos"];
    assert_eq!(thanos["labels"], serde_json::json!({"cluster": "obs", "replica": "a"}), "{text}");
    assert_eq!(
        (&thanos["source"], &thanos["downsample"]["resolution"], &thanos["version"]),
        (&"ruler".into(), &0.into(), &1.into())
    );
    assert_eq!(thanos["segment_files"], serde_json::json!(["000001"]), "{text}");
    let files: Vec<&str> = thanos["files"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|file| file["rel_path"].as_str())
        .collect();
    assert_eq!(files, ["chunks/000001", "index", "meta.json"], "{text}");
    for file in thanos["files"].as_array().into_iter().flatten().take(2) {
        let path = block.join(file["rel_path"].as_str().expect("a path"));
        assert_eq!(file["size_bytes"], fs::metadata(&path).expect("a file").len(), "{}", path.display());
    }
    assert_eq!((&meta["compaction"]["level"], &meta["version"]), (&1.into(), &1.into()), "{text}");
    (meta["minTime"].as_i64().expect("a time"), meta["maxTime"].as_i64().expect("a time"))
}

#[test]
fn uploaded_blocks_have_every_recorded_sample_and_nothing_else() {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    let (data, bucket) = (dir.join("data"), dir.join("bucket"));
    fs::create_dir(&bucket).expect("a folder");
    let mut querier = Role::new(dir, "querier", "query", &[]);
    let ruler = Role::new(
        dir,
        "ruler",
        "rule",
        &[
            format!("--query=http://{}", querier.http),
            format!("--rule-file={}", write(dir, "rules.yaml", RULES)),
            format!("--data-dir={}", data.display()),
            format!("--tsdb.block-duration={RANGE}ms"),
            format!("--objstore.config={{type: FILESYSTEM, config: {{directory: {}}}}}", bucket.display()),
            "--label=cluster=\"obs\"".to_owned(),
            "--label=replica=\"a\"".to_owned(),
        ],
    );
    querier.args.push(format!("--endpoint={}", ruler.grpc));
    let _querier = querier.launch();
    // A block ends at a multiple of the range, so that one that begins late is short.
    wait_for("the beginning of a range", PATIENCE, || {
        let now = SystemTime::UNIX_EPOCH.elapsed().expect("a clock").as_millis() as i64;
        if now % RANGE < 200 { Ok(()) } else { Err(now.to_string()) }
    });
    let mut process = ruler.start();
    wait_for("a block in the data folder", PATIENCE, || block_in(&data));
    let recorded = ruler.samples("{__name__!=\"\"}[1h]").expect("samples");
    let served = querier.samples("{cluster=\"obs\"}[1h]").expect("samples");
    // Uploads begin at the start, and are then repeated in long intervals.
    assert_eq!(process.terminate(), Some(0), "{}", process.output());
    let _process = ruler.start();
    let block = wait_for("a block in the bucket", PATIENCE, || block_in(&bucket));

    let (min, max) = check_meta(&block);
    let within = |samples: &BTreeMap<(String, String), String>| -> BTreeMap<(String, i64), String> {
        as_dumped(samples).into_iter().filter(|((_, time), _)| (min..max).contains(time)).collect()
    };
    let recorded = within(&recorded);
    assert_eq!(within(&served), recorded, "StoreAPI differs from the own API");
    let names: std::collections::BTreeSet<&str> =
        recorded.keys().map(|(labels, _)| labels.as_str()).collect();
    println!("{} samples of {} series, {names:?}", recorded.len(), names.len());
    assert_eq!(names.len(), 5, "{recorded:?}");
    let ours = dump(Command::new(isthmus()).args(["tools", "block", "dump"]).arg(&block));
    let exact = |samples: BTreeMap<(String, i64), String>| -> BTreeMap<(String, i64), u64> {
        let value = |text: &str| text.parse::<f64>().expect("a number").to_bits();
        samples.into_iter().map(|(at, text)| (at, value(&text))).collect()
    };
    let recorded = exact(recorded);
    assert_eq!(exact(ours), recorded, "the block differs from what was recorded");
    if Command::new("promtool").arg("--version").output().is_err() {
        return println!("skipped: promtool is not installed");
    }
    let database = dir.join("database");
    fs::create_dir_all(database.join("wal")).expect("a folder");
    let copied = Command::new("cp").arg("-r").arg(&block).arg(&database).status();
    assert!(copied.is_ok_and(|status| status.success()));
    let theirs = dump(Command::new("promtool").args(["tsdb", "dump"]).arg(&database));
    assert_eq!(exact(theirs), recorded, "promtool reads something else");
    let analyzed =
        Command::new("promtool").args(["tsdb", "analyze"]).arg(&database).output().expect("it runs");
    let analysis = String::from_utf8_lossy(&analyzed.stdout).into_owned();
    assert!(analyzed.status.success() && analysis.contains("2 recorded:odd"), "{analysis}");
}
