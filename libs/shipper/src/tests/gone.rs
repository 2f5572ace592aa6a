//! Blocks that are not in the bucket and must not be uploaded: removed on purpose, or contained in other
//! blocks.

use super::*;

/// Imitates a compactor that deletes a block: `meta.json` first, then the files, the mark last.
fn remove(world: &ShipperWorld, block: Ulid) {
    fs::remove_dir_all(world.remote(block)).expect("a block");
}

fn mark(world: &ShipperWorld, block: Ulid) {
    let mark = format!(r#"{{"id":"{block}","version":1,"deletion_time":1700000000}}"#);
    fs::write(world.remote(block).join("deletion-mark.json"), mark).expect("a mark");
}

/// Runs two more passes, the second one after a restart: nothing is uploaded, and no block waits.
async fn assert_nothing_comes_back(world: &ShipperWorld, mut run: ShipperRun, now: Timestamp) {
    let uploads = run.metrics.uploads.get();
    run.pass_at(now).await.expect("a pass");
    assert_eq!((run.metrics.repeated.get(), run.metrics.uploads.get()), (0, uploads));
    drop(run);
    let mut run = world.run();
    run.pass_at(now + HOUR).await.expect("a pass");
    assert_eq!((run.metrics.repeated.get(), run.metrics.uploads.get()), (0, 0));
    assert_eq!(
        fs::read_dir(world.data().join("thanos/upload")).map_or(0, Iterator::count),
        0,
        "a pin is left"
    );
}

#[tokio::test]
async fn blocks_marked_for_deletion_are_never_uploaded_again() {
    if !installed() {
        return;
    }
    let world = ShipperWorld::new(3);
    let now = now();
    let mut run = world.run();
    run.pass_at(now).await.expect("a pass");
    run.pass_at(now + HOUR * 2).await.expect("a pass");
    let before = run.serve_from();
    assert_eq!(before, end_of(2));
    println!("all of them are marked, seen once, and removed");
    world.blocks.iter().for_each(|block| mark(&world, *block));
    run.pass_at(now + HOUR * 3).await.expect("a pass");
    world.blocks.iter().for_each(|block| remove(&world, *block));
    assert_nothing_comes_back(&world, run, now + HOUR * 4).await;

    println!("Prometheus may compact them, and the sidecar still does not serve them");
    let mut run = world.run();
    run.pass_at(now + HOUR * 5).await.expect("a pass");
    assert!(world.blocks.iter().all(|block| world.uploaded_list().contains(&block.to_string())));
    assert_eq!(run.serve_from(), before);
}

#[tokio::test]
async fn removed_deletion_mark_has_no_effect() {
    if !installed() {
        return;
    }
    let world = ShipperWorld::new(1);
    let (block, now) = (world.blocks[0], now());
    let mut run = world.run();
    run.pass_at(now).await.expect("a pass");
    mark(&world, block);
    run.pass_at(now + HOUR).await.expect("a pass");
    fs::remove_file(world.remote(block).join("deletion-mark.json")).expect("a mark");
    run.pass_at(now + HOUR * 2).await.expect("a pass");
    fs::remove_file(world.remote(block).join("meta.json")).expect("a meta");
    run.pass_at(now + HOUR * 3).await.expect("a pass");
    world.assert_in_bucket(block);
}

#[tokio::test]
async fn unobserved_removal_is_distinguished_from_the_loss_of_the_bucket() {
    if !installed() {
        return;
    }
    let world = ShipperWorld::new(4);
    let now = now();
    world.run().pass_at(now).await.expect("a pass");
    println!("one of four, or the oldest, as a bucket with a short retention has it: a removal");
    remove(&world, world.blocks[0]);
    remove(&world, world.blocks[1]);
    assert_nothing_comes_back(&world, world.run(), now + HOUR).await;

    println!("most of what is left: the bucket is another one");
    remove(&world, world.blocks[2]);
    remove(&world, world.blocks[3]);
    let mut run = world.run();
    run.pass_at(now + HOUR * 3).await.expect("a pass");
    assert_eq!(run.metrics.repeated.get(), 2);
    world.assert_in_bucket(world.blocks[2]);
    world.assert_in_bucket(world.blocks[3]);
    assert!(!world.is_in_bucket(world.blocks[0]), "a withdrawn block stays withdrawn");
}

#[tokio::test]
async fn blocks_removed_by_age_are_not_uploaded_again() {
    if !installed() {
        return;
    }
    let world = ShipperWorld::new(30);
    let now = now();
    world.run().pass_at(now).await.expect("a pass");
    world.blocks[..25].iter().for_each(|block| remove(&world, *block));
    println!("most of the last day is gone: that is a bucket that was lost and filled again");
    let mut run = world.run();
    run.pass_at(now + HOUR).await.expect("a pass");
    assert_eq!(run.metrics.repeated.get(), 25);
    println!("all of the last day is there, whatever has gone before it: a short retention");
    world.blocks[..16].iter().for_each(|block| remove(&world, *block));
    assert_nothing_comes_back(&world, world.run(), now + HOUR * 3).await;
}

#[tokio::test]
async fn block_rewritten_in_the_bucket_is_not_uploaded_again() {
    if !installed() {
        return;
    }
    for by_parent in [true, false] {
        let world = ShipperWorld::new(1);
        let (block, now) = (world.blocks[0], now());
        world.run().pass_at(now).await.expect("a pass");
        let new = Ulid::from_parts(block.timestamp_ms() + 1, 7);
        fs::rename(world.remote(block), world.remote(new)).expect("a block");
        edit_meta(&world.remote(new), |meta| {
            let (min_time, max_time) = (meta.min_time, meta.max_time);
            meta.ulid = new;
            meta.compaction.sources = vec![new];
            if by_parent {
                meta.compaction.parents = vec![tsdb::BlockDesc { ulid: block, min_time, max_time }];
            } else {
                let rewrite = serde_json::json!({ "sources": [block.to_string()] });
                meta.thanos.as_mut().expect("Thanos' section").rewrites = vec![rewrite];
            }
        });
        assert_nothing_comes_back(&world, world.run(), now + HOUR).await;
        println!("nor without the journal");
        fs::remove_file(world.data().join("thanos/shipper-journal.json")).expect("the journal");
        assert_nothing_comes_back(&world, world.run(), now + HOUR * 3).await;
    }
}

/// Replaces two blocks by one block of level 2.
fn compact(world: &ShipperWorld, parts: [Ulid; 2]) -> Ulid {
    let new = Ulid::from_parts(parts[1].timestamp_ms() + 9, 9);
    let end = crate::local::read_meta(&world.local(parts[1]), parts[1]).expect("a meta").max_time;
    fs::rename(world.local(parts[0]), world.local(new)).expect("a block");
    fs::remove_dir_all(world.local(parts[1])).expect("a block");
    edit_meta(&world.local(new), |meta| {
        meta.ulid = new;
        meta.max_time = end;
        meta.compaction.level = 2;
        meta.compaction.sources = parts.to_vec();
    });
    new
}

#[tokio::test]
async fn blocks_made_from_covered_blocks_are_covered() {
    if !installed() {
        return;
    }
    let world = ShipperWorld::new(4);
    let [first, second, third, fourth] = world.blocks[..] else { panic!("four blocks") };
    let now = now();
    let mut run = world.run();
    run.pass_at(now).await.expect("a pass");
    run.pass_at(now + HOUR * 2).await.expect("a pass");
    let check = async |what: &str, run: &mut ShipperRun, block: Ulid| {
        println!("{what}");
        run.pass_at(now + HOUR * 2).await.expect("a pass");
        assert!(!world.is_in_bucket(block), "{what}");
        assert!(world.uploaded_list().contains(&block.to_string()), "{what}");
        assert_eq!(run.serve_from(), end_of(3), "{what}");
        assert_eq!(run.metrics.compacted_done.get(), 1, "{what}");
    };
    let once = clean(&world, first);
    check("cleaned of deletions", &mut run, once).await;
    let twice = clean(&world, once);
    check("cleaned again", &mut run, twice).await;
    let mut run = world.run();
    let thrice = clean(&world, twice);
    check("cleaned a third time, after a restart", &mut run, thrice).await;
    let cleaned_and_compacted = compact(&world, [thrice, second]);
    check("compacted from a cleaned one", &mut run, cleaned_and_compacted).await;
    let compacted = compact(&world, [third, fourth]);
    check("compacted", &mut run, compacted).await;
    let compacted_and_cleaned = clean(&world, compacted);
    check("cleaned of a compacted one", &mut run, compacted_and_cleaned).await;
    assert_eq!(run.metrics.uploads.get(), 0);
    assert_eq!(world.blocks.iter().filter(|block| world.is_in_bucket(**block)).count(), 4);
}
