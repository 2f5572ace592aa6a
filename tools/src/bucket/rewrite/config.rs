//! The changes of a rewrite: the YAML of deletions and of relabel rules, with Thanos' field names.

use model::{Labels, MatchOp, Matcher, RelabelConfig, Relabeling, Timestamp};
use serde::{Deserialize, Serialize};

use crate::error::{Result, ToolError};
use crate::text;

/// Time from `min` to `max`, both included, in milliseconds since the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Interval {
    #[serde(rename = "Mint", alias = "mint", alias = "min_time")]
    pub(super) min: i64,
    #[serde(rename = "Maxt", alias = "maxt", alias = "max_time")]
    pub(super) max: i64,
}

/// A deletion as in the YAML.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DeletionRequest {
    /// A selector: all of its matchers must match.
    matchers: String,
    /// The intervals to delete; empty for the whole series.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    intervals: Vec<Interval>,
    /// A note that is stored in the meta of the new block.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    request_id: Option<String>,
}

/// A checked deletion.
#[derive(Clone, Debug)]
pub(super) struct Deletion {
    matchers: Vec<Matcher>,
    /// `None` for the whole series.
    intervals: Option<Vec<Interval>>,
    request: DeletionRequest,
}

/// All changes of a rewrite.
#[derive(Clone, Debug)]
pub(super) struct Changes {
    pub(super) deletions: Vec<Deletion>,
    pub(super) relabeling: Relabeling,
}

/// The part of one series to delete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ToDelete {
    Nothing,
    /// Intervals that ascend and do not touch each other.
    Intervals(Vec<Interval>),
    Everything,
}

impl Changes {
    /// Parses both configurations, each with the flag that gives it; an absent one changes nothing.
    ///
    /// # Errors
    /// A message with the flag and what is wrong. It is an error if both are absent or empty, unless `may_be_empty`.
    pub(super) fn parse(
        (delete_flag, to_delete): (&str, Option<&str>),
        (relabel_flag, to_relabel): (&str, Option<&str>),
        may_be_empty: bool,
    ) -> Result<Self> {
        let deletions: Vec<DeletionRequest> = parse_list(delete_flag, to_delete)?;
        let relabels: Vec<RelabelConfig> = parse_list(relabel_flag, to_relabel)?;
        let deletions = deletions.into_iter().map(|request| Deletion::new(delete_flag, request));
        let deletions = deletions.collect::<Result<Vec<_>>>()?;
        let relabeling = Relabeling::new(relabels)
            .map_err(|error| ToolError::usage(format!("{relabel_flag}: {error}")))?;
        if deletions.is_empty() && relabeling.is_empty() && !may_be_empty {
            return Err(ToolError::usage(
                "nothing to rewrite: give --rewrite.to-delete-config or --rewrite.to-relabel-config, or their -file variants, \
                 or --apply-tombstones or --salvage",
            ));
        }
        Ok(Self { deletions, relabeling })
    }

    /// The part of a series that the deletions select. They match its labels before relabelling.
    pub(super) fn to_delete(&self, labels: &Labels) -> ToDelete {
        let mut intervals = Vec::new();
        for deletion in self.deletions.iter().filter(|deletion| deletion.selects(labels)) {
            match &deletion.intervals {
                None => return ToDelete::Everything,
                Some(some) => intervals.extend_from_slice(some),
            }
        }
        if intervals.is_empty() { ToDelete::Nothing } else { ToDelete::Intervals(merged(intervals)) }
    }

    /// An entry of `thanos.rewrites` in the new block's meta.json.
    pub(super) fn log_entry(&self, sources: &[tsdb::Ulid]) -> serde_json::Value {
        let sources: Vec<String> = sources.iter().map(ToString::to_string).collect();
        let mut entry = serde_json::json!({ "sources": sources });
        if !self.deletions.is_empty() {
            entry["deletions_applied"] = self.deletions.iter().map(Deletion::log_entry).collect();
        }
        if !self.relabeling.is_empty() {
            let rules: Vec<&RelabelConfig> = self.relabeling.configs().collect();
            entry["relabels_applied"] = serde_json::json!(rules);
        }
        entry
    }
}

impl Deletion {
    fn new(flag: &str, request: DeletionRequest) -> Result<Self> {
        let matchers = text::matchers(flag, &request.matchers)?;
        if matchers.is_empty() {
            return Err(ToolError::usage(format!("{flag}: {:?} has no matcher", request.matchers)));
        }
        if let Some(wrong) = request.intervals.iter().find(|interval| interval.min > interval.max) {
            return Err(ToolError::usage(format!(
                "{flag}: interval: start {} is greater than end {}",
                wrong.min, wrong.max
            )));
        }
        let intervals = (!request.intervals.is_empty()).then(|| request.intervals.clone());
        Ok(Self { matchers, intervals, request })
    }

    /// Whether the series has all labels of the matchers and all match. A missing label does not match, not even
    /// `env!="prod"`: this is Thanos' rule, and it deletes less.
    fn selects(&self, labels: &Labels) -> bool {
        self.matchers.iter().all(|m| labels.get(m.name()).is_some_and(|value| m.matches(value)))
    }

