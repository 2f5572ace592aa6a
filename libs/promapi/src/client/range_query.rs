//! Range queries.

use std::time::Duration;

use model::{Sample, Timestamp};
use serde::{Deserialize, Deserializer, de};

use crate::client::PrometheusClient;
use crate::client::answers::{JsonLabelSet, WithWarnings};
use crate::client::query_string::QueryString;
use crate::client::request::ClientError;
use crate::float::write_timestamp;

/// A series of the answer to a range query.
#[derive(Clone, Debug, PartialEq)]
pub struct AnsweredSeries {
    /// Its labels.
    pub labels: model::Labels,
    /// Its floats in the order of time.
    pub floats: Vec<Sample>,
    /// Number of its native histograms. JSON does not have their buckets exactly.
    pub histograms: usize,
}

#[derive(Deserialize)]
#[serde(tag = "resultType", content = "result", rename_all = "lowercase")]
enum RangeData {
    Matrix(Vec<JsonSeries>),
}

#[derive(Deserialize)]
struct JsonSeries {
    metric: JsonLabelSet,
    #[serde(default)]
    values: Vec<JsonSample>,
    #[serde(default)]
    histograms: Vec<de::IgnoredAny>,
}

pub(super) struct JsonSample(pub(super) Sample);

impl<'de> Deserialize<'de> for JsonSample {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (seconds, text) = <(f64, String)>::deserialize(deserializer)?;
        let value = match text.as_str() {
            "+Inf" => f64::INFINITY,
            "-Inf" => f64::NEG_INFINITY,
            "NaN" => f64::NAN,
            text => text.parse().map_err(|_| de::Error::custom(format!("{text:?} is not a number")))?,
        };
        Ok(Self(Sample { timestamp: Timestamp::from_secs_f64(seconds), value }))
    }
}

impl PrometheusClient {
    /// The values of an expression at `start`, `start + step`, ... up to `end`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn query_range(
        &self,
        expression: &str,
        start: Timestamp,
        end: Timestamp,
        step: Duration,
    ) -> Result<WithWarnings<Vec<AnsweredSeries>>, ClientError> {
        let time = |at: Timestamp| {
            let mut text = Vec::new();
            write_timestamp(&mut text, at);
            String::from_utf8_lossy(&text).into_owned()
        };
        let mut query = QueryString::new();
        query.add("query", expression);
        query.add("start", &time(start));
        query.add("end", &time(end));
        query.add("step", &step.as_secs_f64().to_string());
        let answer = self.transport.ask_json("/api/v1/query_range", query).await?;
        let series = |series: JsonSeries| AnsweredSeries {
            labels: series.metric.0,
            floats: series.values.into_iter().map(|sample| sample.0).collect(),
            histograms: series.histograms.len(),
        };
        Ok(answer.map(|RangeData::Matrix(matrix)| matrix.into_iter().map(series).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matrices_are_read_with_all_values() {
        let json = r#"{"resultType":"matrix","result":[{"metric":{"a":"b"},"values":[[1.5,"2"],[3,"+Inf"],[4,"NaN"]],
            "histograms":[[5,{"count":"1"}]]},{"metric":{}}]}"#;
        let RangeData::Matrix(matrix) = serde_json::from_str(json).unwrap();
        assert_eq!((matrix.len(), matrix[0].values.len(), matrix[0].histograms.len()), (2, 3, 1));
        let samples: Vec<(i64, f64)> =
            matrix[0].values.iter().map(|s| (s.0.timestamp.as_millis(), s.0.value)).collect();
        assert_eq!(&samples[..2], [(1500, 2.0), (3000, f64::INFINITY)]);
        assert!(samples[2].1.is_nan() && matrix[0].metric.0.to_string() == r#"{a="b"}"#);
        for wrong in [
            r#"{"resultType":"vector","result":[]}"#,
            r#"{"resultType":"matrix","result":[{"metric":{},"values":[[1,"x"]]}]}"#,
        ] {
            assert!(serde_json::from_str::<RangeData>(wrong).is_err(), "{wrong}");
        }
    }
}
