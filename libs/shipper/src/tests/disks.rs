//! Full disks, and directories on another file system.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::testing::installed;
use crate::tests::ShipperWorld;

/// A small file system mounted at `dir`; `None`, with a printed line, if mounting is not permitted.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(dir: &Path, size: &str) -> Option<Self> {
        fs::create_dir_all(dir).expect("a folder");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", size, "tmpfs"]).arg(dir).output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Self(dir.to_owned()));
        }
        println!("skipped: no file system can be mounted here");
        None
    }

    fn grow(&self) {
        let grown = Command::new("mount").args(["-o", "remount,size=64m"]).arg(&self.0).status();
        assert!(grown.is_ok_and(|status| status.success()));
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(&self.0).status());
    }
}

#[tokio::test]
async fn blocks_are_copied_where_links_cannot_be_made() {
    if !installed() {
        return;
    }
    let world = ShipperWorld::new(2);
    let Some(_disk) = SmallDisk::mount(&world.data().join("thanos"), "size=64m") else { return };
    let mut run = world.run();
    run.pass().await.expect("a pass");
    assert!(
        world.is_in_bucket(world.blocks[0]) && !world.is_in_bucket(world.blocks[1]),
        "one copy at a time"
    );
    run.pass().await.expect("a pass");
    for block in &world.blocks {
        world.assert_in_bucket(*block);
    }
    assert_eq!(fs::read_dir(world.data().join("thanos/upload")).expect("a folder").count(), 0);
}

#[tokio::test]
async fn full_disk_is_reported_and_uploads_recover() {
    if !installed() {
        return;
    }
    for full in ["data/thanos", "bucket"] {
        let world = ShipperWorld::new(2);
        let path = world.dir.path().join(full);
        let Some(disk) = SmallDisk::mount(&path, "size=16k") else { return };
        fs::write(path.join("filler"), vec![0; 64 << 10]).expect_err("more than there is room for");
        let mut run = world.run();
        let refused = run.pass().await.expect_err("a full disk");
        assert!(refused.contains("No space left on device"), "{refused}");
        let refused = run.pass().await.expect_err("a full disk");
        assert!(world.blocks.iter().all(|block| !world.is_in_bucket(*block)), "{refused}");

        println!("{full}: there is room again");
        disk.grow();
        fs::remove_file(path.join("filler")).expect("the filler");
        for _ in 0..world.blocks.len() {
            run.pass().await.expect("a pass");
        }
        for block in &world.blocks {
            world.assert_in_bucket(*block);
        }
    }
}
