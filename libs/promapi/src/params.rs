//! Request parameters: merges query string and form body, and parses values as Prometheus does.

use std::time::Duration;

use model::{TimeRange, Timestamp};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::duration::parse_prometheus_duration;
use crate::multipart;

/// The earliest time that Prometheus accepts in metadata requests. It means "no lower bound".
pub const MIN_TIME: Timestamp = Timestamp::from_millis((i64::MIN / 1000 + 62_135_596_801) * 1000);
/// The latest time that Prometheus accepts in metadata requests. It means "no upper bound".
pub const MAX_TIME: Timestamp = Timestamp::from_millis((i64::MAX / 1000 - 62_135_596_801) * 1000 + 999);

/// The forms in which Prometheus prints [`MIN_TIME`] and [`MAX_TIME`]. Clients send them back.
const MIN_TIME_TEXT: &str = "-292273086-05-16T16:47:06Z";
const MAX_TIME_TEXT: &str = "292277025-08-18T07:12:54.999999999Z";

/// Maximum number of steps between start and end of a range query.
pub const MAX_STEPS: i64 = 11_000;

/// An invalid parameter. The messages are those of Prometheus.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParamError {
    /// The value is invalid.
    #[error("invalid parameter {name:?}: {cause}")]
    Invalid {
        /// The name of the parameter.
        name: String,
        /// What is wrong with the value.
        cause: String,
    },
    /// The query string or form body cannot be parsed.
    #[error("error parsing form values: {0}")]
    Form(String),
    /// A required selector is missing.
    #[error("no match[] parameter provided")]
    NoMatcher,
    /// The query has more than 11,000 steps.
    #[error(
        "exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution (?step=XX)"
    )]
    TooManySteps,
}

impl ParamError {
    /// Creates the error of an invalid value of parameter `name`.
    pub fn invalid(name: &str, cause: impl Into<String>) -> Self {
        Self::Invalid { name: name.to_owned(), cause: cause.into() }
    }
}

/// The parameters of a request. A name may have several values.
///
/// Parameters of the form body come before those of the query string, and take precedence where one value is
/// used.
///
/// ```
/// let params = promapi::Params::parse(Some("time=1.5&match[]=up"), Some(b"match[]=a%7B%7D")).unwrap();
/// assert_eq!(params.all("match[]").collect::<Vec<_>>(), ["a{}", "up"]);
/// assert_eq!(params.time("time").unwrap().unwrap().as_millis(), 1500);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Params {
    pairs: Vec<(String, String)>,
}

/// Start, end and step of a range query, validated together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RangeQuery {
    /// Instant of the first evaluation.
    pub start: Timestamp,
    /// Last possible instant of an evaluation; not before the start.
    pub end: Timestamp,
    /// Interval between evaluations; at least 1 ms.
    pub step: Duration,
}

impl Params {
    /// Parses a query string (without `?`) and an `application/x-www-form-urlencoded` body.
    ///
    /// The caller must limit the size of the body. Names without `=` get an empty value.
    ///
    /// # Errors
    /// A `%` is not followed by two hexadecimal digits, a name or value contains a semicolon, or a text is
    /// not valid UTF-8.
    pub fn parse(query: Option<&str>, form: Option<&[u8]>) -> Result<Self, ParamError> {
        let mut pairs = Vec::new();
        for list in [form, query.map(str::as_bytes)].into_iter().flatten() {
            for pair in list.split(|b| *b == b'&').filter(|pair| !pair.is_empty()) {
                if pair.contains(&b';') {
                    return Err(ParamError::Form("invalid semicolon separator in query".to_owned()));
                }
                let (name, value) = match pair.iter().position(|b| *b == b'=') {
                    Some(at) => (&pair[..at], &pair[at + 1..]),
                    None => (pair, &pair[..0]),
                };
                pairs.push((unescape(name)?, unescape(value)?));
            }
        }
        Ok(Self { pairs })
    }

    /// Parses a query string (without `?`) and a body with the content type `multipart/form-data`, without its files. As in
    /// Go, parameters of the query string come first here.
    ///
    /// The caller must limit the size of the body.
    ///
    /// # Errors
    /// As for [`parse`](Self::parse), or the body is not complete.
    pub fn parse_multipart(query: Option<&str>, content_type: &str, body: &[u8]) -> Result<Self, ParamError> {
        let mut params = Self::parse(query, None)?;
        params.pairs.extend(multipart::fields(content_type, body).map_err(ParamError::Form)?);
        Ok(params)
    }

