//! Files that list endpoints, in the form of Prometheus' file discovery.
//!
//! A file is a list of groups, each with `targets`: addresses as in `--endpoint`. It is read again when it changes. A file
//! that is deleted lists nothing, and one that becomes unreadable keeps its endpoints, as in Prometheus. One that was never
//! read makes answers partial.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use runtime::yaml::{YamlNode, YamlValue};
use runtime::{FileListing, FileLists};

use crate::endpoints::address::EndpointAddress;

const SUFFIXES: [&str; 6] = [".json", ".yml", ".yaml", ".JSON", ".YML", ".YAML"];

/// The path of a file, whose last part may contain `*` for any text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FilePattern(String);

/// The text is not a pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("path {0:?} must end in .json, .yml or .yaml, and may contain * only in its last part")]
pub(crate) struct FilePatternError(String);

impl FilePattern {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    fn split(&self) -> (&Path, &str) {
        match self.0.rsplit_once('/') {
            Some(("", name)) => (Path::new("/"), name),
            Some((folder, name)) => (Path::new(folder), name),
            None => (Path::new("."), &self.0),
        }
    }
}

impl FromStr for FilePattern {
    type Err = FilePatternError;

    fn from_str(text: &str) -> Result<Self, FilePatternError> {
        let pattern = Self(text.to_owned());
        let (folder, name) = pattern.split();
        let is_file =
            SUFFIXES.iter().any(|suffix| name.strip_suffix(suffix).is_some_and(|stem| !stem.is_empty()));
        match is_file && !folder.to_string_lossy().contains('*') {
            true => Ok(pattern),
            false => Err(FilePatternError(text.to_owned())),
        }
    }
}

/// What all files say.
pub(super) type Listing = FileListing<EndpointAddress>;

/// The files and their content when they could last be read.
pub(super) fn files(patterns: &[FilePattern]) -> FileLists<EndpointAddress> {
    let patterns = patterns.iter().map(|pattern| PathBuf::from(pattern.as_str())).collect();
    FileLists::new("endpoints", patterns, |_, text| parse(text))
}

/// The addresses in a file; labels of groups are ignored, as in Thanos.
fn parse(text: &str) -> Result<Vec<EndpointAddress>, String> {
    let node = YamlNode::parse(text).map_err(|mistake| mistake.to_string())?;
    let YamlValue::List(groups) = &node.value else {
        return Err(format!("expected a list of groups with targets, found {}", node.kind()));
    };
    let mut addresses = Vec::new();
    for group in groups {
        let at = |node: &YamlNode| node.line.map_or(String::new(), |line| format!("line {line}: "));
        let YamlValue::Map(fields) = &group.value else {
            return Err(format!("{}expected a group with targets, found {}", at(group), group.kind()));
        };
        for (_, value) in fields.iter().filter(|(key, _)| key.name() == "targets") {
            let YamlValue::List(targets) = &value.value else {
                return Err(format!(
                    "{}targets: expected a list of addresses, found {}",
                    at(value),
                    value.kind()
                ));
            };
            for target in targets {
                addresses.push(target.parsed().map_err(|why| format!("{}targets: {why}", at(target)))?);
            }
        }
    }
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(listing: &Listing) -> Vec<String> {
        listing.items.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn endpoints_of_json_and_yaml_files_are_listed() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        let pattern = |name: &str| format!("{}/{name}", folder.path().display()).parse().unwrap();
        write("eu-1.json", r#"[{"targets": ["a:1", "dns+b:2"], "labels": {"x": "y"}}, {"targets": []}]"#);
        write("us-1.yml", "- targets:\n  - c:3\n");
        write("notes.txt", "not a list");
        let mut files = files(&[pattern("*-1.json"), pattern("us-1.yml"), pattern("*.yml")]);
        let all = files.scan();
        assert_eq!((listed(&all), all.unknown), (vec!["a:1".into(), "dns+b:2".into(), "c:3".into()], vec![]));

        // A file that is damaged keeps its endpoints; one that is removed loses them.
        write("us-1.yml", "- targets: [c]\n");
        std::fs::remove_file(folder.path().join("eu-1.json")).unwrap();
        let rest = files.scan();
        assert_eq!((listed(&rest), rest.unknown), (vec!["c:3".to_owned()], vec![]));
        let file = folder.path().join("us-1.yml");
        assert!(
            files.failure(&file).unwrap().starts_with("line 1: targets: endpoint \"c\" is not of the form")
        );

        // So does one that is given without `*`.
        std::fs::remove_file(&file).unwrap();
        let none = Listing { items: vec![], unknown: vec![], failed: 0 };
        assert_eq!(files.scan(), none);
        write("us-1.yml", "- targets: ['d:4']\n");
        assert_eq!(listed(&files.scan()), ["d:4"]);
    }

    #[test]
    fn file_that_was_never_read_is_unknown() {
        let folder = tempfile::tempdir().unwrap();
        let path = format!("{}/stores.yaml", folder.path().display());
        let mut files = files(&[path.parse().unwrap()]);
        let unknown = files.scan().unknown;
        assert!(unknown[0].0 == path && unknown[0].1.contains("No such file"), "{unknown:?}");
        std::fs::write(&path, "").unwrap();
        let why = files.scan().unknown[0].1.clone();
        assert_eq!(why, "expected a list of groups with targets, found nothing");
        std::fs::write(&path, "[]").unwrap();
        let none = Listing { items: vec![], unknown: vec![], failed: 0 };
        assert_eq!(files.scan(), none);
    }

    #[test]
    fn patterns_have_stars_in_the_last_part_only() {
        for bad in ["stores", "/a/*/b.json", ".json", "x.txt", "/a/*"] {
            assert!(bad.parse::<FilePattern>().is_err(), "{bad}");
        }
    }
}
