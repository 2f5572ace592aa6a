//! Samples that Prometheus cuts twice, into two blocks, as it does after a kill with an out-of-order window.

use super::*;

/// Copies a block to a new one with the same samples, and these sources and parents; both lists have the block itself if
/// they are empty.
fn copy(world: &ShipperWorld, of: Ulid, age: u64, level: u32, parents: &[Ulid], sources: &[Ulid]) -> Ulid {
    let new = Ulid::from_parts(of.timestamp_ms() + age, u128::from(age));
    fs::create_dir_all(world.local(new).join("chunks")).expect("a folder");
    for file in ["index", "meta.json", "tombstones", "chunks/000001"] {
        fs::copy(world.local(of).join(file), world.local(new).join(file)).expect("a copy");
    }
    edit_meta(&world.local(new), |meta| {
        let (min_time, max_time) = (meta.min_time, meta.max_time);
        let desc = |parent: &Ulid| tsdb::BlockDesc { ulid: *parent, min_time, max_time };
        meta.compaction.parents = parents.iter().map(desc).collect();
        meta.compaction.sources = if sources.is_empty() { vec![new] } else { sources.to_vec() };
        meta.compaction.level = level;
        meta.ulid = new;
    });
    new
}

#[tokio::test]
async fn a_block_that_joins_equal_samples_of_uploaded_blocks_replaces_them() {
    if !installed() {
        return;
    }
    let world = ShipperWorld::new(1);
    let first = world.blocks[0];
    let second = copy(&world, first, 1, 1, &[], &[]);
    out_of_order(&world.local(second));
    let mut run = world.run();
    run.pass().await.expect("a pass");
    world.assert_in_bucket(first);
    world.assert_in_bucket(second);

    println!(
        "Prometheus merges both; readers of the bucket then ignore them, because the new block has all of their sources"
    );
    let merged = copy(&world, first, 2, 2, &[first, second], &[first, second]);
    for block in [first, second] {
        fs::remove_dir_all(world.local(block)).expect("a block");
    }
    let mut again = world.run();
    again.pass().await.expect("a pass");
    world.assert_in_bucket(merged);
    assert_eq!(again.metrics.lost.get(), 0);

    println!("without the journal, or once more, nothing is uploaded");
    let next = copy(&world, merged, 3, 2, &[merged], &[first, second]);
    fs::remove_dir_all(world.local(merged)).expect("a block");
    again.pass().await.expect("a pass");
    assert!(!world.is_in_bucket(next));
    fs::remove_file(world.data().join("thanos/shipper-journal.json")).expect("the journal");
    world.run().pass().await.expect("a pass");
    assert!(!world.is_in_bucket(next));
}
