//! `shard_info`: the part of a query that a query-frontend asks for.

use promapi::{ApiError, ParamError, Params};
use serde::Deserialize;
use storeapi::Shard;

/// `ShardInfo` of StoreAPI as JSON. As in Thanos, absent fields are zero.
#[derive(Default, Deserialize)]
#[serde(default)]
struct ShardJson {
    shard_index: i64,
    total_shards: i64,
    by: bool,
    labels: Option<Vec<String>>,
}

/// The part of the series that the request asks for; `None` for all.
///
/// # Errors
/// The value is not the JSON of a shard, or its number is not less than the number of shards.
pub(super) fn requested(params: &Params) -> Result<Option<Shard>, ApiError> {
    let Some(text) = params.get("shard_info") else { return Ok(None) };
    let refuse = |cause: String| ParamError::invalid("shard_info", cause).into();
    let shard: ShardJson = serde_json::from_str(text).map_err(|cause| refuse(cause.to_string()))?;
    if shard.total_shards < 1 {
        return Ok(None);
    }
    match (u64::try_from(shard.shard_index), u64::try_from(shard.total_shards)) {
        (Ok(index), Ok(total)) if index < total => {
            Ok(Some(Shard { index, total, by: shard.by, labels: shard.labels.unwrap_or_default() }))
        }
        _ => Err(refuse(format!(
            "shard_index is {}, expected a number from 0 to total_shards - 1, which is {}",
            shard.shard_index,
            shard.total_shards - 1
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Option<Shard>, String> {
        let mut query = String::from("shard_info=");
        json.bytes().for_each(|byte| query.push_str(&format!("%{byte:02x}")));
        requested(&Params::parse(Some(&query), None).unwrap()).map_err(|error| error.message)
    }

    #[test]
    fn shards_are_read_from_json() {
        let shard = |index, labels: &[&str], by| {
            let labels = labels.iter().map(|label| (*label).to_owned()).collect();
            Ok(Some(Shard { index, total: 2, by, labels }))
        };
        let full = r#"{"shard_index":1,"total_shards":2,"by":true,"labels":["a","b"]}"#;
        assert_eq!(read(full), shard(1, &["a", "b"], true));
        assert_eq!(read(r#"{"total_shards":2,"labels":null}"#), shard(0, &[], false));
        assert_eq!(read("{}"), Ok(None));
        assert_eq!(read(""), Ok(None));
        for (json, part) in [
            ("[", "EOF"),
            (r#"{"total_shards":"2"}"#, "invalid type"),
            (
                r#"{"shard_index":2,"total_shards":2}"#,
                "shard_index is 2, expected a number from 0 to total_shards - 1, which is 1",
            ),
            (r#"{"shard_index":-1,"total_shards":2}"#, "shard_index is -1"),
        ] {
            let error = read(json).unwrap_err();
            assert!(error.contains("\"shard_info\"") && error.contains(part), "{error}");
        }
    }
}
