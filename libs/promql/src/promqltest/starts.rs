//! Parses lines of start timestamps, `requests@st _ -30s-1mx10`. For each sample of the next line they give
//! the start of its counter, relative to the sample and therefore usually negative.

use model::Labels;

use crate::promqltest::sequence::{MAX_VALUES, parse_series};
use crate::syntax::parse_duration;

/// For each entry of a sequence, the offset of the start from the sample in milliseconds. `None` if the start
/// is unknown.
pub(super) type Starts = Vec<Option<i64>>;

/// Parses a line of start timestamps. Returns `None` if the line is of another kind.
pub(super) fn parse_starts(line: &str) -> Option<Result<(Labels, Starts), String>> {
    let (series, items) = line.split_once([' ', '\t']).unwrap_or((line, ""));
    let series = series.strip_suffix("@st")?;
    Some(parse_series(&format!("{series} _")).and_then(|(labels, _)| {
        let mut starts = Starts::new();
        for item in items.split_ascii_whitespace() {
            parse_item(item, &mut starts).map_err(|why| format!("invalid @st item {item:?}: {why}"))?;
        }
        Ok((labels, starts))
    }))
}

fn parse_item(item: &str, starts: &mut Starts) -> Result<(), String> {
    let count = |digits: &str| digits.parse::<usize>().map_err(|_| "invalid repeat count".to_owned());
    let room = MAX_VALUES.saturating_sub(starts.len());
    let mut repeat = |times: usize, first: Option<i64>, step: i64| {
        if times > room {
            return Err(format!("a series of more than {MAX_VALUES} values"));
        }
        let nth = |n: usize| first.map(|first| first.saturating_add(step.saturating_mul(n as i64)));
        starts.extend((0..times).map(nth));
        Ok(())
    };
    if let Some(times) = item.strip_prefix('_') {
        return match times.strip_prefix('x').map(count).transpose()? {
            Some(0) => Err("invalid repeat count".to_owned()),
            Some(times) => repeat(times, None, 0),
            None if times.is_empty() => repeat(1, None, 0),
            None => Err("expected 'x' and a repeat count after '_'".to_owned()),
        };
    }
    let (base, rest) = length(item)?;
    if rest.is_empty() {
        return repeat(1, Some(base), 0);
    }
    let (step, rest) = if rest.starts_with('x') { (0, rest) } else { length(rest)? };
    let times = rest.strip_prefix('x').ok_or("expected 'x' and a repeat count after the step")?;
    repeat(count(times)?.saturating_add(1), Some(base), step)
}

/// Parses a duration with an optional sign, a number and one unit, in milliseconds. Also returns the rest of
/// the text.
fn length(text: &str) -> Result<(i64, &str), String> {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let digits = unsigned.find(|c: char| !c.is_ascii_digit()).unwrap_or(unsigned.len());
    let unit = unsigned[digits..].find(|c: char| !c.is_ascii_alphabetic() || c == 'x');
    let (length, rest) = unsigned.split_at(unit.map_or(unsigned.len(), |unit| digits + unit));
    let millis = parse_duration(length)?;
    Ok((if text.starts_with('-') { -millis } else { millis }, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_expand_as_described() {
        let check = |items: &str, expected: &str| {
            let shown = match parse_starts(&format!("m{{a=\"b\"}}@st {items}")).unwrap() {
                Err(_) => "error".to_owned(),
                Ok((labels, starts)) => {
                    assert_eq!(labels.to_string(), "m{a=\"b\"}");
                    let show = |start: &Option<i64>| start.map_or("_".to_owned(), |ms| ms.to_string());
                    starts.iter().map(show).collect::<Vec<_>>().join(" ")
                }
            };
            assert_eq!(shown, expected, "{items}");
        };
        check("_ -1m\t+30s 0 -0ms", "_ -60000 30000 0 0");
        check("_x2 -1sx1", "_ _ -1000 -1000");
        check("-30s-1mx2 1ms+2msx1 0-1mx0", "-30000 -90000 -150000 1 3 0");
        for wrong in ["_x0", "_y", "-", "1", "1m2", "1m-1m", "1mx", "xx3", "1q", "1mx99999999999", "1m-x3"] {
            check(wrong, "error");
        }
        assert!(parse_starts("m @st 1m").is_none());
        assert!(parse_starts("m{@st 1m").unwrap().is_err());
    }
}
