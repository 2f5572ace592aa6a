//! Pairs of flags for a text: one with the text, and one with a file that has it.

use std::path::Path;

use runtime::{ConfigMistakes, config_origin, load_config};

/// The text of a pair of flags; `None` if it is not given, or empty.
pub(super) fn loaded(
    flag: &str,
    content: Option<&str>,
    file: Option<&Path>,
    mistakes: &mut ConfigMistakes,
) -> Option<String> {
    // Operators give both flags, of which one is empty.
    let content = content.filter(|content| !content.is_empty());
    let file = file.filter(|file| !file.as_os_str().is_empty());
    let loaded = mistakes.note(load_config(flag, content, file).map_err(|why| why.to_string())).flatten();
    loaded.filter(|text| !text.trim().is_empty())
}

/// What was parsed, with mistakes that name their flag.
pub(super) fn noted<T>(
    parsed: Result<T, Vec<String>>,
    flag: &str,
    file: Option<&Path>,
    mistakes: &mut ConfigMistakes,
) -> Option<T> {
    let origin = config_origin(flag, file);
    let in_origin = |found: Vec<String>| {
        found.iter().map(|mistake| format!("{origin}: {mistake}")).collect::<ConfigMistakes>()
    };
    mistakes.note(parsed.map_err(in_origin))
}

pub(super) fn folder_of(file: Option<&Path>) -> &Path {
    file.and_then(Path::parent).unwrap_or(Path::new(""))
}
