//! Expositions: any bytes are read or rejected in each format, and the labels of each series, too.

#![no_main]

use exposition::{Entry, ProtobufParser, TextFormat, TextParser, exemplar_labels, series_labels};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    for format in [TextFormat::Prometheus, TextFormat::OpenMetrics] {
        for entry in TextParser::new(input, format) {
            if let Ok(Entry::Sample(sample)) = entry {
                let _ = series_labels(sample.series, format);
                if let Some(exemplar) = sample.exemplar {
                    let _ = exemplar_labels(exemplar.labels, format);
                }
            }
        }
    }
    for keep_classic in [false, true] {
        let entries = ProtobufParser::new(input, keep_classic).count();
        assert!(entries <= input.len() + 1);
    }
});
