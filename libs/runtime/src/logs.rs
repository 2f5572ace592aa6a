//! Log lines on standard error, as logfmt or JSON.
//!
//! Both forms have the same keys in the same order: `ts` (RFC 3339, UTC, nanoseconds), `level`, `component`,
//! `msg`, then the fields of the event, then the fields of the spans around it, the innermost span first. A key
//! that occurs twice is written once, with the innermost value. `component` is the field of that name, or else
//! the crate that logs.

use std::fmt::{self, Write as _};
use std::io::Write as _;

use time::OffsetDateTime;
use time::macros::format_description;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber, span};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

/// The lowest severity that is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogLevel {
    /// Everything, to search for a fault
    Debug,
    /// Normal events: start, stop, connections, changes
    Info,
    /// Faults that the program works around
    Warn,
    /// Faults that an operator has to repair
    Error,
}

/// The format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// `key=value` pairs
    Logfmt,
    /// One JSON object for each line
    Json,
}

/// Logging has already been started in this process.
#[derive(Debug, thiserror::Error)]
#[error("logging has already been started in this process")]
pub struct LogsError(#[from] tracing_subscriber::util::TryInitError);

/// Starts logging for the whole process.
///
/// # Errors
/// Logging has already been started.
pub fn init_logs(level: LogLevel, format: LogFormat) -> Result<(), LogsError> {
    // The debug lines of the transports would hide everything else, so only their warnings are written.
    let filter = match level {
        LogLevel::Debug => {
            "debug,h2=warn,h3=warn,hyper=warn,hyper_util=warn,quinn=warn,quinn_proto=warn,rustls=warn,tower=warn,tonic=warn"
        }
        LogLevel::Info => "info",
        LogLevel::Warn => "warn",
        LogLevel::Error => "error",
    };
    let lines = LogLines { format, write: to_stderr };
    tracing_subscriber::registry().with(EnvFilter::new(filter)).with(lines).try_init()?;
    Ok(())
}

fn to_stderr(line: &str) {
    // A failure to write to standard error cannot be reported anywhere.
    let _ = std::io::stderr().lock().write_all(line.as_bytes());
}

/// The layer that writes one line for each event, with one call of `write`.
struct LogLines<W> {
    format: LogFormat,
    write: W,
}

/// Fields in the order of their first occurrence; the last value of a key replaces earlier ones.
#[derive(Default)]
struct LogFields(Vec<(&'static str, LogValue)>);

enum LogValue {
    Text(String),
    /// A number or boolean, which needs no quotes in either form.
    Bare(String),
}

impl LogFields {
    fn set(&mut self, key: &'static str, value: LogValue) {
        // `r#type` is how Rust spells a field called `type`.
        let key = key.strip_prefix("r#").unwrap_or(key);
        match self.0.iter_mut().find(|(known, _)| *known == key) {
            Some(slot) => slot.1 = value,
            None => self.0.push((key, value)),
        }
    }

    fn remove(&mut self, key: &str) -> Option<LogValue> {
        let at = self.0.iter().position(|(known, _)| *known == key)?;
        Some(self.0.remove(at).1)
    }
}

impl Visit for LogFields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.set(field.name(), LogValue::Text(format!("{value:?}")));
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.set(field.name(), LogValue::Text(value.to_owned()));
    }
    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.set(field.name(), LogValue::Text(value.to_string()));
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.set(field.name(), LogValue::Bare(value.to_string()));
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set(field.name(), LogValue::Bare(value.to_string()));
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.set(field.name(), LogValue::Bare(value.to_string()));
    }
    fn record_f64(&mut self, field: &Field, value: f64) {
        let text = value.to_string();
        // JSON has no NaN and no infinity.
        self.set(field.name(), if value.is_finite() { LogValue::Bare(text) } else { LogValue::Text(text) });
    }
}

impl<S, W> Layer<S> for LogLines<W>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: Fn(&str) + 'static,
{
    fn on_new_span(&self, attributes: &span::Attributes<'_>, id: &span::Id, context: Context<'_, S>) {
        if let Some(span) = context.span(id) {
            let mut fields = LogFields::default();
            attributes.record(&mut fields);
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &span::Id, values: &span::Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<LogFields>()
        {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = LogFields::default();
        event.record(&mut fields);
        let message = fields.remove("message");
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(outer) = span.extensions().get::<LogFields>() {
                for (key, value) in &outer.0 {
                    if !fields.0.iter().any(|(known, _)| known == key) {
                        let (LogValue::Text(text) | LogValue::Bare(text)) = value;
                        let text = text.clone();
                        let bare = matches!(value, LogValue::Bare(_));
                        fields.0.push((key, if bare { LogValue::Bare(text) } else { LogValue::Text(text) }));
                    }
                }
            }
        }
        let target = event.metadata().target();
        let crate_name = target.split_once("::").map_or(target, |(name, _)| name);
        let component = fields.remove("component").unwrap_or_else(|| LogValue::Text(crate_name.to_owned()));
        let mut line = LogLine::new(self.format);
        line.pair("ts", &LogValue::Text(now()));
        line.pair("level", &LogValue::Text(level_name(*event.metadata().level()).to_owned()));
        line.pair("component", &component);
        if let Some(message) = message {
            line.pair("msg", &message);
        }
        for (key, value) in &fields.0 {
            line.pair(key, value);
        }
        (self.write)(&line.finish());
    }
}

fn now() -> String {
    let format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:9]Z");
    // Formatting cannot fail: every date has all parts of the description.
    OffsetDateTime::now_utc().format(format).unwrap_or_default()
}

