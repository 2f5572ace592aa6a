//! Instants as the API prints them.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use time::macros::datetime;

/// An instant between the years 1 and 9999, to the nanosecond. In JSON it is an RFC 3339 time in UTC.
///
/// The default is [`NEVER`](Self::NEVER).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ApiTime(OffsetDateTime);

impl ApiTime {
    /// The zero time of Go, which means that something has not happened yet.
    pub const NEVER: Self = Self(datetime!(0001-01-01 0:00 UTC));
    const LAST: Self = Self(datetime!(9999-12-31 23:59:59.999999999 UTC));

    /// The instant at this Unix time; the nearest one that can be printed.
    pub fn from_unix(seconds: i64, nanos: i32) -> Self {
        let nanos = u32::try_from(nanos).unwrap_or(0).min(999_999_999);
        let at = OffsetDateTime::from_unix_timestamp(seconds).and_then(|at| at.replace_nanosecond(nanos));
        match at {
            Ok(at) => Self(at).clamp(Self::NEVER, Self::LAST),
            Err(_) if seconds < 0 => Self::NEVER,
            Err(_) => Self::LAST,
        }
    }

    /// The Unix time: whole seconds, rounded down, and the nanoseconds above them.
    pub fn to_unix(self) -> (i64, i32) {
        // There are fewer than 10^9 nanoseconds in a second.
        (self.0.unix_timestamp(), self.0.nanosecond() as i32)
    }
}

impl Default for ApiTime {
    fn default() -> Self {
        Self::NEVER
    }
}

impl Serialize for ApiTime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0.format(&Rfc3339).map_err(ser::Error::custom)?)
    }
}

impl<'de> Deserialize<'de> for ApiTime {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let at = OffsetDateTime::parse(&text, &Rfc3339).map_err(de::Error::custom)?;
        Ok(Self::from_unix(at.unix_timestamp(), at.nanosecond() as i32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_with_any_offset_and_printed_in_utc() {
        for (text, printed) in [
            ("2024-05-01T12:00:00.123456789+02:00", "2024-05-01T10:00:00.123456789Z"),
            ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
            ("2024-05-01T12:00:00.5Z", "2024-05-01T12:00:00.5Z"),
        ] {
            let at: ApiTime = serde_json::from_str(&format!("{text:?}")).unwrap();
            assert_eq!(serde_json::to_string(&at).unwrap(), format!("{printed:?}"));
            let (seconds, nanos) = at.to_unix();
            assert_eq!(ApiTime::from_unix(seconds, nanos), at);
        }
        assert!(serde_json::from_str::<ApiTime>("\"soon\"").is_err());
    }

    #[test]
    fn times_out_of_range_become_the_nearest_one() {
        for (seconds, nanos) in
            [(i64::MIN, i32::MIN), (i64::MAX, i32::MAX), (i64::MAX, -1), (-70_000_000_000, 5)]
        {
            let at = ApiTime::from_unix(seconds, nanos);
            assert_eq!(at, if seconds < 0 { ApiTime::NEVER } else { ApiTime::LAST });
            assert!(serde_json::to_string(&at).is_ok());
        }
    }
}
