//! Files that a pattern names.

use std::fs::DirEntry;
use std::path::{Path, PathBuf};

/// The files that exist and match a pattern, whose last part may contain `*` for any text, in no particular order; the path itself,
/// whether or not it exists, where it has no `*`.
pub fn matching_files(pattern: &Path) -> Vec<PathBuf> {
    let name = pattern.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if !name.contains('*') {
        return vec![pattern.to_owned()];
    }
    let folder = pattern.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let is_named = |entry: &DirEntry| entry.file_name().to_str().is_some_and(|file| is_match(name, file));
    entries.filter(is_named).map(|entry| entry.path()).collect()
}

/// Whether a name matches a pattern in which `*` is any text.
fn is_match(pattern: &str, name: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(name) = name.strip_prefix(first) else { return false };
    (0..=name.len()).filter(|at| name.is_char_boundary(*at)).any(|at| is_match(rest, &name[at..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_any_text() {
        for (pattern, name, expected) in [
            ("*.json", "a.json", true),
            ("a*b*.yml", "axxbyy.yml", true),
            ("a*b*.yml", "axx.yml", false),
            ("*.yml", "größe.yml", true),
            ("a.yml", "b.yml", false),
        ] {
            assert_eq!(is_match(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn a_path_without_a_star_need_not_exist() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a.yml", "b.yml", "c.json"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        let found = |name: &str| {
            let mut found = matching_files(&folder.path().join(name));
            found.sort();
            found
                .iter()
                .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(found("*.yml"), ["a.yml", "b.yml"]);
        assert_eq!(found("missing.yml"), ["missing.yml"]);
        assert!(matching_files(&folder.path().join("none/*.yml")).is_empty());
    }
}
