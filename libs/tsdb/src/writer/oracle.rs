//! Writes an index in the slow and obvious way, straight from FORMAT.md: everything in memory, one part after the other,
//! without the code under test.

use std::collections::{BTreeMap, BTreeSet};

use crate::SeriesEntry;

fn uvarint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    loop {
        let low = (value % 128) as u8;
        value /= 128;
        if value == 0 {
            out.push(low);
            return out;
        }
        out.push(low + 128);
    }
}

fn varint(value: i64) -> Vec<u8> {
    let doubled = i128::from(value) * 2;
    uvarint((if value < 0 { -doubled - 1 } else { doubled }) as u64)
}

fn text(value: &str) -> Vec<u8> {
    [uvarint(value.len() as u64), value.as_bytes().to_vec()].concat()
}

/// Length, content, checksum.
fn section(content: &[u8]) -> Vec<u8> {
    let length = (content.len() as u32).to_be_bytes();
    [&length[..], content, &crc32c::crc32c(content).to_be_bytes()].concat()
}

fn align(out: &mut Vec<u8>, to: usize) {
    while !out.len().is_multiple_of(to) {
        out.push(0);
    }
}

/// The index of these series. Their references are ignored.
pub(super) fn index(series: &[SeriesEntry]) -> Vec<u8> {
    let mut out = vec![0xba, 0xaa, 0xd7, 0x00, 2];
    let labels = || series.iter().flat_map(|s| s.labels.iter());
    let symbols: BTreeSet<&str> = labels().flat_map(|l| [l.name, l.value]).collect();
    let number = |text: &str| symbols.iter().position(|symbol| *symbol == text).unwrap() as u64;
    let mut content = (symbols.len() as u32).to_be_bytes().to_vec();
    symbols.iter().for_each(|symbol| content.extend(text(symbol)));
    out.extend(section(&content));

    let series_at = out.len();
    let mut lists: BTreeMap<(&str, &str), Vec<u32>> = BTreeMap::new();
    for entry in series {
        align(&mut out, 16);
        let reference = (out.len() / 16) as u32;
        lists.entry(("", "")).or_default().push(reference);
        let mut body = uvarint(entry.labels.len() as u64);
        for label in &entry.labels {
            lists.entry((label.name, label.value)).or_default().push(reference);
            body.extend(uvarint(number(label.name)));
            body.extend(uvarint(number(label.value)));
        }
        body.extend(uvarint(entry.chunks.len() as u64));
        for (place, chunk) in entry.chunks.iter().enumerate() {
            let (min, max) = (chunk.range.min.as_millis(), chunk.range.max.as_millis());
            match place.checked_sub(1).map(|before| entry.chunks[before]) {
                None => {
                    body.extend(varint(min));
                    body.extend(uvarint((max - min) as u64));
                    body.extend(uvarint(chunk.reference.0));
                }
                Some(before) => {
                    body.extend(uvarint((min - before.range.max.as_millis()) as u64));
                    body.extend(uvarint((max - min) as u64));
                    body.extend(varint(chunk.reference.0 as i64 - before.reference.0 as i64));
                }
            }
        }
        out.extend(uvarint(body.len() as u64));
        out.extend(&body);
        out.extend(crc32c::crc32c(&body).to_be_bytes());
    }

    let series_end = out.len();
    let mut table = (lists.len() as u32).to_be_bytes().to_vec();
    for ((name, value), references) in &lists {
        align(&mut out, 4);
        table.push(2);
        table.extend([text(name), text(value), uvarint(out.len() as u64)].concat());
        let mut content = (references.len() as u32).to_be_bytes().to_vec();
        references.iter().for_each(|reference| content.extend(reference.to_be_bytes()));
        out.extend(section(&content));
    }
    let table_at = out.len();
    out.extend(section(&table));
    let contents: Vec<u8> = [5, series_at, series_end, table_at, series_end, table_at]
        .iter()
        .flat_map(|offset| (*offset as u64).to_be_bytes())
        .collect();
    out.extend(&contents);
    out.extend(crc32c::crc32c(&contents).to_be_bytes());
    out
}
