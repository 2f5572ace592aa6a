//! The functions that Prometheus adds to templates.

use std::net::IpAddr;
use std::rc::Rc;

use model::SearchRegex;

use crate::template::builtins::query_escape;
use crate::template::context::TemplateContext;
use crate::template::humanize;
use crate::template::text::{lower, title, upper};
use crate::template::time::{GoDuration, GoTime};
use crate::template::value::Value;

/// Most bytes of the result of `reReplaceAll`.
const MAX_REPLACED_BYTES: usize = 1 << 20;

/// A pattern as Go's package `regexp` prints it.
fn backquoted(pattern: &str) -> String {
    if pattern.contains('`') { promql::go_quoted(pattern) } else { format!("`{pattern}`") }
}

/// Calls the function `name` with arguments that fit its signature.
pub(super) fn call(context: &TemplateContext<'_>, name: &str, args: &[Value]) -> Result<Value, String> {
    Ok(match (name, args) {
        ("query", [Value::Text(query)]) => Value::samples(&(context.query)(query, context.time)?),
        ("now", _) => Value::Float(context.time.as_secs_f64()),
        ("externalURL", _) => context.external_url.into(),
        ("pathPrefix", _) => url_path(context.external_url).into(),
        ("args", args) => {
            let named = args.iter().enumerate().map(|(at, value)| (format!("arg{at}"), value.clone()));
            Value::Args(Rc::new(named.collect()))
        }
        (_, [value]) if name.starts_with("humanize") || matches!(name, "toTime" | "toDuration") => {
            number_function(name, value)?
        }
        (_, [Value::Text(text)]) => text_function(name, text)?,
        ("match", [Value::Text(pattern), Value::Text(text)]) => {
            let regex = SearchRegex::new(pattern).map_err(|error| error.to_string())?;
            Value::Bool(regex.is_match(text))
        }
        ("reReplaceAll", [Value::Text(pattern), Value::Text(replacement), Value::Text(text)]) => {
            let regex = SearchRegex::new(pattern).map_err(|error| {
                // Prometheus panics here, and reports the panic.
                format!("regexp: Compile({}): {error}", backquoted(pattern))
            })?;
            let replaced = regex.replace_all(text, replacement, MAX_REPLACED_BYTES);
            replaced.ok_or_else(|| format!("the result has more than {MAX_REPLACED_BYTES} bytes"))?.into()
        }
        _ => sample_function(name, args)?,
    })
}

fn sample_function(name: &str, args: &[Value]) -> Result<Value, String> {
    Ok(match (name, args) {
        ("first", [Value::Samples(samples)]) if !samples.is_empty() => Value::Sample(Rc::clone(&samples[0])),
        ("first", _) => return Err("first() called on vector with no elements".to_owned()),
        ("label", [Value::Text(label), Value::Sample(sample)]) => sample.labels.value(label).into(),
        ("value", [Value::Sample(sample)]) => sample.value.clone(),
        ("strvalue", [Value::Sample(sample)]) => sample.labels.value("__value__").into(),
        ("sortByLabel", [Value::Text(label), Value::Samples(samples)]) => {
            let mut sorted = samples.to_vec();
            sorted.sort_by(|a, b| a.labels.value(label).cmp(b.labels.value(label)));
            Value::Samples(Rc::new(sorted))
        }
        ("sortByLabel", _) => Value::Samples(Rc::new(Vec::new())),
        _ => return Err("runtime error: invalid memory address or nil pointer dereference".to_owned()),
    })
}

