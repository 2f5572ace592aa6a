//! This crate and a real Prometheus read blocks that the other one wrote, and give the same answers.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use model::{Labels, MatchOp, Matcher, TimeRange, Timestamp};
use serde_json::Value;
use tsdb::{
    Block, BlockMeta, BlockOptions, BlockWriter, Ulid, VerifyEvent, Workload, parse_block_id, verify_dir,
};

use super::{Prometheus, is_installed};

/// Samples by the text of their series.
type SampleBits = BTreeMap<String, Vec<(i64, u64)>>;

/// The directories of the blocks in `dir`, oldest first.
fn blocks(dir: &Path) -> Vec<PathBuf> {
    let mut blocks: Vec<PathBuf> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.file_name().and_then(|name| name.to_str()).and_then(parse_block_id).is_some())
        .collect();
    blocks.sort_by_key(|path| Block::open(path).unwrap().meta().min_time);
    blocks
}

/// Labels as Prometheus prints them.
fn text(labels: &Labels) -> String {
    let pairs: Vec<String> = labels.iter().map(|label| format!("{}={:?}", label.name, label.value)).collect();
    format!("{{{}}}", pairs.join(", "))
}

/// The floats of a block that match, without those that are deleted.
fn floats(block: &Block, matchers: &[Matcher], into: &mut SampleBits) {
    for series in block.select(matchers, TimeRange::ALL).unwrap() {
        let series = series.unwrap();
        let out = into.entry(text(&series.labels)).or_default();
        for chunk in block.chunks(&series.chunks).unwrap().iter().filter(|c| c.encoding.holds_floats()) {
            let (mut timestamps, mut values) = (Vec::new(), Vec::new());
            chunk.decode_floats(&mut timestamps, &mut values).unwrap();
            let is_deleted = |t| series.is_deleted(Timestamp::from_millis(t));
            let samples = timestamps.into_iter().zip(values).filter(|(t, _)| !is_deleted(*t));
            out.extend(samples.map(|(t, value)| (t, value.to_bits())));
        }
    }
    into.retain(|_, samples| !samples.is_empty());
}

fn floats_of(dirs: &[PathBuf]) -> SampleBits {
    let mut out = SampleBits::new();
    for dir in dirs {
        floats(&Block::open(dir).unwrap(), &[], &mut out);
    }
    out
}

