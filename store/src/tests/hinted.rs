//! Requests with hints: only the blocks that they name are asked, and the answer says which.

use futures::TryStreamExt;
use storeapi::{AnswerHints, BlockHints, LabelNamesRequest, LabelValuesRequest, SeriesFrame};

use super::*;

const HOUR: i64 = 3_600_000;

/// A block for each cluster and hour.
fn write_world(dir: &Path) -> Vec<String> {
    let mut ids = Vec::new();
    for (number, cluster) in ["x", "x", "y", "y"].into_iter().enumerate() {
        let hour = number as i64 % 2;
        let samples: Vec<Sample> = (0..60).map(|n| Sample::new(hour * HOUR + n * 60_000, n as f64)).collect();
        let series: Vec<(Labels, Vec<Sample>)> = (0..10)
            .map(|n| {
                (labels(&[("__name__", "up"), ("pod", &format!("{cluster}{hour}-{n}"))]), samples.clone())
            })
            .collect();
        let id = Ulid::from_parts(number as u64 + 1, 1);
        write_block(dir, id, &labels(&[("cluster", cluster)]), &series);
        ids.push(id.to_string());
    }
    ids
}

/// A matcher.
type Clause<'a> = (model::MatchOp, &'a str, &'a str);

fn hints(matchers: &[Clause<'_>], wants_stats: bool) -> Option<BlockHints> {
    let matchers = matchers.iter().map(|(op, name, value)| Matcher::new(*op, name, value).unwrap());
    Some(BlockHints { matchers: matchers.collect(), wants_stats })
}

/// The number of series, and the hints of the answer.
async fn ask_with(store: &BucketStore, hints: Option<BlockHints>) -> (usize, Option<AnswerHints>) {
    let mut request = SeriesRequest::new(millis((0, 2 * HOUR)), vec![Matcher::equal("__name__", "up")]);
    request.block_hints = hints;
    let frames: Vec<SeriesFrame> = store.series(request).await.unwrap().try_collect().await.unwrap();
    let (mut series, mut found) = (0, None);
    for frame in frames {
        assert!(found.is_none(), "a frame after the hints: {frame:?}");
        match frame {
            SeriesFrame::Series(batch) => series += batch.len(),
            SeriesFrame::Warning(text) => panic!("{text}"),
            SeriesFrame::Hints(hints) => found = Some(hints),
        }
    }
    (series, found)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hints_select_blocks_and_the_answer_names_them() {
    use model::MatchOp::{Equal, NotEqual, Regex};
    let (bucket_dir, data_dir) = dirs();
    let ids = write_world(bucket_dir.path());
    let served = serve(&local(bucket_dir.path()), data_dir.path(), &[]).await;
    assert_eq!(ask_with(&served.store, None).await, (40, None));
    let first = ids[0].as_str();
    let two = format!("{}|{}", ids[0], ids[3]);
    let cases: [(&[Clause<'_>], &[usize]); 7] = [
        (&[], &[0, 1, 2, 3]),
        (&[(Equal, "cluster", "y")], &[2, 3]),
        (&[(Equal, "__block_id", first)], &[0]),
        (&[(Regex, "__block_id", &two)], &[0, 3]),
        (&[(NotEqual, "__block_id", first), (Equal, "cluster", "x")], &[1]),
        (&[(Equal, "region", "")], &[0, 1, 2, 3]),
        (&[(Equal, "region", "r")], &[]),
    ];
    for (matchers, expected) in cases {
        let (series, found) = ask_with(&served.store, hints(matchers, false)).await;
        let expected: Vec<String> = expected.iter().map(|block| ids[*block].clone()).collect();
        assert_eq!(series, expected.len() * 10, "{matchers:?}");
        assert_eq!(found, Some(AnswerHints { blocks: expected.clone(), stats: None }), "{matchers:?}");

        let mut names = LabelNamesRequest::new(millis((0, 2 * HOUR)), Vec::new());
        names.block_hints = hints(matchers, false);
        let names = served.store.label_names(names).await.unwrap();
        assert_eq!(names.values.is_empty(), expected.is_empty(), "{matchers:?}");
        let mut values = LabelValuesRequest::new("pod", millis((0, 2 * HOUR)), Vec::new());
        values.block_hints = hints(matchers, false);
        let values = served.store.label_values(values).await.unwrap();
        assert_eq!(values.values.len(), expected.len() * 10, "{matchers:?}");
        for found in [names.hints, values.hints] {
            assert_eq!(found.map(|hints| hints.blocks), Some(expected.clone()), "{matchers:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hints_count_what_was_read() {
    let (bucket_dir, data_dir) = dirs();
    write_world(bucket_dir.path());
    let served = serve(&local(bucket_dir.path()), data_dir.path(), &[]).await;
    let (_, found) = ask_with(&served.store, hints(&[(model::MatchOp::Equal, "cluster", "x")], true)).await;
    let cold = found.unwrap().stats.unwrap();
    assert_eq!((cold.blocks, cold.series, cold.merged_series), (2, 20, 20));
    assert!(cold.chunks >= 20 && cold.merged_chunks == cold.chunks && cold.chunk_bytes > 0, "{cold:?}");
    assert!(cold.downloaded_bytes > 0 && cold.first_read > std::time::Duration::ZERO, "{cold:?}");
    let (_, found) = ask_with(&served.store, hints(&[(model::MatchOp::Equal, "cluster", "x")], true)).await;
    let warm = found.unwrap().stats.unwrap();
    assert_eq!((warm.downloaded_bytes, warm.series), (0, 20));
}
