//! What earlier releases rely on: files in the repository say what it is, and only ever grow.

mod messages;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Compares the lines of a file with those that hold now. None may have gone, because of what `harm` says; new ones are added by
/// `ISTHMUS_REGENERATE=1 ./tests/run`.
pub(crate) fn only_grows(path: &Path, now: &BTreeSet<String>, harm: &str) {
    let text = fs::read_to_string(path).unwrap_or_default();
    let mut frozen: BTreeSet<String> = text.lines().map(str::to_owned).collect();
    let gone: Vec<_> = frozen.difference(now).collect();
    assert!(gone.is_empty(), "{harm}: {gone:#?}");
    let new: Vec<String> = now.difference(&frozen).cloned().collect();
    if std::env::var_os("ISTHMUS_REGENERATE").is_some() {
        frozen.extend(new);
        let text: String = frozen.iter().map(|line| format!("{line}\n")).collect();
        fs::write(path, text).expect("a file");
        return;
    }
    assert!(new.is_empty(), "{}: add these with ISTHMUS_REGENERATE=1 ./tests/run: {new:#?}", path.display());
}
