//! Retention: which blocks are older than they are kept. Pure.
//!
//! A raw block is retired only when a block of 5m is there that has all of its sources, unless 5m is not kept longer than raw; the
//! same holds for 5m and 1h. Thanos looks at the age only, so that data is lost where downsampling is behind, or where a block is
//! shorter than what is downsampled.

use std::sync::Arc;
use std::time::Duration;

use model::{Matcher, Timestamp};
use runtime::parse_duration;
use serde::Deserialize;
use tsdb::{BlockMeta, Ulid};
use xxhash_rust::xxh64::xxh64;

use crate::group::{GroupKey, coarser, external_labels, resolution, resolution_name};

/// How long samples are kept by resolution; `None` for ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Retention {
    raw: Option<Duration>,
    five_minutes: Option<Duration>,
    hour: Option<Duration>,
}

/// How long the samples of each cluster are kept.
#[derive(Clone, Debug, Default)]
pub(crate) struct RetentionPolicy {
    /// The first rule whose matchers match the external labels of a block applies.
    rules: Vec<(Vec<Matcher>, Retention)>,
    otherwise: Retention,
    /// Whether blocks are downsampled at all.
    downsamples: bool,
}

/// A block that is retired.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Expired {
    pub(crate) block: Ulid,
    pub(crate) why: String,
    /// The coarser blocks that have its samples.
    pub(crate) replaced_by: Vec<Ulid>,
}

/// What retention decides.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct RetentionVerdict {
    pub(crate) expired: Vec<Expired>,
    /// Blocks that are old enough and stay, with the reason.
    pub(crate) kept: Vec<(Ulid, String)>,
}

/// An entry of `--retention.config`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleConfig {
    matchers: String,
    #[serde(default)]
    raw: Option<String>,
    #[serde(default, rename = "5m")]
    five_minutes: Option<String>,
    #[serde(default, rename = "1h")]
    hour: Option<String>,
}

impl Retention {
    fn of(self, resolution: i64) -> Option<Duration> {
        match resolution {
            0 => self.raw,
            300_000 => self.five_minutes,
            _ => self.hour,
        }
    }

    /// Whether the coarser samples are kept longer than those of `resolution`.
    fn keeps_coarser(self, resolution: i64) -> bool {
        let Some(coarser) = coarser(resolution) else { return false };
        match (self.of(resolution), self.of(coarser)) {
            (_, None) => true,
            (None, Some(_)) => false,
            (Some(fine), Some(coarse)) => coarse > fine,
        }
    }
}

impl RetentionPolicy {
    /// The policy of the three flags; `0d` is for ever.
    ///
    /// # Errors
    /// A text for people.
    pub(crate) fn from_durations(raw: &str, five_minutes: &str, hour: &str) -> Result<Self, String> {
        let otherwise = retention(Some(raw), Some(five_minutes), Some(hour))?;
        Ok(Self { rules: Vec::new(), otherwise, downsamples: true })
    }

    /// Adds the rules of `--retention.config`, which were given by `origin`: a list of `{matchers, raw, 5m, 1h}`. A duration that is absent is that of the flag.
    ///
    /// # Errors
    /// The mistakes, each with the number of its rule.
    pub(crate) fn with_rules(mut self, origin: &str, yaml: &str) -> Result<Self, Vec<String>> {
        let rules: Vec<RuleConfig> =
            serde_saphyr::from_str(yaml).map_err(|error| vec![format!("{origin}: {error}")])?;
        let mut mistakes = Vec::new();
        for (number, rule) in rules.iter().enumerate() {
            match self.rule(rule) {
                Ok(rule) => self.rules.push(rule),
                Err(error) => mistakes.push(format!("{origin}: rule {}: {error}", number + 1)),
            }
        }
        if mistakes.is_empty() { Ok(self) } else { Err(mistakes) }
    }

    fn rule(&self, rule: &RuleConfig) -> Result<(Vec<Matcher>, Retention), String> {
        let matchers = matchers(&rule.matchers).map_err(|error| format!("matchers: {error}"))?;
        let own = retention(rule.raw.as_deref(), rule.five_minutes.as_deref(), rule.hour.as_deref())?;
        let or = |given: &Option<String>, own, flag| if given.is_some() { own } else { flag };
        let flags = self.otherwise;
        Ok((
            matchers,
            Retention {
                raw: or(&rule.raw, own.raw, flags.raw),
                five_minutes: or(&rule.five_minutes, own.five_minutes, flags.five_minutes),
                hour: or(&rule.hour, own.hour, flags.hour),
            },
        ))
    }

