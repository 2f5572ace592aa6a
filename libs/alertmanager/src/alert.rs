//! An alert, as it is given, and as Alertmanager reads it.

use std::collections::BTreeMap;

use model::{Labels, Timestamp};
use promapi::ApiTime;
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Deserialize, Serialize, Serializer};

/// An alert for Alertmanager.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alert {
    /// Its labels, with `alertname` and with external labels: for Alertmanager they are its identity.
    pub labels: Labels,
    /// Its annotations.
    pub annotations: Labels,
    /// Since when it fires.
    pub starts_at: Timestamp,
    /// When it was resolved. While it fires, the time until which it is taken for firing if it is not sent again.
    pub ends_at: Timestamp,
    /// Where a person can see what the alert comes from; may be empty.
    pub generator_url: String,
}

impl Alert {
    /// Whether it is resolved at `now`.
    pub fn is_resolved(&self, now: Timestamp) -> bool {
        self.ends_at <= now
    }

    /// About the memory that it takes, and the bytes of its message.
    pub(crate) fn size_bytes(&self) -> usize {
        self.labels.size_bytes() + self.annotations.size_bytes() + self.generator_url.len() + 200
    }
}

fn api_time(at: Timestamp) -> ApiTime {
    let millis = at.as_millis();
    // Less than a second.
    let nanos = millis.rem_euclid(1000) as i32 * 1_000_000;
    ApiTime::from_unix(millis.div_euclid(1000), nanos)
}

struct LabelsMap<'a>(&'a Labels);

impl Serialize for LabelsMap<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for label in self.0.iter() {
            map.serialize_entry(label.name, label.value)?;
        }
        map.end()
    }
}

/// The message of a batch: `PostableAlerts` of Alertmanager's API v2.
struct Message<'a>(&'a [std::sync::Arc<Alert>]);

/// `PostableAlert` of Alertmanager's API v2.
struct PostableAlert<'a>(&'a Alert);

impl Serialize for PostableAlert<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Alert { labels, annotations, starts_at, ends_at, generator_url } = self.0;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("labels", &LabelsMap(labels))?;
        map.serialize_entry("annotations", &LabelsMap(annotations))?;
        map.serialize_entry("startsAt", &api_time(*starts_at))?;
        map.serialize_entry("endsAt", &api_time(*ends_at))?;
        // An empty text is not a URL, which Alertmanager would refuse.
        if !generator_url.is_empty() {
            map.serialize_entry("generatorURL", generator_url)?;
        }
        map.end()
    }
}

impl Serialize for Message<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.0.len()))?;
        for alert in self.0 {
            list.serialize_element(&PostableAlert(alert))?;
        }
        list.end()
    }
}

/// The message of a batch.
pub(crate) fn message(alerts: &[std::sync::Arc<Alert>]) -> Vec<u8> {
    // Text and maps with text as keys can always be written.
    serde_json::to_vec(&Message(alerts)).unwrap_or_default()
}

/// An alert in the journal.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StoredAlert {
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    /// Milliseconds since the epoch.
    starts_at: i64,
    /// Milliseconds since the epoch.
    ends_at: i64,
    generator_url: String,
}

impl From<&Alert> for StoredAlert {
    fn from(alert: &Alert) -> Self {
        let texts = |labels: &Labels| {
            labels.iter().map(|label| (label.name.to_owned(), label.value.to_owned())).collect()
        };
        Self {
            labels: texts(&alert.labels),
            annotations: texts(&alert.annotations),
            starts_at: alert.starts_at.as_millis(),
            ends_at: alert.ends_at.as_millis(),
            generator_url: alert.generator_url.clone(),
        }
    }
}

impl TryFrom<StoredAlert> for Alert {
    type Error = String;

    fn try_from(stored: StoredAlert) -> Result<Self, String> {
        let labels = |texts| Labels::from_pairs(texts).map_err(|why: model::LabelsError| why.to_string());
        Ok(Self {
            labels: labels(stored.labels)?,
            annotations: labels(stored.annotations)?,
            starts_at: Timestamp::from_millis(stored.starts_at),
            ends_at: Timestamp::from_millis(stored.ends_at),
            generator_url: stored.generator_url,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn the_message_has_the_form_of_alertmanager() {
        let alert = Alert {
            labels: Labels::from_pairs([("alertname", "Down"), ("job", "a\"b")]).unwrap(),
            annotations: Labels::from_pairs([("summary", "gone\n")]).unwrap(),
            starts_at: Timestamp::from_millis(1_700_000_000_123),
            ends_at: Timestamp::from_millis(-1),
            generator_url: String::new(),
        };
        let with_url = Alert { generator_url: "http://q/graph?g0.expr=up".into(), ..alert.clone() };
        let text = String::from_utf8(message(&[Arc::new(alert), Arc::new(with_url)])).unwrap();
        let same = r#"{"labels":{"alertname":"Down","job":"a\"b"},"annotations":{"summary":"gone\n"},"startsAt":"2023-11-14T22:13:20.123Z","endsAt":"1969-12-31T23:59:59.999Z""#;
        assert_eq!(text, format!("[{same}}},{same},\"generatorURL\":\"http://q/graph?g0.expr=up\"}}]"));
        assert_eq!(message(&[]), b"[]");
    }
}