fn level_name(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}

/// A line that is being written.
struct LogLine {
    format: LogFormat,
    text: String,
}

impl LogLine {
    fn new(format: LogFormat) -> Self {
        let mut text = String::with_capacity(256);
        if format == LogFormat::Json {
            text.push('{');
        }
        Self { format, text }
    }

    fn pair(&mut self, key: &str, value: &LogValue) {
        match self.format {
            LogFormat::Logfmt => {
                if !self.text.is_empty() {
                    self.text.push(' ');
                }
                self.text.push_str(key);
                self.text.push('=');
                match value {
                    LogValue::Bare(text) => self.text.push_str(text),
                    LogValue::Text(text) => self.logfmt_text(text),
                }
            }
            LogFormat::Json => {
                if self.text.len() > 1 {
                    self.text.push(',');
                }
                self.json_text(key);
                self.text.push(':');
                match value {
                    LogValue::Bare(text) => self.text.push_str(text),
                    LogValue::Text(text) => self.json_text(text),
                }
            }
        }
    }

    /// Quotes a text that is not a single word.
    fn logfmt_text(&mut self, text: &str) {
        let plain = |c: char| !c.is_whitespace() && !c.is_control() && !matches!(c, '"' | '=' | '\\');
        if !text.is_empty() && text.chars().all(plain) {
            self.text.push_str(text);
            return;
        }
        self.text.push('"');
        for c in text.chars() {
            match c {
                '"' => self.text.push_str("\\\""),
                '\\' => self.text.push_str("\\\\"),
                '\n' => self.text.push_str("\\n"),
                '\r' => self.text.push_str("\\r"),
                '\t' => self.text.push_str("\\t"),
                c if c.is_control() => {
                    // Writing to a `String` does not fail.
                    let _ = write!(self.text, "\\u{:04x}", u32::from(c));
                }
                c => self.text.push(c),
            }
        }
        self.text.push('"');
    }

    fn json_text(&mut self, text: &str) {
        // A string always serialises.
        self.text.push_str(&serde_json::to_string(text).unwrap_or_default());
    }

    fn finish(mut self) -> String {
        if self.format == LogFormat::Json {
            self.text.push('}');
        }
        self.text.push('\n');
        self.text
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// The lines that `log` writes.
    fn capture(format: LogFormat, log: impl FnOnce()) -> Vec<String> {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let write = {
            let lines = Arc::clone(&lines);
            move |line: &str| lines.lock().unwrap().push(line.to_owned())
        };
        let subscriber = tracing_subscriber::registry().with(LogLines { format, write });
        tracing::subscriber::with_default(subscriber, log);
        lines.lock().unwrap().clone()
    }

    fn log_inside_a_span() {
        let span = tracing::info_span!("query", query_id = 7, component = "querier", store = "outer");
        let _inside = span.enter();
        tracing::warn!(store = "eu-1", took = 1.5, ok = false, error = "a \"b\"\nc", "store is slow");
    }

    #[test]
    fn logfmt_lines_begin_with_time_level_component_and_message() {
        let lines = capture(LogFormat::Logfmt, || {
            log_inside_a_span();
            tracing::info!(empty = "", "plain");
        });
        let after_time = |line: &str| line.split_once(' ').map(|(ts, rest)| (ts.len(), rest.to_owned()));
        let expected = "level=warn component=querier msg=\"store is slow\" store=eu-1 took=1.5 ok=false \
                        error=\"a \\\"b\\\"\\nc\" query_id=7\n";
        assert_eq!(
            after_time(&lines[0]),
            Some(("ts=2026-08-01T10:00:00.123456789Z".len(), expected.to_owned()))
        );
        let expected = "level=info component=runtime msg=plain empty=\"\"\n";
        assert_eq!(after_time(&lines[1]).map(|(_, rest)| rest), Some(expected.to_owned()));
    }

    #[test]
    fn json_lines_are_json_objects_with_the_same_keys() {
        let lines = capture(LogFormat::Json, log_inside_a_span);
        let value: serde_json::Value = serde_json::from_str(&lines[0]).unwrap();
        assert_eq!(value["msg"], "store is slow");
        assert_eq!(value["error"], "a \"b\"\nc");
        assert_eq!(value["took"], 1.5);
        assert_eq!(value["component"], "querier");
    }
}
