//! Folders of an earlier release: this program reads what is in them and works on in them, and after a rollback the earlier one does.
//!
//! `tests/recorded` has folders of every role as an earlier release left them. With `ISTHMUS_PREVIOUS_BIN`, folders of that program are
//! given to this one and back to it, and the other way round. `rendered_world.rs` has the same for what programs send each other.

mod blocks;
mod folders;
mod mesh;
mod role;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tests::isthmus;

use crate::earlier_release::blocks::Blocks;
use crate::earlier_release::folders::{Age, Folders};
use crate::workspace::root;

/// The folders of a release, named after its version and its commit.
const RECORDED: &str = "tests/recorded/0.1.0-69120d7";

#[test]
fn folders_that_an_earlier_release_left_are_read_and_used() {
    let dir = tempfile::tempdir().expect("a folder");
    copy(&root().join(RECORDED), dir.path());
    let folders = Folders::load(dir.path());
    folders.are_used(&isthmus(), Age::Expired);
    println!("and once more, now that this program has written into them");
    folders.are_used(&isthmus(), Age::Fresh);
}

#[test]
fn folders_are_used_by_both_releases_in_turn() {
    let Some(previous) = previous("folders of both releases in turn") else { return };
    let present = isthmus();
    for (first, second) in [(&previous, &present), (&present, &previous)] {
        println!("{} first, then {}", first.display(), second.display());
        let dir = tempfile::tempdir().expect("a folder");
        let folders = Folders::fill(first, dir.path());
        for program in [second, first, second] {
            println!("{}", program.display());
            folders.are_used(program, Age::Fresh);
        }
    }
}

/// What the compactor and the store of an earlier release have left, and when it is old.
#[test]
fn marks_and_acknowledgements_of_an_earlier_release_are_understood() {
    let dir = tempfile::tempdir().expect("a folder");
    copy(&root().join(RECORDED), dir.path());
    let stored = Folders::load(dir.path()).stored().to_owned();
    are_honoured(&Blocks::of(dir.path()), &isthmus(), &stored);
}

#[test]
fn marks_and_acknowledgements_are_understood_by_both_releases() {
    let Some(previous) = previous("marks of both releases in turn") else { return };
    let present = isthmus();
    for (first, second) in [(&previous, &present), (&present, &previous)] {
        println!("{} first, then {}", first.display(), second.display());
        let dir = tempfile::tempdir().expect("a folder");
        let blocks = Blocks::of(dir.path());
        let stored = blocks.fill(first);
        are_honoured(&blocks, second, &stored);
        blocks.are_used(first, &stored);
    }
}

/// A compactor of another release removes the blocks that one of the first has marked, but not while a store of the first may read
/// them: it waits for its acknowledgement until that is old.
fn are_honoured(blocks: &Blocks, other: &Path, stored: &str) {
    let marked = blocks.marked();
    assert!(marked > 0, "blocks were merged, so the first ones are marked");
    blocks.compact(other, &["--delete-delay=0s"]);
    assert_eq!(blocks.marked(), marked, "a store may read them");
    for days in [1, 60, 400] {
        println!("{days} days later");
        blocks.set_back(Duration::from_secs(days * 86_400));
        blocks.are_read(other, stored);
    }
    blocks.set_back(Duration::from_secs(3 * 86_400));
    blocks.compact(other, &["--delete-delay=0s"]);
    assert_eq!(blocks.marked(), 0, "no store that still runs may read them");
    blocks.are_read(other, stored);
}

/// Writes the folders that `ISTHMUS_PREVIOUS_BIN` leaves into `ISTHMUS_RECORD`, for `tests/recorded`.
#[test]
#[ignore = "checks nothing: a person runs it to record the folders of a release for tests/recorded"]
fn folders_of_a_release_are_recorded() {
    let to = std::env::var_os("ISTHMUS_RECORD").expect("ISTHMUS_RECORD names a folder");
    let program = previous("the record").expect("ISTHMUS_PREVIOUS_BIN names the program of the release");
    fs::create_dir_all(&to).expect("a folder");
    drop(Folders::fill(&program, Path::new(&to)));
}

/// The program of the previous release; without it, prints that `what` is skipped.
fn previous(what: &str) -> Option<PathBuf> {
    let previous = std::env::var_os("ISTHMUS_PREVIOUS_BIN").map(PathBuf::from);
    if previous.is_none() {
        println!("skipped: {what} (ISTHMUS_PREVIOUS_BIN does not name the program of the previous release)");
    }
    previous
}

/// Copies a folder; the files of a checkout may have any mode, and those of the PKI are private.
fn copy(from: &Path, to: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::create_dir_all(to).expect("a folder");
    fs::set_permissions(to, fs::Permissions::from_mode(0o700)).expect("a mode");
    for entry in fs::read_dir(from).unwrap_or_else(|error| panic!("{}: {error}", from.display())) {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::write(&target, fs::read(entry.path()).expect("a file")).expect("a file");
            fs::set_permissions(&target, fs::Permissions::from_mode(0o600)).expect("a mode");
        }
    }
}
