//! Block files: any bytes are read as an index or as `meta.json`, or rejected with an error.

#![no_main]

use std::sync::Arc;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use model::{MatchOp, Matcher};
use tsdb::{BlockMeta, Index, IndexMemory, Ulid};

fuzz_target!(|input: &[u8]| {
    if let Ok(meta) = BlockMeta::parse(input) {
        let again = BlockMeta::parse(&meta.to_json()).expect("parsing the output of to_json succeeds");
        assert_eq!(again.to_json(), meta.to_json());
    }
    let Ok(index) = Index::open(Ulid::nil(), Arc::new(Bytes::copy_from_slice(input)), IndexMemory::default())
    else {
        return;
    };
    let names: Vec<String> = index.label_names().map(|(name, _)| name.to_owned()).collect();
    for name in names.iter().take(8) {
        for value in index.label_values(name).unwrap_or_default().iter().take(8) {
            let _ = index.postings(name, value);
        }
        if let Ok(any) = Matcher::new(MatchOp::Regex, name, ".+") {
            let _ = index.matching(&[any]);
        }
    }
    if let Ok(all) = index.all_postings() {
        for entry in index.scan(all.iter().take(64)) {
            let _ = entry;
        }
    }
});
