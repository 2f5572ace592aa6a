//! Targets in files, as JSON or YAML.

use std::path::Path;
use std::sync::Arc;

use prometheus_client::metrics::counter::Counter;
use runtime::FileLists;
use runtime::yaml::{Mistakes, YamlNode, YamlValue};
use tokio::sync::Notify;

use crate::config::{FileDiscoveryConfig, TargetGroup, read_group};
use crate::discovery::found::Found;
use crate::discovery::group_json::parse_json;

/// Reads the files now and whenever they may have changed; forever.
pub(super) async fn follow(config: FileDiscoveryConfig, found: Arc<Found>, failures: Counter) {
    let files = FileLists::new("targets", config.files, parse);
    let apply = |listing: runtime::FileListing<TargetGroup>| {
        failures.inc_by(listing.failed as u64);
        found.publish(listing.items);
    };
    files.follow(config.refresh_interval, Arc::new(Notify::new()), apply).await;
}

/// The groups in a file. Each gets the path of the file as a label.
fn parse(path: &Path, text: &str) -> Result<Vec<TargetGroup>, String> {
    let is_json = path.extension().is_some_and(|end| end.eq_ignore_ascii_case("json"));
    let mut groups = if is_json { parse_json(text.as_bytes())? } else { parse_yaml(text)? };
    let path = path.to_string_lossy();
    for group in &mut groups {
        let mut builder = group.labels.to_builder();
        builder.set("__meta_filepath", &path);
        group.labels = builder.build();
    }
    Ok(groups)
}

fn parse_yaml(text: &str) -> Result<Vec<TargetGroup>, String> {
    let root = YamlNode::parse(text).map_err(|mistake| mistake.to_string())?;
    let items = match &root.value {
        YamlValue::List(items) => items.as_slice(),
        YamlValue::Null => &[],
        _ => return Err(format!("expected a list of groups with targets, found {}", root.kind())),
    };
    let mistakes = Mistakes::default();
    let groups =
        items.iter().enumerate().map(|(at, node)| read_group(format!("[{at}]"), node, &mistakes)).collect();
    match mistakes.into_sorted().first() {
        Some(mistake) => Err(mistake.to_string()),
        None => Ok(groups),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_of_json_and_yaml_are_equal() {
        let json = r#"[{"targets": ["a:1", "b:2"], "labels": {"x": "y"}}, {"targets": []}]"#;
        let yaml = "- targets: ['a:1', 'b:2']\n  labels: {x: y}\n- targets: []\n";
        let yaml = parse_yaml(yaml).unwrap();
        assert_eq!(parse_json(json.as_bytes()).unwrap(), yaml);
        let groups = parse(Path::new("/f.json"), json).unwrap();
        assert_eq!(groups[0].labels.to_string(), r#"{__meta_filepath="/f.json", x="y"}"#);
        assert_eq!(groups[0].targets[1].to_string(), r#"{__address__="b:2"}"#);
        assert_eq!(groups.len(), 2);
    }

    #[test]
    fn mistakes_are_named() {
        let check = |path: &str, text: &str, expected: &str| {
            let error = parse(Path::new(path), text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        };
        check("a.yml", "targets: []", "expected a list of groups with targets, found a mapping");
        check("a.yml", "- target: [a]", "line 1: [0].target: unknown field; known fields: targets, labels");
        check("a.yml", "- targets: [[a]]", "line 1: [0].targets[0]: expected text, found a list");
        check("a.json", "[{\"targets\": [1]}]", "invalid type: integer `1`, expected a string");
        check("a.json", "[{\"target\": []}]", "unknown field `target`");
        check("a.json", "{}", "expected a sequence");
    }

    #[test]
    fn damaged_files_never_panic() {
        for (path, text) in [
            ("a.json", r#"[{"targets": ["a:1"], "labels": {"x": "y"}}]"#),
            ("a.yml", "- targets: ['a:1']\n  labels: {x: y}\n"),
        ] {
            for at in 0..text.len() {
                let _ = parse(Path::new(path), &text[..at]);
                for replacement in ["[", "{", "\"", ":", "\u{0}", "\n"] {
                    let _ =
                        parse(Path::new(path), &format!("{}{replacement}{}", &text[..at], &text[at + 1..]));
                }
            }
        }
    }
}
