//! Merges statistics of TSDBs.
//!
//! Behaviour: `statuspb` of Thanos. Numbers of series are added. Of the numbers of values the greatest is used, because
//! TSDBs may have the same values.

use std::collections::HashMap;

use promapi::{TsdbStat, TsdbStatus};

/// The sum of the statistics, with at most `limit` entries in each list, the largest first.
pub(crate) fn merged(parts: impl IntoIterator<Item = TsdbStatus>, limit: usize) -> TsdbStatus {
    let sum = parts.into_iter().reduce(|mut all, part| {
        let (head, more) = (&mut all.head_stats, part.head_stats);
        head.num_series = head.num_series.saturating_add(more.num_series);
        head.num_label_pairs = head.num_label_pairs.saturating_add(more.num_label_pairs);
        head.chunk_count = head.chunk_count.saturating_add(more.chunk_count);
        head.min_time = head.min_time.min(more.min_time);
        head.max_time = head.max_time.max(more.max_time);
        all.series_count_by_metric_name.extend(part.series_count_by_metric_name);
        all.label_value_count_by_label_name.extend(part.label_value_count_by_label_name);
        all.memory_in_bytes_by_label_name.extend(part.memory_in_bytes_by_label_name);
        all.series_count_by_label_value_pair.extend(part.series_count_by_label_value_pair);
        all
    });
    let mut sum = sum.unwrap_or_default();
    largest(&mut sum.series_count_by_metric_name, u64::saturating_add, limit);
    largest(&mut sum.label_value_count_by_label_name, u64::max, limit);
    largest(&mut sum.memory_in_bytes_by_label_name, u64::saturating_add, limit);
    largest(&mut sum.series_count_by_label_value_pair, u64::saturating_add, limit);
    sum
}

/// Joins entries of the same name and keeps the largest.
fn largest(list: &mut Vec<TsdbStat>, join: impl Fn(u64, u64) -> u64, limit: usize) {
    let mut values: HashMap<String, u64> = HashMap::new();
    for stat in list.drain(..) {
        values.entry(stat.name).and_modify(|value| *value = join(*value, stat.value)).or_insert(stat.value);
    }
    list.extend(values.into_iter().map(|(name, value)| TsdbStat { name, value }));
    list.sort_by(|a, b| b.value.cmp(&a.value).then_with(|| a.name.cmp(&b.name)));
    list.truncate(limit);
}

#[cfg(test)]
mod tests {
    use promapi::HeadStats;

    use super::*;

    #[test]
    fn series_are_added_and_values_are_not() {
        let stat = |name: &str, value| TsdbStat { name: name.to_owned(), value };
        let part = |n: u64, min, max| TsdbStatus {
            head_stats: HeadStats {
                num_series: n,
                num_label_pairs: 1,
                chunk_count: 2,
                min_time: min,
                max_time: max,
            },
            series_count_by_metric_name: vec![stat("up", n), stat("down", 5)],
            label_value_count_by_label_name: vec![stat("job", n), stat("pod", 5)],
            ..TsdbStatus::default()
        };
        let sum = merged([part(1, 50, 100), part(10, 20, 70)], 10);
        assert_eq!(
            (sum.head_stats.num_series, sum.head_stats.min_time, sum.head_stats.max_time),
            (11, 20, 100)
        );
        assert_eq!(sum.series_count_by_metric_name, [stat("up", 11), stat("down", 10)]);
        assert_eq!(sum.label_value_count_by_label_name, [stat("job", 10), stat("pod", 5)]);
        assert_eq!(merged([part(1, 0, 0)], 1).series_count_by_metric_name, [stat("down", 5)]);
        assert_eq!(merged([], 1), TsdbStatus::default());
    }
}
