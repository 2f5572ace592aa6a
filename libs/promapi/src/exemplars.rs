//! Exemplars, as `/api/v1/query_exemplars` has them.

use model::{Labels, Timestamp};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::float::format_float;
use crate::json::{labels_json, null_is_default};

/// The exemplars of one series.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ExemplarSeries {
    /// The labels of the series.
    #[serde(with = "labels_json")]
    pub series_labels: Labels,
    /// Its exemplars.
    #[serde(deserialize_with = "null_is_default")]
    pub exemplars: Vec<Exemplar>,
}

/// An exemplar.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Exemplar {
    /// Its own labels, such as the id of a trace.
    #[serde(with = "labels_json", default)]
    pub labels: Labels,
    /// The value that was observed.
    #[serde(serialize_with = "value_as_text", deserialize_with = "value_from_text")]
    pub value: f64,
    /// When it was observed.
    #[serde(serialize_with = "time_in_seconds", deserialize_with = "time_from_seconds")]
    pub timestamp: Timestamp,
}

fn value_as_text<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format_float(*value))
}

fn value_from_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
}

fn time_in_seconds<S: Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(at.as_millis() as f64 / 1000.0)
}

fn time_from_seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
    // The conversion of a float to an integer saturates.
    Ok(Timestamp::from_millis((f64::deserialize(deserializer)? * 1000.0).round() as i64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exemplars_of_prometheus_are_read_and_printed_in_its_format() {
        let json = serde_json::json!([{
            "seriesLabels": {"__name__": "m", "job": "j"},
            "exemplars": [
                {"labels": {"traceID": "x"}, "value": "6", "timestamp": 1_600_096_945.479},
                {"labels": {}, "value": "+Inf", "timestamp": 0.0},
            ],
        }]);
        let series: Vec<ExemplarSeries> = serde_json::from_value(json.clone()).unwrap();
        let exemplar = &series[0].exemplars[0];
        assert_eq!((exemplar.value, exemplar.timestamp.as_millis()), (6.0, 1_600_096_945_479));
        assert_eq!(serde_json::to_value(&series).unwrap(), json);
        assert!(serde_json::from_str::<Exemplar>(r#"{"value":"six","timestamp":0}"#).is_err());
    }
}