    /// A text that is different for different settings; `None` if everything is kept for ever.
    pub(crate) fn fingerprint(&self) -> Option<String> {
        let of = |retention: &Retention| {
            let text = |kept: Option<Duration>| kept.map_or_else(|| "-".to_owned(), runtime::format_duration);
            [retention.raw, retention.five_minutes, retention.hour].map(text).join("/")
        };
        let all = self.rules.iter().map(|(_, retention)| retention).chain([&self.otherwise]);
        if all.flat_map(|r| [r.raw, r.five_minutes, r.hour]).all(|kept| kept.is_none()) {
            return None;
        }
        let rules = self.rules.iter().map(|(matchers, retention)| {
            let matchers: Vec<String> = matchers.iter().map(ToString::to_string).collect();
            format!("{}={}", matchers.join(","), of(retention))
        });
        let text: Vec<String> = rules.chain([of(&self.otherwise), self.downsamples.to_string()]).collect();
        Some(format!("{:016x}", xxh64(text.join("\n").as_bytes(), 0)))
    }

    /// The same policy where nothing is downsampled: no coarser block is waited for.
    pub(crate) fn without_downsampling(self) -> Self {
        Self { downsamples: false, ..self }
    }

    /// Mistakes of durations that are shorter than what downsampling needs, as in Thanos.
    pub(crate) fn mistakes(&self) -> Vec<String> {
        if !self.downsamples {
            return Vec::new();
        }
        let all = self.rules.iter().map(|(_, retention)| *retention).chain([self.otherwise]);
        let day = 24 * 3600;
        let short = all.flat_map(|retention| {
            [(0, 40 * 3600, "40h"), (300_000, 10 * day, "10d")].into_iter().filter_map(move |(millis, least, text)| {
                let given = retention.of(millis)?;
                let needs = coarser(millis).map(resolution_name)?;
                (given < Duration::from_secs(least)).then(|| {
                    format!(
                        "--retention.resolution-{} must be at least {text}, because blocks are downsampled to {needs} at that length; \
                         0d keeps them for ever",
                        resolution_name(millis)
                    )
                })
            })
        });
        let mut mistakes: Vec<String> = short.collect();
        mistakes.dedup();
        mistakes
    }

    fn of(&self, meta: &BlockMeta) -> Retention {
        let labels = external_labels(meta);
        let value = |name: &str| labels.get(name).map_or("", String::as_str);
        let matches = |matchers: &[Matcher]| matchers.iter().all(|m| m.matches(value(m.name())));
        self.rules
            .iter()
            .find(|(matchers, _)| matches(matchers))
            .map_or(self.otherwise, |(_, retention)| *retention)
    }

    /// Whether the block is retired within `time`, and a coarser one should be there then.
    pub(crate) fn is_due_within(&self, meta: &BlockMeta, time: Duration, now: Timestamp) -> bool {
        let (retention, resolution) = (self.of(meta), resolution(meta));
        let Some(kept) = retention.of(resolution) else { return false };
        self.downsamples && retention.keeps_coarser(resolution) && age(meta, now) + time > kept
    }

    /// Whether the block is older than samples of any resolution are kept.
    pub(crate) fn is_past(&self, meta: &BlockMeta, now: Timestamp) -> bool {
        let retention = self.of(meta);
        let all = [retention.raw, retention.five_minutes, retention.hour];
        all.iter().all(|kept| kept.is_some_and(|kept| age(meta, now) > kept))
    }

    /// Which of the blocks are retired. `blocks` are those of one bucket that are not marked for deletion. A coarser block that was
    /// merged from those of several replicas replaces each of them.
    pub(crate) fn decide(
        &self,
        blocks: &[Arc<BlockMeta>],
        replica_labels: &[String],
        now: Timestamp,
    ) -> RetentionVerdict {
        let mut verdict = RetentionVerdict::default();
        for meta in blocks {
            let (retention, resolution) = (self.of(meta), resolution(meta));
            let Some(kept) = retention.of(resolution).filter(|kept| age(meta, now) > *kept) else { continue };
            let name = resolution_name(resolution);
            let why = format!("retention of {name} samples is {}", runtime::format_duration(kept));
            if !self.downsamples || !retention.keeps_coarser(resolution) {
                verdict.expired.push(Expired { block: meta.ulid, why, replaced_by: Vec::new() });
                continue;
            }
            match replacements(meta, blocks, replica_labels) {
                Some(replaced_by) => verdict.expired.push(Expired { block: meta.ulid, why, replaced_by }),
                None => {
                    let needs = coarser(resolution).map(resolution_name).unwrap_or_default();
                    verdict.kept.push((
                        meta.ulid,
                        format!("it is older than {why}, but no block of {needs} has its samples"),
                    ));
                }
            }
        }
        verdict
    }
}

