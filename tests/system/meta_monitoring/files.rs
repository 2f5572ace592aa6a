//! Blocks, and rules with short times.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tests::isthmus;

/// Writes blocks of two hours into a folder.
pub(crate) fn generate_blocks(folder: &Path, more: &[&str]) {
    let output = Command::new(isthmus())
        .args(["tools", "block", "generate", "--series=10", "--output-dir"])
        .arg(folder)
        .args(more)
        .output()
        .expect("isthmus runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A block of which a chunk is damaged, in a data folder.
pub(crate) fn damaged_block(data: &Path) {
    generate_blocks(data, &[]);
    flip_bit(&damaged_segment(data));
}

/// Gives each of two files the name of the other one, at once.
pub(crate) fn exchange(one: &Path, other: &Path) {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).expect("two files");
}

/// The segment of the only block in a folder.
pub(crate) fn damaged_segment(folder: &Path) -> PathBuf {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    let blocks: Vec<PathBuf> = entries.filter(|path| path.join("meta.json").exists()).collect();
    assert_eq!(blocks.len(), 1, "{blocks:?}");
    blocks[0].join("chunks/000001")
}

/// Damages a segment, or repairs it. The file is the same, because the block that is to be uploaded shares it.
pub(crate) fn flip_bit(segment: &Path) {
    let mut bytes = fs::read(segment).expect("a segment");
    bytes[200] ^= 1;
    fs::write(segment, bytes).expect("a segment");
}

/// Replaces texts that must be there.
pub(crate) fn replaced(rules: &str, pairs: &[(&str, &str)]) -> String {
    pairs.iter().fold(rules.to_owned(), |rules, (from, to)| {
        assert!(rules.contains(from), "the rules do not contain {from:?}");
        rules.replace(from, to)
    })
}

/// The shipped rules with short times.
pub(crate) fn quick_rules() -> String {
    let file = crate::workspace::root().join("deploy/rules/isthmus.yaml");
    let rules = fs::read_to_string(file).expect("the rules");
    let pairs = [
        ("for: 5m", "for: 1s"),
        ("for: 15m", "for: 1s"),
        ("[5m]", "[4s]"),
        ("[10m]", "[4s]"),
        ("[15m]", "[4s]"),
        ("[1h:1m]", "[1m:1s]"),
        ("[6h]", "[4s]"),
        ("strategy!=\"\"} + 60", "strategy!=\"\"} + 1"),
        ("> 30 * 60", "> 5"),
        ("> 6 * 3600", "> 5"),
    ];
    replaced(&rules, &pairs)
}

pub(crate) fn write_rules(dir: &Path, rules: &str) {
    fs::create_dir_all(dir.join("rules")).expect("a folder");
    fs::write(dir.join("rules/isthmus.yaml"), rules).expect("a file");
}
