//! A deletion: which samples are deleted.

use model::{ExternalMatch, Labels, MatchOp, Matcher, TimeRange, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Most matchers in a deletion.
pub(super) const MAX_MATCHERS: usize = 64;
/// Most bytes of the id of a deletion.
const MAX_ID_BYTES: usize = 64;

/// Samples that are deleted: of the series that satisfy all matchers, in a range of time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deletion {
    /// Differs from that of every other deletion.
    pub id: String,
    /// They match the labels of the series together with the external labels of the block, as those of a query do. At least one does
    /// not match the empty string.
    pub matchers: Vec<Matcher>,
    /// Both ends included.
    pub range: TimeRange,
    /// When it was requested.
    pub time: Timestamp,
    /// The reason as text for people.
    pub details: Option<String>,
}

/// A deletion as it is written.
#[derive(Serialize, Deserialize)]
pub(super) struct RawDeletion {
    id: String,
    matchers: Vec<RawMatcher>,
    min_time: i64,
    max_time: i64,
    time: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    details: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct RawMatcher {
    name: String,
    op: String,
    value: String,
}

impl Deletion {
    /// The matchers that are left for the series of a block with these external labels and times; `None` if the deletion does not
    /// concern it.
    pub fn matchers_for(&self, external: &Labels, times: TimeRange) -> Option<Vec<Matcher>> {
        match ExternalMatch::split(&self.matchers, external) {
            ExternalMatch::Rest(rest) if self.range.overlaps(&times) => Some(rest),
            _ => None,
        }
    }

    /// An entry of `deletions_applied` in `meta.json`, as Thanos writes it.
    pub fn log_entry(&self) -> Value {
        let kind = |op: MatchOp| match op {
            MatchOp::Equal => 0,
            MatchOp::NotEqual => 1,
            MatchOp::Regex => 2,
            MatchOp::NotRegex => 3,
        };
        let matcher = |m: &Matcher| json!({ "Type": kind(m.op()), "Name": m.name(), "Value": m.value() });
        json!({
            "matchers": self.matchers.iter().map(matcher).collect::<Vec<_>>(),
            "intervals": [{ "Mint": self.range.min.as_millis(), "Maxt": self.range.max.as_millis() }],
            "request_id": self.id,
        })
    }

    pub(super) fn from_raw(raw: RawDeletion) -> Result<Self, String> {
        if raw.id.is_empty() || raw.id.len() > MAX_ID_BYTES {
            return Err(format!(
                "a deletion has an id of {} bytes, expected 1 to {MAX_ID_BYTES}",
                raw.id.len()
            ));
        }
        if raw.matchers.len() > MAX_MATCHERS {
            return Err(format!(
                "a deletion has {} matchers, expected at most {MAX_MATCHERS}",
                raw.matchers.len()
            ));
        }
        let matcher = |raw: RawMatcher| {
            let ops = [MatchOp::Equal, MatchOp::NotEqual, MatchOp::Regex, MatchOp::NotRegex];
            let op = ops.into_iter().find(|op| op.as_str() == raw.op);
            let op = op.ok_or_else(|| format!("a matcher has the operator {:.10?}", raw.op))?;
            Matcher::new(op, &raw.name, &raw.value).map_err(|error| error.to_string())
        };
        let matchers = raw.matchers.into_iter().map(matcher).collect::<Result<Vec<_>, _>>()?;
        let deletion = Self {
            id: raw.id,
            matchers,
            range: TimeRange::new(Timestamp::from_millis(raw.min_time), Timestamp::from_millis(raw.max_time)),
            time: Timestamp::from_millis(raw.time),
            details: raw.details,
        };
        deletion.check().map(|()| deletion)
    }

    /// Whether it says what is deleted.
    ///
    /// # Errors
    /// A short text that says what is wrong.
    pub fn check(&self) -> Result<(), String> {
        if self.matchers.iter().all(Matcher::matches_empty) {
            return Err("a deletion needs a matcher that does not match the empty string".to_owned());
        }
        if self.range.is_empty() {
            return Err(format!(
                "a deletion ends at {}, before it begins at {}",
                self.range.max, self.range.min
            ));
        }
        Ok(())
    }

    pub(super) fn to_raw(&self) -> RawDeletion {
        let matcher = |m: &Matcher| RawMatcher {
            name: m.name().to_owned(),
            op: m.op().as_str().to_owned(),
            value: m.value().to_owned(),
        };
        RawDeletion {
            id: self.id.clone(),
            matchers: self.matchers.iter().map(matcher).collect(),
            min_time: self.range.min.as_millis(),
            max_time: self.range.max.as_millis(),
            time: self.time.as_millis(),
            details: self.details.clone(),
        }
    }
}
