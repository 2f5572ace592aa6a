//! Groups of blocks: those with equal external labels, without replica labels, and equal resolution. Only blocks of one group are
//! merged.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use tsdb::{BlockMeta, ThanosMeta};
use xxhash_rust::xxh64::xxh64;

/// The value of the first replica label of a block that has no other labels, as in Thanos.
const NO_LABELS_LEFT: &str = "deduped";

/// External labels by name.
pub(crate) type BlockLabels = BTreeMap<String, String>;

/// What the blocks of a group have in common.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct GroupKey {
    /// Milliseconds between samples; 0 for raw samples.
    pub(crate) resolution: i64,
    /// External labels without replica labels; the labels of every merged block of the group.
    pub(crate) labels: BlockLabels,
}

impl GroupKey {
    /// The group of a block.
    pub(crate) fn of(meta: &BlockMeta, replica_labels: &[String]) -> Self {
        let mut labels = external_labels(meta).clone();
        if let Some(first) = replica_labels.first()
            && !labels.is_empty()
        {
            labels.retain(|name, _| !replica_labels.contains(name));
            if labels.is_empty() {
                labels.insert(first.clone(), NO_LABELS_LEFT.to_owned());
            }
        }
        Self { resolution: resolution(meta), labels }
    }

    /// A short name: the resolution and a hash of the labels, as in the folders of Thanos' compactor.
    pub(crate) fn id(&self) -> String {
        let mut bytes = Vec::new();
        for (name, value) in &self.labels {
            for text in [name, value] {
                bytes.extend_from_slice(text.as_bytes());
                bytes.push(0xff);
            }
        }
        format!("{}@{}", self.resolution, xxh64(&bytes, 0))
    }
}

/// `{cluster="a"} raw`.
impl fmt::Display for GroupKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (number, (name, value)) in self.labels.iter().enumerate() {
            let comma = if number == 0 { "" } else { ", " };
            write!(f, "{comma}{name}={value:?}")?;
        }
        write!(f, "}} {}", resolution_name(self.resolution))
    }
}

/// `raw`, `5m`, `1h`, or the number of milliseconds.
pub(crate) fn resolution_name(millis: i64) -> String {
    match millis {
        0 => "raw".to_owned(),
        300_000 => "5m".to_owned(),
        3_600_000 => "1h".to_owned(),
        other => format!("{other}ms"),
    }
}

/// The resolution that is made of `millis` by downsampling; none of the coarsest one, and of an unknown one.
pub(crate) fn coarser(millis: i64) -> Option<i64> {
    match millis {
        0 => Some(300_000),
        300_000 => Some(3_600_000),
        _ => None,
    }
}

/// The external labels of a block; none if it has no section of Thanos.
pub(crate) fn external_labels(meta: &BlockMeta) -> &BlockLabels {
    static NONE: BlockLabels = BlockLabels::new();
    meta.thanos.as_ref().map_or(&NONE, |thanos| &thanos.labels)
}

/// Milliseconds between the samples of a block; 0 for raw samples.
pub(crate) fn resolution(meta: &BlockMeta) -> i64 {
    meta.thanos.as_ref().map_or(0, |thanos: &ThanosMeta| thanos.downsample.resolution_millis)
}

/// The bytes of all files of a block, as its `meta.json` lists them.
pub(crate) fn size_bytes(meta: &BlockMeta) -> u64 {
    meta.thanos.iter().flat_map(|thanos| &thanos.files).filter_map(|file| file.size_bytes).sum()
}

/// The blocks by group, each group sorted by time.
pub(crate) fn by_group<'a>(
    blocks: impl IntoIterator<Item = &'a Arc<BlockMeta>>,
    replica_labels: &[String],
) -> BTreeMap<GroupKey, Vec<Arc<BlockMeta>>> {
    let mut groups: BTreeMap<GroupKey, Vec<Arc<BlockMeta>>> = BTreeMap::new();
    for meta in blocks {
        groups.entry(GroupKey::of(meta, replica_labels)).or_default().push(Arc::clone(meta));
    }
    groups.values_mut().for_each(|group| group.sort_by_key(|meta| (meta.min_time, meta.max_time, meta.ulid)));
    groups
}

#[cfg(test)]
mod tests {
    use model::Timestamp;
    use tsdb::Ulid;

    use super::*;

    fn block(labels: &[(&str, &str)], resolution: i64) -> Arc<BlockMeta> {
        let mut meta = BlockMeta::new(Ulid::from_parts(1, 1), Timestamp::EPOCH, Timestamp::from_millis(1));
        let labels = labels.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        let mut thanos = ThanosMeta { labels, ..ThanosMeta::default() };
        thanos.downsample.resolution_millis = resolution;
        meta.thanos = Some(thanos);
        Arc::new(meta)
    }

    #[test]
    fn replicas_are_one_group_and_resolutions_are_not() {
        let blocks = [
            block(&[("cluster", "a"), ("replica", "0")], 0),
            block(&[("cluster", "a"), ("replica", "1")], 0),
            block(&[("cluster", "a"), ("replica", "1")], 300_000),
            block(&[("cluster", "b")], 0),
            block(&[("replica", "1")], 0),
        ];
        let groups = by_group(&blocks, &["replica".to_owned()]);
        let names: Vec<(String, usize)> = groups.iter().map(|(key, g)| (key.to_string(), g.len())).collect();
        assert_eq!(
            names,
            [
                (r#"{cluster="a"} raw"#.to_owned(), 2),
                (r#"{cluster="b"} raw"#.to_owned(), 1),
                (r#"{replica="deduped"} raw"#.to_owned(), 1),
                (r#"{cluster="a"} 5m"#.to_owned(), 1),
            ]
        );
        assert_eq!(by_group(&blocks, &[]).len(), 5);
    }
}