/// The coarser blocks that together have all sources of the block.
fn replacements(meta: &BlockMeta, blocks: &[Arc<BlockMeta>], replica_labels: &[String]) -> Option<Vec<Ulid>> {
    let coarser = coarser(resolution(meta))?;
    let group = GroupKey { resolution: coarser, ..GroupKey::of(meta, replica_labels) };
    let mut left = meta.compaction.sources.clone();
    let mut replaced_by = Vec::new();
    for other in blocks.iter().filter(|other| GroupKey::of(other, replica_labels) == group) {
        let before = left.len();
        left.retain(|source| !other.compaction.sources.contains(source));
        if left.len() < before {
            replaced_by.push(other.ulid);
        }
    }
    (left.is_empty() && !replaced_by.is_empty()).then_some(replaced_by)
}

/// Matchers with or without braces.
fn matchers(text: &str) -> Result<Vec<Matcher>, String> {
    let text = text.trim();
    let selector = if text.starts_with('{') { text.to_owned() } else { format!("{{{text}}}") };
    promql::parse_selector(&selector).map_err(|error| error.to_string())
}

fn age(meta: &BlockMeta, now: Timestamp) -> Duration {
    Duration::from_millis(u64::try_from(now.millis_since(meta.max_time)).unwrap_or(0))
}

fn retention(raw: Option<&str>, five_minutes: Option<&str>, hour: Option<&str>) -> Result<Retention, String> {
    let parse = |name: &str, text: Option<&str>| {
        let Some(text) = text else { return Ok(None) };
        let duration = parse_duration(text).map_err(|error| format!("{name}: {error}"))?;
        Ok::<_, String>(Some(duration).filter(|duration| !duration.is_zero()))
    };
    Ok(Retention {
        raw: parse("raw", raw)?,
        five_minutes: parse("5m", five_minutes)?,
        hour: parse("1h", hour)?,
    })
}

#[cfg(test)]
mod tests {
    use tsdb::ThanosMeta;

    use super::*;
    use crate::plan::HOUR;

    fn block(number: u128, cluster: &str, resolution: i64, sources: &[u128]) -> Arc<BlockMeta> {
        let at = |hours: i64| Timestamp::from_millis(hours * HOUR);
        let mut meta = BlockMeta::new(Ulid::from_parts(1, number), at(0), at(2));
        meta.compaction.sources = sources.iter().map(|source| Ulid::from_parts(0, *source)).collect();
        let mut thanos = ThanosMeta::default();
        thanos.labels.insert("cluster".to_owned(), cluster.to_owned());
        thanos.downsample.resolution_millis = resolution;
        meta.thanos = Some(thanos);
        Arc::new(meta)
    }

    fn policy(raw: &str, five_minutes: &str, hour: &str) -> RetentionPolicy {
        RetentionPolicy::from_durations(raw, five_minutes, hour).unwrap()
    }

    /// Expired blocks with what replaces them, and kept ones, after `days`.
    fn decided(
        policy: &RetentionPolicy,
        blocks: &[Arc<BlockMeta>],
        days: i64,
    ) -> (Vec<(u128, Vec<u128>)>, Vec<u128>) {
        let verdict = policy.decide(
            blocks,
            &["replica".to_owned()],
            Timestamp::from_millis((2 + days * 24) * HOUR + 1),
        );
        let ids = |ids: &[Ulid]| ids.iter().map(Ulid::random).collect::<Vec<_>>();
        (
            verdict.expired.iter().map(|e| (e.block.random(), ids(&e.replaced_by))).collect(),
            verdict.kept.iter().map(|(id, _)| id.random()).collect(),
        )
    }

