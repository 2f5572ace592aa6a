//! Reads the files of `--rule-file`.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use rules::{RuleFile, RuleFileOptions};
use runtime::ConfigMistakes;

use crate::path_pattern::matching_paths;

/// Largest file, in bytes: far larger than real ones.
const MAX_BYTES: u64 = 64 << 20;

/// The rule files that patterns name, by their paths; and what to warn about.
#[derive(Debug, Default)]
pub(crate) struct RuleFiles {
    pub(crate) files: Vec<(String, RuleFile)>,
    pub(crate) warnings: Vec<String>,
}

/// Reads all files that match `patterns`. Of a folder, the files `*.yml` and `*.yaml` are read.
///
/// # Errors
/// Every mistake of every file.
pub(crate) fn read_rule_files(
    patterns: &[String],
    options: &RuleFileOptions,
) -> Result<RuleFiles, ConfigMistakes> {
    let (mut found, mut mistakes) = (RuleFiles::default(), ConfigMistakes::default());
    let mut paths: Vec<PathBuf> = Vec::new();
    for pattern in patterns {
        match matching_paths(pattern) {
            Ok(matching) => {
                let files: Vec<PathBuf> = matching.iter().flat_map(|path| within(path)).collect();
                if files.is_empty() {
                    found.warnings.push(format!("--rule-file={pattern}: no file matches"));
                }
                paths.extend(files);
            }
            Err(why) => mistakes.push(format!("--rule-file: {why}")),
        }
    }
    let mut seen = std::collections::BTreeSet::new();
    paths.retain(|path| seen.insert(path.clone()));
    for path in paths {
        let name = path.display().to_string();
        match read(&path).map(|text| RuleFile::parse(&text, options)) {
            Err(why) => mistakes.push(format!("{name}: {why}")),
            Ok(Err(wrong)) => wrong.iter().for_each(|mistake| mistakes.push(format!("{name}: {mistake}"))),
            Ok(Ok(file)) => {
                found.warnings.extend(file.duplicates().iter().map(|mistake| format!("{name}: {mistake}")));
                found.files.push((name, file));
            }
        }
    }
    mistakes.or_ok(found)
}

/// The path itself, or the rule files in the folder.
fn within(path: &Path) -> Vec<PathBuf> {
    if !path.is_dir() {
        return vec![path.to_owned()];
    }
    let folder = path.display();
    let patterns = ["yaml", "yml"].map(|end| format!("{folder}/*.{end}"));
    let mut files: Vec<PathBuf> =
        patterns.iter().flat_map(|pattern| matching_paths(pattern).unwrap_or_default()).collect();
    files.retain(|file| !file.is_dir());
    files.sort();
    files
}

fn read(path: &Path) -> Result<String, String> {
    let read = || {
        let mut text = String::new();
        File::open(path)?.take(MAX_BYTES + 1).read_to_string(&mut text)?;
        Ok(text)
    };
    let text = read().map_err(|why: std::io::Error| format!("cannot be read: {why}"))?;
    if text.len() as u64 > MAX_BYTES {
        return Err("the file is larger than 64 MiB: split it".to_owned());
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_folders_and_patterns_are_read_once_and_all_mistakes_are_listed() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        let write = |name: &str, text: &str| std::fs::write(path(name), text).unwrap();
        write("a.yaml", "groups: [{name: g, rules: [{record: r, expr: up}, {record: r, expr: up}]}]");
        write("b.yml", "groups: []");
        write("c.txt", "groups: [{name: other}]");
        let read = |patterns: &[String]| read_rule_files(patterns, &RuleFileOptions::default());
        let good = read(&[path(""), path("*.yaml"), path("none/*.yaml")]).unwrap();
        let names: Vec<&String> = good.files.iter().map(|(name, _)| name).collect();
        assert_eq!(names, [&path("a.yaml"), &path("b.yml")]);
        assert_eq!(good.warnings.len(), 2, "{:?}", good.warnings);
        assert!(
            good.warnings[0].contains("no file matches") && good.warnings[1].contains("line 1"),
            "{:?}",
            good.warnings
        );

        write("a.yaml", "groups:\n- name: g\n  rules:\n  - {record: r, expr: 'up +'}\n  - {record: r}\n");
        write("b.yml", "groups: [");
        let wrong = read(&[path("*.y*ml"), path("[")]).unwrap_err();
        assert_eq!(wrong.lines().len(), 4, "{wrong}");
        assert!(
            wrong.lines()[1]
                .starts_with(&format!("{}: line 4: group \"g\", rule 1 \"r\": expr: ", path("a.yaml"))),
            "{wrong}"
        );
    }
}
