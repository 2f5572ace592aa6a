//! Answers to instant queries.

use model::{Labels, Timestamp};
use serde::{Deserialize, de};

use crate::client::answers::{ApiResponse, JsonLabelSet, WithWarnings};
use crate::client::range_query::JsonSample;

/// A sample of the answer to an instant query.
#[derive(Clone, Debug, PartialEq)]
pub struct AnsweredSample {
    /// Its labels; none if the answer is a scalar.
    pub labels: Labels,
    /// Its time.
    pub at: Timestamp,
    /// Its value; `None` for a native histogram. JSON does not have its buckets exactly.
    pub value: Option<f64>,
}

/// Why the answer to an instant query cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// The server reports an error, with its kind and its text.
    #[error("{kind}: {text}")]
    Reported {
        /// The value of `errorType`.
        kind: String,
        /// The value of `error`.
        text: String,
    },
    /// The answer is not one of the API of Prometheus.
    #[error("the answer is not one of the Prometheus API: {0}")]
    Unreadable(String),
}

#[derive(Deserialize)]
#[serde(tag = "resultType", content = "result", rename_all = "lowercase")]
enum InstantData {
    Vector(Vec<JsonElement>),
    Scalar(JsonSample),
    Matrix(de::IgnoredAny),
    String(de::IgnoredAny),
}

#[derive(Deserialize)]
struct JsonElement {
    metric: JsonLabelSet,
    value: Option<JsonSample>,
    histogram: Option<(f64, de::IgnoredAny)>,
}

/// Reads the body of an answer to `/api/v1/query`. A scalar is a sample without labels.
///
/// # Errors
/// See [`AnswerError`]; also if the answer is a matrix or a string.
pub fn parse_instant_answer(body: &[u8]) -> Result<WithWarnings<Vec<AnsweredSample>>, AnswerError> {
    let unreadable = |why: &dyn std::fmt::Display| AnswerError::Unreadable(why.to_string());
    let reply: ApiResponse<InstantData> = serde_json::from_slice(body).map_err(|why| unreadable(&why))?;
    if reply.status != "success" {
        return Err(AnswerError::Reported { kind: reply.error_type, text: reply.error });
    }
    let data = match reply.data.ok_or_else(|| unreadable(&"the field \"data\" is missing"))? {
        InstantData::Vector(elements) => elements.into_iter().map(sample).collect::<Result<_, _>>()?,
        InstantData::Scalar(JsonSample(scalar)) => {
            vec![AnsweredSample { labels: Labels::empty(), at: scalar.timestamp, value: Some(scalar.value) }]
        }
        InstantData::Matrix(_) | InstantData::String(_) => {
            return Err(unreadable(&"the result is not a vector or scalar"));
        }
    };
    Ok(WithWarnings { data, warnings: reply.warnings })
}

fn sample(element: JsonElement) -> Result<AnsweredSample, AnswerError> {
    let labels = element.metric.0;
    match (element.value, element.histogram) {
        (Some(JsonSample(sample)), _) => {
            Ok(AnsweredSample { labels, at: sample.timestamp, value: Some(sample.value) })
        }
        (None, Some((at, _))) => Ok(AnsweredSample { labels, at: Timestamp::from_secs_f64(at), value: None }),
        (None, None) => Err(AnswerError::Unreadable(format!("the series {labels} has no value"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(data: &str) -> Result<Vec<(String, i64, Option<f64>)>, String> {
        let body = format!(r#"{{"status":"success","data":{data},"warnings":["w"]}}"#);
        let answer = parse_instant_answer(body.as_bytes()).map_err(|why| why.to_string())?;
        assert_eq!(answer.warnings, ["w"]);
        Ok(answer.data.into_iter().map(|s| (s.labels.to_string(), s.at.as_millis(), s.value)).collect())
    }

    #[test]
    fn vectors_and_scalars_are_read() {
        let vector = r#"{"resultType":"vector","result":[{"metric":{"a":"b"},"value":[1.5,"+Inf"]},
            {"metric":{},"histogram":[2,{"count":"1"}]}]}"#;
        let expected =
            vec![(r#"{a="b"}"#.to_owned(), 1500, Some(f64::INFINITY)), ("{}".to_owned(), 2000, None)];
        assert_eq!(read(vector), Ok(expected));
        let scalar = r#"{"resultType":"scalar","result":[1,"2.5"]}"#;
        assert_eq!(read(scalar), Ok(vec![("{}".to_owned(), 1000, Some(2.5))]));
    }

    #[test]
    fn other_answers_are_errors() {
        let check = |data: &str, expected: &str| {
            let error = read(data).unwrap_err();
            assert!(error.contains(expected), "{error}");
        };
        check(r#"{"resultType":"matrix","result":[]}"#, "is not a vector or scalar");
        check(r#"{"resultType":"vector","result":[{"metric":{}}]}"#, "has no value");
        check(r#"{"resultType":"vector","result":[{"metric":{},"value":[1,"x"]}]}"#, "is not a number");
        let reported =
            parse_instant_answer(br#"{"status":"error","errorType":"execution","error":"no store"}"#);
        assert_eq!(reported.unwrap_err().to_string(), "execution: no store");
        let html = parse_instant_answer(b"<html>").unwrap_err();
        assert!(html.to_string().starts_with("the answer is not one of the Prometheus API: "), "{html}");
    }

    #[test]
    fn mutated_answers_never_panic() {
        let body = br#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{"a":"b"},"value":[1.5,"2"]}]}}"#;
        for at in 0..body.len() {
            for byte in [0, b'"', b'{', b'9', b'-', 0xff] {
                let mut body = body.to_vec();
                body[at] = byte;
                let _ = parse_instant_answer(&body);
                let _ = parse_instant_answer(&body[..at]);
            }
        }
    }
}