fn promtool(args: &[&str], dir: &Path) -> String {
    let output = Command::new("promtool").args(["tsdb"]).args(args).arg(dir).output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The output of `promtool tsdb dump`: one sample per line.
fn dump(dir: &Path) -> SampleBits {
    let mut out = SampleBits::new();
    // Prometheus requires a write-ahead log.
    std::fs::create_dir_all(dir.join("wal")).unwrap();
    for line in promtool(&["dump"], dir).lines() {
        let mut parts = line.rsplitn(3, ' ');
        let t = parts.next().unwrap().parse().unwrap();
        let value = match parts.next().unwrap() {
            "+Inf" => f64::INFINITY,
            value => value.parse().unwrap(),
        };
        out.entry(parts.next().unwrap().to_owned()).or_default().push((t, value.to_bits()));
    }
    out
}

fn assert_sound(dir: &Path) -> tsdb::Verification {
    verify_dir(dir, &mut |event| {
        if let VerifyEvent::Problem(error) = event {
            panic!("{error}");
        }
    })
}

/// Writes a block again, chunk by chunk.
fn rewrite(dir: &Path, into: &Path) -> BlockMeta {
    let block = Block::open(dir).unwrap();
    let meta = block.meta();
    let options = BlockOptions {
        times: Some((meta.min_time, meta.max_time)),
        compaction: Some(meta.compaction.clone()),
        ..BlockOptions::new(meta.ulid)
    };
    let mut writer = BlockWriter::create(into, options).unwrap();
    for series in block.select(&[], TimeRange::ALL).unwrap() {
        let series = series.unwrap();
        writer.add_series(&series.labels, block.chunks(&series.chunks).unwrap()).unwrap();
    }
    writer.finish().unwrap()
}

/// Text in the format of OpenMetrics over four hours, and the samples in it.
fn open_metrics() -> (String, SampleBits) {
    let mut out = String::from("# TYPE walk gauge\n");
    let mut expected = SampleBits::new();
    let mut random = 0x9e37_79b9_7f4a_7c15u64;
    for series in 0..60u32 {
        let (job, pod) = (["api", "auth", "web"][series as usize % 3], format!("pod-{:02}", series / 3));
        let key = format!(r#"{{__name__="walk", job="{job}", pod="{pod}"}}"#);
        let mut t = 1_699_999_200_000i64;
        // Some series are in one of the two blocks only.
        let count = if series % 7 == 0 { 100 } else { 900 };
        for number in 0..count {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            t += 15_000 + if series % 2 == 0 { 0 } else { (random >> 40) as i64 % 500 };
            let value = match series % 4 {
                0 => f64::from(number),
                1 => (random % 1000) as f64 / 8.0,
                2 if number % 50 == 3 => f64::INFINITY,
                _ => f64::from_bits(0x4000_0000_0000_0000 | random >> 12),
            };
            let shown = if value.is_infinite() { "+Inf".to_owned() } else { value.to_string() };
            writeln!(out, "walk{{job=\"{job}\",pod=\"{pod}\"}} {shown} {}.{:03}", t / 1000, t % 1000)
                .unwrap();
            expected.entry(key.clone()).or_default().push((t, value.to_bits()));
        }
    }
    out.push_str("# EOF\n");
    (out, expected)
}

#[test]
fn blocks_of_promtool_are_read_and_written_again_as_they_were() {
    if !is_installed("promtool") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (text, expected) = open_metrics();
    let (input, theirs, ours) =
        (dir.path().join("input.om"), dir.path().join("theirs"), dir.path().join("ours"));
    std::fs::write(&input, text).unwrap();
    let status = Command::new("promtool")
        .args(["tsdb", "create-blocks-from", "openmetrics", "--quiet"])
        .args([&input, &theirs])
        .status()
        .unwrap();
    assert!(status.success());
    let dirs = blocks(&theirs);
    assert!(dirs.len() >= 2, "{dirs:?}");
    assert!(floats_of(&dirs) == expected, "samples differ");
    assert!(dump(&theirs) == expected, "samples differ from what promtool reads");

    std::fs::create_dir(&ours).unwrap();
    for block in &dirs {
        let found = assert_sound(block);
        let meta = rewrite(block, &ours);
        let written = ours.join(block.file_name().unwrap());
        assert_eq!(assert_sound(&written), found);
        let of = Block::open(block).unwrap();
        let samples = of.meta().stats.samples;
        assert_eq!((meta.stats.samples, meta.stats.series), (samples, of.meta().stats.series));
        // Files that have only one valid form are the same, byte for byte.
        for file in ["chunks/000001", "tombstones"] {
            let read = |dir: &Path| std::fs::read(dir.join(file)).unwrap();
            assert!(read(block) == read(&written), "{file} differs");
        }
    }
    assert!(dump(&ours) == expected, "promtool reads something else from what we wrote");
    let listed = promtool(&["list"], &ours);
    for block in &dirs {
        let name = block.file_name().unwrap().to_str().unwrap();
        assert!(listed.contains(name), "{listed}");
        let analyzed = promtool(&["analyze", "--limit=3", ours.to_str().unwrap()], Path::new(name));
        assert!(analyzed.contains("Series: "), "{analyzed}");
    }
    let values = Block::open(&dirs[0]).unwrap().index().label_values("job").unwrap();
    assert_eq!(values, ["api", "auth", "web"]);
}

/// A workload that Prometheus 2.42 can read, in the past.
fn workload() -> Workload {
    Workload {
        series: 2_000,
        churn: 0.3,
        interval: Duration::from_secs(60),
        jitter: Duration::from_millis(300),
        histograms: 0.1,
        start: Timestamp::from_millis(1_700_006_400_000),
        ..Workload::default()
    }
}

/// The answer to an instant query at the end of the workload.
fn query(server: &Prometheus, query: &str) -> Value {
    let encoded: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let at = (workload().start.as_millis() + 7_200_000) / 1000;
    let answer = server.request("GET", &format!("/api/v1/query?query={encoded}&time={at}"), &[]).unwrap();
    let body = answer.split_once("\r\n\r\n").unwrap().1;
    // The body may be chunked: pieces with their length before them.
    let start = body.find('{').unwrap();
    let whole: String =
        if answer.contains("Transfer-Encoding: chunked") { unchunk(body) } else { body[start..].to_owned() };
    let mut value: Value = serde_json::from_str(&whole).unwrap_or_else(|e| panic!("{e}: {whole}"));
    assert_eq!(value["status"], "success", "{value}");
    value["data"]["result"].take()
}

fn unchunk(mut body: &str) -> String {
    let mut out = String::new();
    while let Some((length, rest)) = body.split_once("\r\n") {
        let length = usize::from_str_radix(length.trim(), 16).unwrap();
        if length == 0 {
            break;
        }
        out.push_str(&rest[..length]);
        body = &rest[length + 2..];
    }
    out
}

/// The floats in the answer to a query of a range vector.
fn floats_in(answer: &Value) -> SampleBits {
    let mut out = SampleBits::new();
    for series in answer.as_array().unwrap() {
        let Some(samples) = series["values"].as_array() else { continue };
        let metric = series["metric"].as_object().unwrap();
        let labels = metric.iter().map(|(name, value)| (name.as_str(), value.as_str().unwrap()));
        let samples = samples.iter().map(|sample| {
            let t = (sample[0].as_f64().unwrap() * 1000.0).round() as i64;
            (t, sample[1].as_str().unwrap().parse::<f64>().unwrap().to_bits())
        });
        out.insert(text(&Labels::from_pairs(labels).unwrap()), samples.collect());
    }
    out
}

/// A selector as PromQL writes it, and its matchers.
type Selector = (&'static str, &'static [(MatchOp, &'static str, &'static str)]);

const SELECTORS: &[Selector] = &[
    (r#"{job="api",pod=~"a.*"}"#, &[(MatchOp::Equal, "job", "api"), (MatchOp::Regex, "pod", "a.*")]),
    (
        r#"{job=~"api|web",zone!="zone-a"}"#,
        &[(MatchOp::Regex, "job", "api|web"), (MatchOp::NotEqual, "zone", "zone-a")],
    ),
    (
        r#"{__name__=~".*_050_.*",pod!~".*[0-4]"}"#,
        &[(MatchOp::Regex, "__name__", ".*_050_.*"), (MatchOp::NotRegex, "pod", ".*[0-4]")],
    ),
    (r#"{job="cart",zone=""}"#, &[(MatchOp::Equal, "job", "cart"), (MatchOp::Equal, "zone", "")]),
    (r#"{job="cart",nothing=""}"#, &[(MatchOp::Equal, "job", "cart"), (MatchOp::Equal, "nothing", "")]),
    (r#"{job="none"}"#, &[(MatchOp::Equal, "job", "none")]),
];

fn assert_equal_answers(server: &Prometheus, dir: &Path) {
    let block = Block::open(dir).unwrap();
    for (selector, matchers) in SELECTORS {
        let matchers: Vec<Matcher> =
            matchers.iter().map(|(op, name, value)| Matcher::new(*op, name, value).unwrap()).collect();
        let mut ours = SampleBits::new();
        floats(&block, &matchers, &mut ours);
        let theirs = floats_in(&query(server, &format!("{selector}[3h]")));
        assert!(ours == theirs, "{selector}: {} series here, {} there", ours.len(), theirs.len());
    }
}

#[test]
fn a_real_prometheus_serves_our_blocks_with_equal_answers_and_deletes_from_them() {
    if !is_installed("prometheus") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let meta = workload()
        .write(&data, BlockOptions::new(Ulid::from_parts(1_700_014_000_000, 7)), &mut |_| {})
        .unwrap();
    let block = data.join(meta.ulid.to_string());
    assert_sound(&block);
    let server = Prometheus::start(dir.path());
    let count = query(&server, r#"count(last_over_time({__name__=~".+"}[3h]))"#);
    assert_eq!(count[0]["value"][1], meta.stats.series.to_string());
    assert_equal_answers(&server, &block);
    let names = query(&server, r#"histogram_count(sum({__name__=~".*_seconds"}))"#);
    assert_eq!(names[0]["value"][1].as_str().unwrap().parse::<f64>().unwrap(), last_histogram_counts(&block));

    // Samples that Prometheus deletes from our block are deleted for us.
    let (from, to) = (meta.min_time.as_millis() / 1000 + 1_000, meta.min_time.as_millis() / 1000 + 3_000);
    let selector: String = r#"{job="api"}"#.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let path = format!("/api/v1/admin/tsdb/delete_series?match[]={selector}&start={from}&end={to}");
    let answer = server.request("POST", &path, &[]).unwrap();
    assert!(answer.contains(" 204 "), "{answer}");
    let after = Block::open(&block).unwrap();
    assert!(after.tombstones().count() > 10, "{:?}", after.meta().stats);
    assert_eq!(after.tombstones().count(), after.meta().stats.tombstones);
    assert_sound(&block);
    assert_equal_answers(&server, &block);
    let bytes = std::fs::read(block.join("tombstones")).unwrap();
    assert_eq!(after.tombstones().to_bytes().len(), bytes.len());
}

/// The sum of the counts of the last histograms of all targets that live to the end.
fn last_histogram_counts(dir: &Path) -> f64 {
    let block = Block::open(dir).unwrap();
    let name = Matcher::new(MatchOp::Regex, "__name__", ".*_seconds").unwrap();
    let mut sum = 0.0;
    for series in block.select(&[name], TimeRange::ALL).unwrap() {
        let chunk = series.unwrap().chunks.last().copied().unwrap();
        // Prometheus looks back five minutes from the end of the block.
        if chunk.range.max < block.meta().max_time.offset_millis(-300_000) {
            continue;
        }
        let mut histograms = Vec::new();
        block.chunk(&chunk).unwrap().decode_histograms(&mut histograms).unwrap();
        sum += histograms.last().unwrap().1.count;
    }
    sum
}

#[test]
fn blocks_that_a_running_prometheus_cut_are_sound_and_read_back() {
    if !is_installed("prometheus") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let server = Prometheus::start(dir.path());
    let mut expected = SampleBits::new();
    let mut batch = Vec::new();
    for number in 0..40i64 {
        let samples: Vec<(i64, f64)> = (0..300)
            .map(|i| (1_700_000_000_000 + i * 15_000 + number, (i * number % 97) as f64 / 3.0))
            .collect();
        let name = format!("walk_{number:02}");
        let messages = samples.iter().map(|&(t, value)| super::sample(t, value));
        batch.push(super::series(&name, 2, messages));
        let key = format!("{{__name__={name:?}}}");
        expected.insert(key, samples.iter().map(|&(t, value)| (t, value.to_bits())).collect());
    }
    let histograms = super::histograms();
    let messages = histograms.iter().map(|(t, histogram)| super::histogram_message(*t, histogram));
    batch.push(super::series("z_histogram", 4, messages));
    server.write(&batch);
    let dirs = blocks(&server.snapshot_dir(dir.path()));
    assert!(!dirs.is_empty());
    assert!(floats_of(&dirs) == expected, "samples differ");
    let mut samples = 0;
    for block in &dirs {
        let found = assert_sound(block);
        samples += found.stats.histogram_samples;
        let written = dir.path().join("again");
        std::fs::create_dir_all(&written).unwrap();
        let meta = rewrite(block, &written);
        let again = Block::open(&written.join(meta.ulid.to_string())).unwrap();
        assert_eq!(again.meta().stats.samples, found.stats.samples);
    }
    assert_eq!(samples, histograms.len() as u64);
}