    /// In meta.json the matchers are separate objects, as in Thanos' `metadata.Matchers`.
    fn log_entry(&self) -> serde_json::Value {
        let kind = |op: MatchOp| match op {
            MatchOp::Equal => 0,
            MatchOp::NotEqual => 1,
            MatchOp::Regex => 2,
            MatchOp::NotRegex => 3,
        };
        let matchers: Vec<serde_json::Value> = self
            .matchers
            .iter()
            .map(|m| serde_json::json!({ "Type": kind(m.op()), "Name": m.name(), "Value": m.value() }))
            .collect();
        let mut entry = serde_json::json!({ "matchers": matchers });
        if !self.request.intervals.is_empty() {
            entry["intervals"] = serde_json::json!(self.request.intervals);
        }
        if let Some(id) = &self.request.request_id {
            entry["request_id"] = id.as_str().into();
        }
        entry
    }
}

fn parse_list<T: serde::de::DeserializeOwned>(flag: &str, yaml: Option<&str>) -> Result<Vec<T>> {
    let Some(yaml) = yaml.filter(|yaml| !yaml.trim().is_empty()) else { return Ok(Vec::new()) };
    serde_saphyr::from_str(yaml).map_err(|error| ToolError::usage(format!("{flag}: {error}")))
}

/// Merges intervals that overlap or touch, and sorts them.
pub(super) fn merged(mut intervals: Vec<Interval>) -> Vec<Interval> {
    intervals.sort_unstable();
    let mut merged: Vec<Interval> = Vec::with_capacity(intervals.len());
    for interval in intervals {
        match merged.last_mut() {
            Some(last) if interval.min <= last.max.saturating_add(1) => last.max = last.max.max(interval.max),
            _ => merged.push(interval),
        }
    }
    merged
}

/// Whether one interval covers all of the time from `min` to `max`.
pub(super) fn covers(intervals: &[Interval], min: Timestamp, max: Timestamp) -> bool {
    intervals.iter().any(|i| i.min <= min.as_millis() && max.as_millis() <= i.max)
}

/// Whether an interval overlaps the time from `min` to `max`.
pub(super) fn touches(intervals: &[Interval], min: Timestamp, max: Timestamp) -> bool {
    intervals.iter().any(|i| i.min <= max.as_millis() && min.as_millis() <= i.max)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DELETE: &str = "--rewrite.to-delete-config";
    const RELABEL: &str = "--rewrite.to-relabel-config";

    fn parse(yaml: &str) -> Result<Changes, String> {
        Changes::parse((DELETE, Some(yaml)), (RELABEL, None), false).map_err(|error| error.to_string())
    }

    #[test]
    fn deletions_are_read_as_thanos_writes_them() {
        let yaml = "
- matchers: '{__name__=\"up\", job=~\"a|b\"}'
  intervals:
  - {mint: 0, maxt: 10}
  - {mint: 11, maxt: 20}
  - {mint: 30, maxt: 40}
- matchers: '{__name__=\"down\"}'
  request_id: ticket-7
";
        let changes = parse(yaml).unwrap();
        let labels = |name: &str, job: &str| Labels::from_pairs([("__name__", name), ("job", job)]).unwrap();
        let interval = |min, max| Interval { min, max };
        assert_eq!(
            changes.to_delete(&labels("up", "a")),
            ToDelete::Intervals(vec![interval(0, 20), interval(30, 40)])
        );
        assert_eq!(changes.to_delete(&labels("up", "c")), ToDelete::Nothing);
        assert_eq!(changes.to_delete(&labels("down", "c")), ToDelete::Everything);
        let log = changes.log_entry(&[]).to_string();
        assert!(log.contains(r#""matchers":[{"Name":"__name__","Type":0,"Value":"up"}"#), "{log}");
        assert!(log.contains(r#""intervals":[{"Maxt":10,"Mint":0}"#), "{log}");
        assert!(log.contains(r#""request_id":"ticket-7""#), "{log}");
    }

    #[test]
    fn a_missing_label_matches_no_deletion() {
        let changes = parse("- matchers: 'up{env!=\"prod\"}'").unwrap();
        assert_eq!(changes.to_delete(&Labels::from_pairs([("__name__", "up")]).unwrap()), ToDelete::Nothing);
    }

    #[test]
    fn invalid_deletions_are_rejected() {
        for (yaml, why) in [
            ("- matchers: '{a=\"b\"'", "is not a valid selector"),
            ("- matchers: '{}'", "has no matcher"),
            ("- matchers: '{a=\"b\"}'\n  intervals: [{mint: 2, maxt: 1}]", "is greater than end"),
            ("- matchers: '{a=\"b\"}'\n  colour: red", "colour"),
            ("", "nothing to rewrite"),
        ] {
            let error = parse(yaml).unwrap_err();
            assert!(error.contains(why), "{yaml}: {error}");
        }
        let relabel = Changes::parse((DELETE, None), (RELABEL, Some("- action: replace")), false)
            .unwrap_err()
            .to_string();
        assert_eq!(
            relabel,
            "--rewrite.to-relabel-config: relabel rule 1: action replace requires target_label"
        );
    }
}