    #[test]
    fn a_raw_block_is_retired_only_when_coarser_blocks_have_its_sources() {
        let keeps = policy("10d", "0d", "0d");
        let raw = block(1, "a", 0, &[1, 2]);
        assert_eq!(decided(&keeps, std::slice::from_ref(&raw), 9), (vec![], vec![]));
        assert_eq!(decided(&keeps, std::slice::from_ref(&raw), 10), (vec![], vec![1]));
        let half = [raw.clone(), block(2, "a", 300_000, &[1])];
        assert_eq!(decided(&keeps, &half, 10), (vec![], vec![1]));
        let elsewhere = [raw.clone(), block(2, "b", 300_000, &[1, 2])];
        assert_eq!(decided(&keeps, &elsewhere, 10), (vec![], vec![1]));
        let whole = [raw.clone(), block(2, "a", 300_000, &[1]), block(3, "a", 300_000, &[2])];
        assert_eq!(decided(&keeps, &whole, 10), (vec![(1, vec![2, 3])], vec![]));
        // Where nothing coarser is kept longer, age decides.
        assert_eq!(decided(&policy("10d", "10d", "0d"), std::slice::from_ref(&raw), 10).0, [(1, vec![])]);
        assert_eq!(decided(&keeps.without_downsampling(), &[raw], 10).0, [(1, vec![])]);
    }

    #[test]
    fn a_coarser_block_that_was_merged_of_replicas_replaces_each_of_them() {
        let of_replica = |number, replica: &str| {
            let mut meta = BlockMeta::clone(&block(number, "a", 0, &[number]));
            let labels = &mut meta.thanos.as_mut().unwrap().labels;
            labels.insert("replica".to_owned(), replica.to_owned());
            Arc::new(meta)
        };
        let merged = block(3, "a", 300_000, &[1, 2]);
        let (expired, kept) =
            decided(&policy("10d", "0d", "0d"), &[of_replica(1, "0"), of_replica(2, "1"), merged], 10);
        assert_eq!((expired, kept), (vec![(1, vec![3]), (2, vec![3])], vec![]));
    }

    #[test]
    fn each_cluster_may_have_its_own_retention() {
        let yaml = "- {matchers: '{cluster=\"a\"}', raw: 20d}\n- {matchers: 'cluster=~\"b|c\"', raw: 0d}";
        let policy = policy("10d", "5d", "0d").with_rules("--retention.config", yaml).unwrap();
        let blocks =
            ["a", "b", "d"].map(|cluster| block(u128::from(cluster.as_bytes()[0]), cluster, 0, &[1]));
        let at = |days| {
            decided(&policy, &blocks, days).0.into_iter().map(|(id, _)| id as u8 as char).collect::<String>()
        };
        assert_eq!([at(9), at(10), at(20), at(1000)], ["", "d", "ad", "ad"]);
        let error = super::tests::policy("1d", "1d", "1d")
            .with_rules("--retention.config", "- {matchers: '{', raw: x}")
            .unwrap_err();
        assert!(error[0].contains("--retention.config: rule 1: matchers"), "{error:?}");
    }

    #[test]
    fn a_label_that_is_not_valid_does_not_hide_the_others_from_the_rules() {
        let policy = policy("10d", "5d", "0d");
        let policy =
            policy.with_rules("--retention.config", "- {matchers: 'cluster=\"a\"', raw: 20d}").unwrap();
        let mut meta = BlockMeta::clone(&block(1, "a", 0, &[1]));
        let thanos = meta.thanos.as_mut().unwrap();
        thanos.labels.extend([(String::new(), "x".to_owned()), ("empty".to_owned(), String::new())]);
        let blocks = [Arc::new(meta)];
        assert_eq!((decided(&policy, &blocks, 19).0.len(), decided(&policy, &blocks, 20).0.len()), (0, 1));
    }

    #[test]
    fn retention_that_is_shorter_than_downsampling_needs_is_a_mistake() {
        assert_eq!(policy("0d", "0d", "0d").mistakes(), [""; 0]);
        assert_eq!(policy("40h", "10d", "1h").mistakes(), [""; 0]);
        let mistakes = policy("39h", "9d", "0d").mistakes();
        assert!(mistakes[0].contains("--retention.resolution-raw must be at least 40h"), "{mistakes:?}");
        assert!(mistakes[1].contains("--retention.resolution-5m must be at least 10d"), "{mistakes:?}");
        assert_eq!(policy("1h", "0d", "0d").without_downsampling().mistakes(), [""; 0]);
    }
}