fn text_function(name: &str, text: &Rc<str>) -> Result<Value, String> {
    Ok(match name {
        "safeHtml" => Value::Html(Rc::clone(text)),
        "title" => title(text).into(),
        "toUpper" => upper(text).into(),
        "toLower" => lower(text).into(),
        "graphLink" => format!("/graph?g0.expr={}&g0.tab=0", query_escape(text)).into(),
        "tableLink" => format!("/graph?g0.expr={}&g0.tab=1", query_escape(text)).into(),
        "urlQueryEscape" => query_escape(text).into(),
        "stripPort" => {
            host_and_port(text).map_or_else(|| Value::Text(Rc::clone(text)), |(host, _)| host.into())
        }
        "stripDomain" => strip_domain(text).into(),
        "parseDuration" => Value::Float(parse_duration(text)?),
        _ => return Err("runtime error: invalid memory address or nil pointer dereference".to_owned()),
    })
}

fn number_function(name: &str, value: &Value) -> Result<Value, String> {
    let number = to_float(value)?;
    Ok(match name {
        "humanize" => humanize::humanize(number).into(),
        "humanize1024" => humanize::humanize_1024(number).into(),
        "humanizeDuration" => humanize::humanize_duration(number).into(),
        "humanizePercentage" => humanize::humanize_percentage(number).into(),
        "humanizeTimestamp" => humanize::humanize_timestamp(number)?.into(),
        "toTime" => Value::Time(GoTime::from_seconds(number)?),
        _ => Value::Duration(GoDuration((number * 1e9) as i64)),
    })
}

fn to_float(value: &Value) -> Result<f64, String> {
    match value {
        Value::Float(value) => Ok(*value),
        Value::Int(value) => Ok(*value as f64),
        Value::Text(text) => promql::parse_float(text).ok_or_else(|| {
            format!("strconv.ParseFloat: parsing {}: invalid syntax", promql::go_quoted(text))
        }),
        other => Err(format!("can't convert {} to float", other.type_name())),
    }
}

/// A length of time in the notation of Prometheus, with an optional sign, in seconds.
fn parse_duration(text: &str) -> Result<f64, String> {
    let (sign, rest) = text.strip_prefix('-').map_or((1.0, text), |rest| (-1.0, rest));
    if rest.is_empty() {
        return Err("empty duration string".to_owned());
    }
    let duration = promapi::parse_prometheus_duration(rest).map_err(|_| {
        let quoted = promql::go_quoted(rest);
        let unknown = rest
            .split(|c: char| c.is_ascii_digit())
            .find(|unit| !unit.is_empty() && !["y", "w", "d", "h", "m", "s", "ms"].contains(unit));
        match unknown {
            Some(unit) if rest.starts_with(|c: char| c.is_ascii_digit()) => {
                format!("unknown unit {} in duration {quoted}", promql::go_quoted(unit))
            }
            _ => format!("not a valid duration string: {quoted}"),
        }
    })?;
    Ok(sign * duration.as_secs_f64())
}

/// Splits `host:port` and `[host]:port` as Go's `net.SplitHostPort`; `None` where that fails.
fn host_and_port(text: &str) -> Option<(&str, &str)> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, after) = rest.split_once(']')?;
        let port = after.strip_prefix(':')?;
        let is_clean = !host.contains('[') && !port.contains([':', '[', ']']);
        return is_clean.then_some((host, port));
    }
    let (host, port) = text.rsplit_once(':')?;
    (!host.contains([':', '[', ']']) && !port.contains(['[', ']'])).then_some((host, port))
}

fn strip_domain(text: &str) -> String {
    let (host, port) = host_and_port(text).unwrap_or((text, ""));
    if host.parse::<IpAddr>().is_ok() {
        return text.to_owned();
    }
    let host = host.split('.').next().unwrap_or_default();
    match port {
        "" => host.to_owned(),
        port if host.contains(':') => format!("[{host}]:{port}"),
        port => format!("{host}:{port}"),
    }
}

/// The path of a URL.
fn url_path(url: &str) -> &str {
    let after = url.split_once("://").map_or(url, |(_, after)| after);
    let path = after.find('/').map_or("", |at| &after[at..]);
    path.split(['?', '#']).next().unwrap_or_default()
}
