//! Natural order of names with numbers: `host2` before `host10`.

use std::cmp::Ordering;

/// Splits off the first run of digits or of other characters.
fn chunk(text: &str) -> (&str, &str) {
    let digit = text.as_bytes().first().is_some_and(u8::is_ascii_digit);
    let end = text.bytes().position(|b| b.is_ascii_digit() != digit).unwrap_or(text.len());
    text.split_at(end)
}

/// Compares run by run: digits by their numeric value, other characters bytewise.
pub(crate) fn compare(mut a: &str, mut b: &str) -> Ordering {
    while !a.is_empty() && !b.is_empty() {
        let ((left, rest_a), (right, rest_b)) = (chunk(a), chunk(b));
        (a, b) = (rest_a, rest_b);
        if left == right {
            continue;
        }
        let both_numbers = left.as_bytes()[0].is_ascii_digit() && right.as_bytes()[0].is_ascii_digit();
        if !both_numbers {
            return left.cmp(right);
        }
        let (x, y) = (left.trim_start_matches('0'), right.trim_start_matches('0'));
        let order = x.len().cmp(&y.len()).then_with(|| x.cmp(y)).then_with(|| left.len().cmp(&right.len()));
        if order != Ordering::Equal {
            return order;
        }
    }
    a.len().cmp(&b.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_compared_by_numeric_value() {
        let sorted = ["", "4m5", "4m600", "4m1000", "host2", "host10", "host10a", "i"];
        assert!(sorted.is_sorted_by(|a, b| compare(a, b) == Ordering::Less));
        assert_eq!(compare("a1", "a1"), Ordering::Equal);
    }
}
