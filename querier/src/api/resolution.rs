//! Says which resolution the data of an answer has.

use std::time::Duration;

use model::Timestamp;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::fanout::Resolutions;
use crate::query::QueryAnswer;

/// An information about the resolutions of an answer; none if all its data are raw samples.
pub(super) fn info(answer: &QueryAnswer) -> Option<String> {
    let mut all = Resolutions::default();
    answer.stores.iter().for_each(|(_, report)| all.add_all(&report.resolutions));
    if all.coarsest().is_zero() {
        return None;
    }
    let parts: Vec<String> = all
        .iter()
        .map(|(resolution, range)| {
            let (name, min, max) = (name(resolution), instant(range.min), instant(range.max));
            let forced = resolution > answer.max_resolution;
            let reason = if forced { " (stores have nothing finer)" } else { "" };
            format!("{name} from {min} to {max}{reason}")
        })
        .collect();
    Some(format!("resolution of the data: {}", parts.join(", ")))
}

/// The resolutions of the data of a store, for statistics.
pub(super) fn list(resolutions: &Resolutions) -> Value {
    let entry = |(resolution, range): (Duration, model::TimeRange)| {
        json!({
            "resolution": name(resolution),
            "minTime": range.min.as_millis(),
            "maxTime": range.max.as_millis(),
        })
    };
    resolutions.iter().map(entry).collect()
}

/// The name of a resolution, as in `max_source_resolution`.
fn name(resolution: Duration) -> String {
    match resolution.as_secs() {
        _ if resolution.is_zero() => "raw".to_owned(),
        hours if hours > 0 && hours % 3600 == 0 => format!("{}h", hours / 3600),
        minutes if minutes > 0 && minutes % 60 == 0 => format!("{}m", minutes / 60),
        seconds => format!("{seconds}s"),
    }
}

/// An instant to the second, in UTC; milliseconds since the epoch if it has no date.
fn instant(at: Timestamp) -> String {
    let date = OffsetDateTime::from_unix_timestamp(at.as_millis().div_euclid(1000));
    date.ok().and_then(|date| date.format(&Rfc3339).ok()).unwrap_or_else(|| at.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolutions_and_instants_have_names() {
        let named = |seconds: u64| name(Duration::from_secs(seconds));
        assert_eq!([0, 300, 3600, 90].map(named), ["raw", "5m", "1h", "90s"]);
        assert_eq!(instant(Timestamp::from_millis(1_700_000_000_999)), "2023-11-14T22:13:20Z");
        assert_eq!(instant(Timestamp::MAX), i64::MAX.to_string());
    }
}