    /// The first value of `name`. As in Prometheus, an empty value counts as absent.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.all(name).next().filter(|value| !value.is_empty())
    }

    /// All values of `name`, including empty ones.
    pub fn all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
        self.pairs.iter().filter(move |(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// Whether `name` is present, even with an empty value.
    pub fn contains(&self, name: &str) -> bool {
        self.all(name).next().is_some()
    }

    /// The `match[]` selectors; at least one is required.
    ///
    /// # Errors
    /// [`ParamError::NoMatcher`].
    pub fn matchers(&self) -> Result<Vec<&str>, ParamError> {
        let matchers: Vec<&str> = self.all("match[]").collect();
        if matchers.is_empty() { Err(ParamError::NoMatcher) } else { Ok(matchers) }
    }

    /// Parses an instant: seconds as a float, or RFC 3339; `None` if absent.
    ///
    /// # Errors
    /// `cannot parse "x" to a valid timestamp`.
    pub fn time(&self, name: &str) -> Result<Option<Timestamp>, ParamError> {
        self.get(name).map(|text| parse_time(name, text)).transpose()
    }

    /// Parses a duration: seconds as a float, or the notation of Prometheus; `None` if absent.
    ///
    /// # Errors
    /// `cannot parse "x" to a valid duration`, also for negative values.
    pub fn duration(&self, name: &str) -> Result<Option<Duration>, ParamError> {
        let Some(text) = self.get(name) else { return Ok(None) };
        match parse_duration(name, text)? {
            ParsedLength::Positive(length) => Ok(Some(length)),
            ParsedLength::ZeroOrNegative if text.starts_with('-') => {
                Err(ParamError::invalid(name, format!("cannot parse {text:?} to a valid duration")))
            }
            ParsedLength::ZeroOrNegative => Ok(Some(Duration::ZERO)),
        }
    }

    /// Parses a boolean in one of the spellings of Go (`1 t T TRUE true True`, `0 f F FALSE false False`);
    /// `None` if absent.
    ///
    /// # Errors
    /// The value has another spelling.
    pub fn bool(&self, name: &str) -> Result<Option<bool>, ParamError> {
        match self.get(name) {
            None => Ok(None),
            Some("1" | "t" | "T" | "TRUE" | "true" | "True") => Ok(Some(true)),
            Some("0" | "f" | "F" | "FALSE" | "false" | "False") => Ok(Some(false)),
            Some(text) => {
                Err(ParamError::invalid(name, format!("strconv.ParseBool: parsing {text:?}: invalid syntax")))
            }
        }
    }

    /// Parses a limit of results; `None`, which means no limit, if absent or 0.
    ///
    /// # Errors
    /// The value is not a whole number, or is negative.
    pub fn limit(&self, name: &str) -> Result<Option<usize>, ParamError> {
        let Some(text) = self.get(name) else { return Ok(None) };
        match text.parse::<i64>() {
            Ok(0) => Ok(None),
            Ok(limit) => match usize::try_from(limit) {
                Ok(limit) => Ok(Some(limit)),
                Err(_) => Err(ParamError::invalid(name, "limit must be non-negative")),
            },
            Err(error) => {
                use std::num::IntErrorKind::{NegOverflow, PosOverflow};
                let cause = match error.kind() {
                    PosOverflow | NegOverflow => "value out of range",
                    _ => "invalid syntax",
                };
                Err(ParamError::invalid(name, format!("strconv.Atoi: parsing {text:?}: {cause}")))
            }
        }
    }

    /// The time range of a metadata request from `start` and `end`. An absent parameter means no bound.
    ///
    /// # Errors
    /// A value is invalid, or the end is before the start.
    pub fn metadata_range(&self) -> Result<TimeRange, ParamError> {
        let range =
            TimeRange::new(self.time("start")?.unwrap_or(MIN_TIME), self.time("end")?.unwrap_or(MAX_TIME));
        if range.is_empty() { Err(end_before_start()) } else { Ok(range) }
    }

    /// The range query of `start`, `end` and `step`. `default_step` computes the step if none was sent; pass
    /// `|_| None` to reject such requests, as Prometheus does.
    ///
    /// # Errors
    /// A value is missing or invalid, the end is before the start, the step is shorter than a millisecond, or
    /// there are more than 11,000 steps.
    pub fn range_query(
        &self,
        default_step: impl FnOnce(TimeRange) -> Option<Duration>,
    ) -> Result<RangeQuery, ParamError> {
        let start = parse_time("start", self.get("start").unwrap_or(""))?;
        let end = parse_time("end", self.get("end").unwrap_or(""))?;
        if end < start {
            return Err(end_before_start());
        }
        let step = match self.get("step") {
            Some(text) => parse_duration("step", text)?,
            None => match default_step(TimeRange::new(start, end)) {
                Some(step) => ParsedLength::Positive(step),
                None => parse_duration("step", "")?,
            },
        };
        // Evaluation has a resolution of 1 ms. Prometheus truncates shorter steps to zero and then divides by
        // zero.
        let step = match step {
            ParsedLength::Positive(step) if step.as_millis() > 0 => {
                Duration::from_millis(step.as_millis() as u64)
            }
            _ => {
                let cause =
                    "zero or negative query resolution step widths are not accepted. Try a positive integer";
                return Err(ParamError::invalid("step", cause));
            }
        };
        let step_millis = i64::try_from(step.as_millis()).unwrap_or(i64::MAX);
        if end.millis_since(start) / step_millis > MAX_STEPS {
            return Err(ParamError::TooManySteps);
        }
        Ok(RangeQuery { start, end, step })
    }
}

fn end_before_start() -> ParamError {
    ParamError::invalid("end", "end timestamp must not be before start time")
}

/// Decodes the percent-encoding of forms.
fn unescape(text: &[u8]) -> Result<String, ParamError> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'+' => out.push(b' '),
            b'%' => {
                let digit = |at: usize| after.get(at).and_then(|b| char::from(*b).to_digit(16));
                let (Some(high), Some(low)) = (digit(0), digit(1)) else {
                    let shown = String::from_utf8_lossy(&after[..after.len().min(2)]).into_owned();
                    return Err(ParamError::Form(format!("invalid URL escape {:?}", format!("%{shown}"))));
                };
                out.push((high * 16 + low) as u8);
                rest = &after[2..];
            }
            byte => out.push(byte),
        }
    }
    String::from_utf8(out).map_err(|_| ParamError::Form("text is not valid UTF-8".to_owned()))
}

