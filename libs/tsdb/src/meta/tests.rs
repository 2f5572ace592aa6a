//! Reading and writing `meta.json`.

use super::*;

/// As the sidecar of Thanos writes it, with all of its fields and some unknown ones.
const THANOS: &str = "{
	\"ulid\": \"01DXXFZDYD1MQW6079WK0K6EDQ\",
	\"minTime\": -7200000,
	\"maxTime\": 7200000,
	\"stats\": {
		\"numSamples\": 102,
		\"numFloatSamples\": 100,
		\"numHistogramSamples\": 2,
		\"numSeries\": 3,
		\"numChunks\": 4,
		\"numTombstones\": 5,
		\"numWishes\": 3
	},
	\"compaction\": {
		\"level\": 2,
		\"sources\": [
			\"01DXXFZDYD1MQW6079WK0K6EDP\",
			\"01DXXFZDYD1MQW6079WK0K6EDQ\"
		],
		\"deletable\": true,
		\"parents\": [
			{
				\"ulid\": \"01DXXFZDYD1MQW6079WK0K6EDP\",
				\"minTime\": -7200000,
				\"maxTime\": 0
			}
		],
		\"failed\": true,
		\"hints\": [
			\"from-out-of-order\"
		]
	},
	\"version\": 1,
	\"thanos\": {
		\"version\": 1,
		\"labels\": {
			\"cluster\": \"eu-1\",
			\"replica\": \"0\"
		},
		\"downsample\": {
			\"resolution\": 300000
		},
		\"source\": \"sidecar\",
		\"segment_files\": [
			\"000001\"
		],
		\"files\": [
			{
				\"rel_path\": \"chunks/000001\",
				\"size_bytes\": 131,
				\"hash\": {
					\"hashFunc\": \"SHA256\",
					\"value\": \"00ff\"
				}
			},
			{
				\"rel_path\": \"meta.json\"
			}
		],
		\"rewrites\": [
			{
				\"sources\": []
			}
		],
		\"index_stats\": {
			\"series_max_size\": 92,
			\"chunk_max_size\": 200
		},
		\"extensions\": {
			\"parquet_migrated\": true
		},
		\"upload_time\": \"2026-01-02T03:04:05.000000006Z\",
		\"mood\": \"good\"
	},
	\"tenant\": {
		\"id\": 7
	}
}
";

#[test]
fn every_field_is_read_and_written_back_in_its_place() {
    let meta = BlockMeta::parse(THANOS.as_bytes()).unwrap();
    assert_eq!(String::from_utf8(meta.to_json()).unwrap(), THANOS);
    assert_eq!(
        meta.time_range(),
        TimeRange::new(Timestamp::from_millis(-7_200_000), Timestamp::from_millis(7_199_999))
    );
    assert_eq!((meta.stats.histogram_samples, meta.stats.tombstones), (2, 5));
    assert_eq!(meta.resolution(), Duration::from_secs(300));
    let thanos = meta.thanos.unwrap();
    assert_eq!(thanos.labels["cluster"], "eu-1");
    assert_eq!(thanos.files[0].hash.as_ref().unwrap().func, "SHA256");
    assert_eq!((thanos.files[1].size_bytes, thanos.unknown.len()), (None, 1));
}

#[test]
fn absent_fields_and_null_are_empty() {
    let text = r#"{"version":1,"ulid":"01DXXFZDYD1MQW6079WK0K6EDQ","minTime":0,"maxTime":7200000,
        "compaction":{"level":1,"sources":null},"thanos":{"labels":null,"downsample":{"resolution":0},"source":""}}"#;
    let meta = BlockMeta::parse(text.as_bytes()).unwrap();
    let thanos = meta.thanos.clone().unwrap();
    assert!(thanos.labels.is_empty() && meta.compaction.sources.is_empty());
    assert_eq!(thanos.upload_time, ThanosMeta::NOT_UPLOADED);
    assert_eq!(BlockMeta::parse(&meta.to_json()).unwrap(), meta);
}

#[test]
fn missing_required_fields_and_unknown_versions_are_errors() {
    let refused = |from: &str, to: &str| {
        let text = THANOS.replacen(from, to, 1);
        assert_ne!(text, THANOS);
        BlockMeta::parse(text.as_bytes()).unwrap_err().to_string()
    };
    assert!(refused("\"minTime\"", "\"mintime\"").contains("missing field `minTime`"));
    assert!(refused("\"ulid\"", "\"ulie\"").contains("missing field `ulid`"));
    assert!(refused("\"version\": 1,\n\t\"thanos\"", "\"version\": 2,\n\t\"thanos\"").contains("version 2"));
    assert!(refused("\"version\": 1,\n\t\t\"labels\"", "\"version\": 3,\n\t\t\"labels\"").contains("thanos"));
    assert!(refused("\"maxTime\": 7200000", "\"maxTime\": -7200001").contains("after maxTime"));
    assert!(refused("EDQ", "ED").contains("is not a ULID"));
    assert!(refused("102", "10e400").contains("line 6"));
    assert!(BlockMeta::parse(b"").is_err());
}

#[test]
fn only_canonical_ulids_name_blocks() {
    assert!(parse_block_id("01DXXFZDYD1MQW6079WK0K6EDQ").is_some());
    assert!(parse_block_id("7ZZZZZZZZZZZZZZZZZZZZZZZZZ").is_some());
    for name in [
        "",
        "01DXXFZDYD1MQW6079WK0K6ED",
        "01DXXFZDYD1MQW6079WK0K6EDQ.tmp-for-creation",
        "01dxxfzdyd1mqw6079wk0k6edq",
        "8ZZZZZZZZZZZZZZZZZZZZZZZZZ",
        "01DXXFZDYD1MQW6079WK0K6EDU",
        "chunks_head",
    ] {
        assert_eq!(parse_block_id(name), None, "{name}");
    }
}
