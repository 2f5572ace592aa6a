use super::*;

/// A view of blocks, each given as number, resolution in minutes, and times in hours.
fn view(blocks: &[(u64, i64, i64, i64)]) -> BucketView {
    let mut view = BucketView::default();
    for &(number, minutes, min, max) in blocks {
        let id = Ulid::from_parts(number, 0);
        let json = format!(
            r#"{{"ulid":"{id}","minTime":{},"maxTime":{},"version":1,
                "thanos":{{"labels":{{"cluster":"c"}},"downsample":{{"resolution":{}}},"source":""}}}}"#,
            min * 3_600_000,
            max * 3_600_000,
            minutes * 60_000
        );
        view.blocks.insert(id, Arc::new(BlockMeta::parse(json.as_bytes()).unwrap()));
    }
    view
}

fn known(views: &[BucketView], required: &[Labels]) -> Catalog {
    Catalog::new(views, required, SystemTime::UNIX_EPOCH)
}

fn hours(min: i64, max: i64) -> TimeRange {
    TimeRange::new(Timestamp::from_millis(min * 3_600_000), Timestamp::from_millis(max * 3_600_000))
}

/// Number, and begin and end of its slice in hours, of each selected block.
fn selected(catalog: &Catalog, range: TimeRange, minutes: u64) -> Vec<(u64, i64, i64)> {
    selected_or(catalog, range, minutes, false)
}

/// Like [`selected`], but with coarser blocks where they are needed, if the request allows it.
fn selected_or(
    catalog: &Catalog,
    range: TimeRange,
    minutes: u64,
    coarser_if_needed: bool,
) -> Vec<(u64, i64, i64)> {
    let permitted = Resolutions { max: Duration::from_secs(minutes * 60), coarser_if_needed };
    let (blocks, _) = catalog.select(range, &[], permitted);
    let hour = |at: Timestamp| at.as_millis().div_euclid(3_600_000);
    let show = |b: &SelectedBlock| (b.known.key.block.timestamp_ms(), hour(b.slice.min), hour(b.slice.max));
    blocks.iter().map(show).collect()
}

#[test]
fn the_coarsest_resolution_is_taken_and_finer_ones_fill_its_gaps() {
    let blocks = [(1, 0, 0, 48), (2, 0, 48, 96), (3, 0, 96, 98), (4, 5, 0, 96), (5, 60, 0, 48)];
    let catalog = known(&[view(&blocks)], &[]);
    assert_eq!(selected(&catalog, hours(0, 97), 0), [(1, 0, 97), (2, 0, 97), (3, 0, 97)]);
    assert_eq!(selected(&catalog, hours(0, 97), 5), [(4, 0, 97), (3, 96, 97)]);
    assert_eq!(selected(&catalog, hours(0, 97), 60), [(5, 0, 97), (4, 48, 97), (3, 96, 97)]);
    assert_eq!(selected(&catalog, hours(97, 97), 60), [(3, 97, 97)]);
    assert_eq!(selected(&catalog, hours(98, 120), 60), []);
    // Raw samples that are no longer there leave a gap: coarser samples than requested are not sent.
    let catalog = known(&[view(&blocks[3..])], &[]);
    assert_eq!(selected(&catalog, hours(0, 97), 0), []);
    assert_eq!(selected(&catalog, hours(10, 97), 7), [(4, 10, 97)]);
    // A client can ask for them: it gets the finest ones that there are.
    assert_eq!(selected_or(&catalog, hours(0, 97), 0, true), [(4, 0, 97)]);
    let catalog = known(&[view(&[blocks[2], blocks[4]])], &[]);
    assert_eq!(selected_or(&catalog, hours(0, 97), 0, true), [(5, 0, 95), (3, 0, 97)]);
    let catalog = known(&[view(&blocks[2..])], &[]);
    assert_eq!(selected_or(&catalog, hours(0, 97), 0, true), [(4, 0, 95), (3, 0, 97)]);
    assert_eq!(selected_or(&catalog, hours(0, 97), 60, true), selected(&catalog, hours(0, 97), 60));
}

#[test]
fn overlapping_blocks_are_all_selected_and_gaps_between_blocks_are_filled_once() {
    let catalog = known(&[view(&[(1, 0, 0, 8), (2, 0, 2, 4), (3, 0, 6, 10)])], &[]);
    assert_eq!(selected(&catalog, hours(3, 7), 0), [(1, 3, 7), (2, 3, 7), (3, 3, 7)]);
    let blocks = [(1, 5, 0, 10), (2, 5, 2, 4), (3, 5, 20, 30), (4, 0, 0, 40)];
    let catalog = known(&[view(&blocks)], &[]);
    assert_eq!(
        selected(&catalog, hours(0, 39), 5),
        [(1, 0, 39), (2, 0, 39), (4, 10, 19), (3, 0, 39), (4, 30, 39)]
    );
    // The begin and the end of time are gaps without a block.
    let all = TimeRange::ALL;
    assert_eq!(selected(&catalog, all, 5).len(), 5);
}

#[test]
fn what_cannot_be_served_is_known_with_its_reason() {
    let mut view = view(&[(1, 0, 0, 2), (2, 7, 2, 4)]);
    view.corrupt.insert(Ulid::from_parts(3_600_000, 0), "meta.json: no".to_owned());
    let required = [Labels::from_pairs([("cluster", "c")]).unwrap()];
    let catalog = known(std::slice::from_ref(&view), &required);
    let unreadable = |range| {
        let (_, unreadable) = catalog.select(range, &[], Resolutions::ALL);
        unreadable.iter().map(|block| block.reason.clone()).collect::<Vec<_>>()
    };
    let resolution = "meta.json: thanos.downsample.resolution is 420000, expected 0, 300000 or 3600000";
    assert_eq!(unreadable(hours(0, 1)), ["meta.json: no"]);
    assert_eq!(unreadable(hours(2, 3)), [resolution]);
    assert_eq!(unreadable(hours(1, 3)), ["meta.json: no", resolution]);
    assert_eq!(unreadable(hours(5, 6)), Vec::<String>::new());
    let producers = catalog.producers(TimeRange::ALL);
    assert_eq!(
        producers,
        [ProducerRange {
            external: required[0].clone(),
            range: times(&view.blocks[&Ulid::from_parts(1, 0)])
        }]
    );
    assert_eq!(catalog.producers(hours(5, 6)), []);

    let required = [Labels::from_pairs([("cluster", "d")]).unwrap()];
    let catalog = Catalog::new(&[view], &required, SystemTime::UNIX_EPOCH);
    assert_eq!(catalog.blocks().count(), 0);
    let reasons: Vec<&str> = catalog.refused.values().map(String::as_str).collect();
    assert_eq!(reasons, [r#"its label cluster="c" must be "d", as required_labels of its bucket says"#]);
}
