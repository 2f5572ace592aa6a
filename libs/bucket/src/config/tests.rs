//! The fixtures in `testdata`: files in `good` have no warning, files in `warned` have the expected warnings, files in
//! `bad` are rejected with every expected text. An expectation is a comment, `# expect: part of a line`.

use std::path::{Path, PathBuf};

use super::*;

fn fixtures(folder: &str) -> Vec<(PathBuf, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(folder);
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{}", folder.display());
    files.into_iter().map(|file| (file.clone(), std::fs::read_to_string(file).unwrap())).collect()
}

fn expectations(text: &str) -> Vec<&str> {
    text.lines().filter_map(|line| line.strip_prefix("# expect: ")).collect()
}

#[test]
fn good_configurations_open_without_warnings() {
    for (file, text) in fixtures("good") {
        let config = BucketConfig::parse(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        assert_eq!(config.warnings(), [], "{}", file.display());
        let opened = config.open(&BucketMetrics::default());
        let bucket = opened.unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        assert_eq!(bucket.name(), config.bucket_name());
    }
}

#[test]
fn fields_without_effect_are_named() {
    for (file, text) in fixtures("warned") {
        let config = BucketConfig::parse(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let found: Vec<String> = config.warnings().iter().map(Mistake::to_string).collect();
        let expected = expectations(&text);
        assert_eq!(found.len(), expected.len(), "{}: {found:#?}", file.display());
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.starts_with(expected), "{}: {found:?} is not {expected:?}", file.display());
        }
        assert!(config.open(&BucketMetrics::default()).is_ok(), "{}", file.display());
    }
}

#[test]
fn all_mistakes_of_a_bad_configuration_are_reported_together() {
    for (file, text) in fixtures("bad") {
        let error = BucketConfig::parse(&text).expect_err(&file.display().to_string()).to_string();
        for expected in expectations(&text) {
            assert!(error.contains(expected), "{}: {expected:?} is not in:\n{error}", file.display());
        }
        assert!(!expectations(&text).is_empty(), "{}", file.display());
    }
}

#[test]
fn buckets_of_one_name_have_different_locations() {
    let location = |text: &str| {
        let config = BucketConfig::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        config.open(&BucketMetrics::default()).unwrap_or_else(|error| panic!("{text}: {error}")).location()
    };
    let s3 = |endpoint: &str, bucket: &str, prefix: &str| {
        location(&format!(
            "type: S3\nconfig: {{bucket: {bucket}, endpoint: '{endpoint}', access_key: a, secret_key: b}}\nprefix: '{prefix}'"
        ))
    };
    let all = [
        s3("e:1", "b", ""),
        s3("f:1", "b", ""),
        s3("e:1", "b", "p"),
        s3("e:1", "c", ""),
        s3("e:1", "b", "p/q"),
    ];
    let different: std::collections::BTreeSet<&String> = all.iter().collect();
    assert_eq!(different.len(), all.len(), "{all:?}");
    assert_eq!(s3("e:1", "b", "p"), all[2]);
    assert!(!all[0].contains("secret"));
}

#[test]
fn secrets_are_not_printed() {
    let text = "type: S3\nconfig: {bucket: b, endpoint: 'e:1', access_key: visible, secret_key: hidden}";
    let config = format!("{:?}", BucketConfig::parse(text).unwrap());
    assert!(
        config.contains("\"b\"") && !config.contains("hidden") && !config.contains("visible"),
        "{config}"
    );
}

#[test]
fn the_examples_in_the_documentation_have_no_mistakes() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/object-storage.md");
    let page = std::fs::read_to_string(page).unwrap();
    let examples: Vec<&str> =
        page.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert_eq!(examples.len(), 5);
    for example in examples {
        let text = runtime::expand_env(example, |_| Some("x".to_owned())).unwrap();
        let config = BucketConfig::parse(&text).unwrap_or_else(|error| panic!("{example}\n{error}"));
        assert_eq!(config.warnings(), [], "{example}");
    }
}