/// Parses a float as Go does, except for infinity and NaN, which no parameter accepts.
fn parse_float(text: &str) -> Option<f64> {
    text.parse().ok().filter(|value: &f64| value.is_finite())
}

/// Parses an instant: seconds as a float, or RFC 3339. `name` is that of the parameter, for the error.
///
/// # Errors
/// `cannot parse "x" to a valid timestamp`.
pub fn parse_time(name: &str, text: &str) -> Result<Timestamp, ParamError> {
    if let Some(seconds) = parse_float(text) {
        // Larger values do not fit into a millisecond timestamp.
        if seconds.abs() <= i64::MAX as f64 / 1000.0 {
            let whole = seconds.trunc();
            let millis = ((seconds - whole) * 1000.0).round();
            return Ok(
                Timestamp::from_millis((whole as i64).saturating_mul(1000)).offset_millis(millis as i64)
            );
        }
    }
    match text {
        MIN_TIME_TEXT => return Ok(MIN_TIME),
        MAX_TIME_TEXT => return Ok(MAX_TIME),
        _ => {}
    }
    match OffsetDateTime::parse(text, &Rfc3339) {
        // The years 0 to 9999 fit into i64 milliseconds.
        Ok(at) => Ok(Timestamp::from_millis(at.unix_timestamp_nanos().div_euclid(1_000_000) as i64)),
        Err(_) => Err(ParamError::invalid(name, format!("cannot parse {text:?} to a valid timestamp"))),
    }
}

/// A parsed duration parameter. A float may be negative.
enum ParsedLength {
    Positive(Duration),
    ZeroOrNegative,
}

fn parse_duration(name: &str, text: &str) -> Result<ParsedLength, ParamError> {
    let refuse =
        |tail: &str| ParamError::invalid(name, format!("cannot parse {text:?} to a valid duration{tail}"));
    if let Some(seconds) = parse_float(text) {
        if seconds.abs() * 1e9 > i64::MAX as f64 {
            return Err(refuse(". It overflows int64"));
        }
        return Ok(if seconds > 0.0 {
            ParsedLength::Positive(Duration::from_nanos((seconds * 1e9) as u64))
        } else {
            ParsedLength::ZeroOrNegative
        });
    }
    match parse_prometheus_duration(text) {
        Ok(Duration::ZERO) => Ok(ParsedLength::ZeroOrNegative),
        Ok(length) => Ok(ParsedLength::Positive(length)),
        Err(_) => Err(refuse("")),
    }
}

#[cfg(test)]
mod tests;
