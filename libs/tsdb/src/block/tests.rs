//! Blocks of other projects, and the errors of damaged ones.

use std::path::PathBuf;

use model::{MatchOp, Timestamp};

use super::*;

/// Conformance data of public projects; none when it is not installed.
fn conformance(path: &str) -> Option<PathBuf> {
    let root = std::env::var_os("ISTHMUS_CONFORMANCE").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/conformance")),
        PathBuf::from,
    );
    let path = root.join(path);
    if !path.exists() {
        println!("skipped: {} is not there", path.display());
        return None;
    }
    Some(path)
}

/// The messages of a verification.
fn problems(dir: &Path) -> (Verification, Vec<String>) {
    let mut told = Vec::new();
    let found = verify_dir(dir, &mut |event| {
        if let VerifyEvent::Problem(error) = event {
            told.push(error.to_string());
        }
    });
    assert_eq!(found.problems, told.len() as u64);
    (found, told)
}

#[test]
fn an_index_of_the_first_version_is_read_whole() {
    let Some(dir) = conformance("blocks/index_format_v1") else { return };
    let block = Block::open(&dir).unwrap();
    assert_eq!(block.index().version(), crate::IndexVersion::V1);
    assert_eq!(block.meta().stats.series, 102);
    let all: Vec<BlockSeries> = block.select(&[], TimeRange::ALL).unwrap().collect::<Result<_, _>>().unwrap();
    assert_eq!(all.len(), 102);
    for series in &all {
        let chunks = block.chunks(&series.chunks).unwrap();
        let (mut timestamps, mut values) = (Vec::new(), Vec::new());
        chunks[0].decode_floats(&mut timestamps, &mut values).unwrap();
        let expected = match series.labels.value("foo") {
            "bar" => (1, 2.0),
            "baz" => (3, 4.0),
            _ => (0, 0.0),
        };
        assert_eq!((timestamps, values), (vec![expected.0], vec![expected.1]), "{}", series.labels);
        // Old writers left a byte after the last sample.
        assert_eq!((chunks.len(), chunks[0].data.len()), (1, 12));
    }
    let one = block.index().matching(&[Matcher::new(MatchOp::Regex, "foo", "ba.*").unwrap()]).unwrap();
    let values = block.index().label_values("bar").unwrap();
    assert!(values.is_sorted() && values.len() == 100, "{values:?}");
    for value in &values {
        assert_eq!(block.index().postings("bar", value).unwrap().len(), 1, "bar={value}");
    }
    assert_eq!(one.len(), 2, "{:?}", block.index().label_values("foo"));
    let (found, told) = problems(&dir);
    assert_eq!(told, Vec::<String>::new());
    assert_eq!((found.stats.samples, found.stats.chunks, found.stats.series), (102, 102, 102));
    assert_eq!(found.range, Some(TimeRange::new(Timestamp::EPOCH, Timestamp::from_millis(3))));
}

#[test]
fn chunks_whose_times_wrap_are_read_unchanged_and_reported_by_verification() {
    let Some(dir) = conformance("blocks/out_of_order_chunks") else { return };
    let bytes = std::fs::read(dir.join("index")).unwrap();
    let id = Ulid::nil();
    let file = Arc::new(bytes::Bytes::from(bytes));
    let index = Index::open(id, file.clone(), IndexMemory::default()).unwrap();
    let all: Vec<_> =
        index.scan(index.all_postings().unwrap().into_iter()).collect::<Result<_, _>>().unwrap();
    let [series] = all.as_slice() else { panic!("{all:?}") };
    assert_eq!(series.labels.to_string(), r#"{lbl1="1"}"#);
    let times: Vec<(i64, i64)> =
        series.chunks.iter().map(|c| (c.range.min.as_millis(), c.range.max.as_millis())).collect();
    assert_eq!(series.chunks.len(), 2);
    assert!(times[1].0 <= times[0].1, "the second is not after the first: {times:?}");

    let meta = BlockMeta::new(id, Timestamp::MIN, Timestamp::MAX);
    let parts = BlockParts {
        meta,
        index: file,
        segments: Vec::new(),
        tombstones: None,
        index_memory: IndexMemory::default(),
    };
    let block = Block::from_parts(id, parts).unwrap();
    let mut told = Vec::new();
    block.verify(&mut |event| {
        if let VerifyEvent::Problem(error) = event {
            told.push(error.to_string());
        }
    });
    assert!(told.iter().any(|problem| problem.contains("the one before it ends at")), "{told:#?}");
}

#[test]
fn errors_name_a_directory_that_is_not_a_block() {
    let dir = tempfile::tempdir().unwrap();
    let error = Block::open(&dir.path().join("nothing")).unwrap_err();
    assert!(error.is_not_found() && error.to_string().contains("nothing does not exist"), "{error}");
    let error = Block::open(dir.path()).unwrap_err();
    assert!(error.to_string().contains("meta.json: No such file"), "{error}");
    std::fs::write(dir.path().join("meta.json"), b"{}").unwrap();
    let error = Block::open(dir.path()).unwrap_err();
    assert!(error.is_damage() && error.to_string().contains("missing field `ulid`"), "{error}");
}
