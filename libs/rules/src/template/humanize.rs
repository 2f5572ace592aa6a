//! Numbers for people: the `humanize` functions of Prometheus.

use crate::template::format::general;
use crate::template::time::GoTime;

fn g4(value: f64) -> String {
    general(value, 4)
}

/// `1234567` as `1.235M`.
pub(super) fn humanize(mut value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return g4(value);
    }
    if value.abs() < 1.0 {
        return small(value);
    }
    let mut prefix = "";
    for next in ["k", "M", "G", "T", "P", "E", "Z", "Y"] {
        if value.abs() < 1000.0 {
            break;
        }
        prefix = next;
        value /= 1000.0;
    }
    format!("{}{prefix}", g4(value))
}

/// `0.12` as `120m`.
fn small(mut value: f64) -> String {
    let mut prefix = "";
    for next in ["m", "u", "n", "p", "f", "a", "z", "y"] {
        if value.abs() >= 1.0 {
            break;
        }
        prefix = next;
        value *= 1000.0;
    }
    format!("{}{prefix}", g4(value))
}

/// `1048576` as `1Mi`.
pub(super) fn humanize_1024(mut value: f64) -> String {
    if value.abs() <= 1.0 || !value.is_finite() {
        return g4(value);
    }
    let mut prefix = "";
    for next in ["ki", "Mi", "Gi", "Ti", "Pi", "Ei", "Zi", "Yi"] {
        if value.abs() < 1024.0 {
            break;
        }
        prefix = next;
        value /= 1024.0;
    }
    format!("{}{prefix}", g4(value))
}

/// `90061` seconds as `1d 1h 1m 1s`.
pub(super) fn humanize_duration(value: f64) -> String {
    if !value.is_finite() {
        return g4(value);
    }
    if value == 0.0 {
        return format!("{}s", g4(value));
    }
    if value.abs() < 1.0 {
        return format!("{}s", small(value));
    }
    let sign = if value < 0.0 { "-" } else { "" };
    let whole = value.abs() as i64;
    let (seconds, minutes, hours, days) = (whole % 60, whole / 60 % 60, whole / 3600 % 24, whole / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{sign}{}s", g4(value.abs())),
        (0, 0, _) => format!("{sign}{minutes}m {seconds}s"),
        (0, _, _) => format!("{sign}{hours}h {minutes}m {seconds}s"),
        _ => format!("{sign}{days}d {hours}h {minutes}m {seconds}s"),
    }
}

/// `0.1234567` as `12.35%`.
pub(super) fn humanize_percentage(value: f64) -> String {
    format!("{}%", g4(value * 100.0))
}

/// Seconds since the epoch as a date.
pub(super) fn humanize_timestamp(value: f64) -> Result<String, String> {
    if !value.is_finite() {
        return Ok(g4(value));
    }
    GoTime::from_seconds(value).map(|time| time.to_string())
}
