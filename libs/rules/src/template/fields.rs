//! Fields and methods of values.

use crate::template::signature::Param;
use crate::template::time::GoDuration;
use crate::template::value::Value;

/// The field or key `name`. `None` if values of this type have no such field.
pub(super) fn get(value: &Value, name: &str) -> Option<Value> {
    Some(match value {
        // A field of nothing is nothing, so that `.Nope.nope` is no error.
        Value::Nil => Value::Nil,
        Value::Labels(labels) => labels.value(name).into(),
        Value::Args(args) => args.get(name).cloned().unwrap_or(Value::Nil),
        Value::Sample(sample) => match name {
            "Labels" => Value::Labels(sample.labels.clone()),
            "Value" => sample.value.clone(),
            _ => return None,
        },
        Value::Alert(alert) => match name {
            "Labels" => Value::Labels(alert.labels.clone()),
            "ExternalLabels" => Value::Labels(alert.external_labels.clone()),
            "ExternalURL" => (&*alert.external_url).into(),
            "Value" => alert.value.clone(),
            _ => return None,
        },
        Value::Histogram(histogram) => match name {
            "Count" => Value::Float(histogram.count),
            "Sum" => Value::Float(histogram.sum),
            "ZeroCount" => Value::Float(histogram.zero_count),
            "ZeroThreshold" => Value::Float(histogram.zero_threshold),
            "Schema" => Value::Int(i64::from(histogram.schema)),
            _ => return None,
        },
        _ => return None,
    })
}

/// The type that messages give for the field `name`, if it is not that of the value.
pub(super) fn declared_type(value: &Value, name: &str) -> Option<&'static str> {
    let any = match value {
        Value::Alert(_) | Value::Sample(_) => name == "Value",
        Value::Args(_) => true,
        _ => false,
    };
    any.then_some("interface {}")
}

/// The parameters of the method `name`, or `None` if values of this type have no such method.
pub(super) fn method(value: &Value, name: &str) -> Option<&'static [Param]> {
    match value {
        Value::Time(time) => match name {
            "Format" => Some(&[Param::Text]),
            "Add" | "Truncate" | "Round" => Some(&[Param::Duration]),
            "Sub" | "Before" | "After" | "Equal" => Some(&[Param::Time]),
            "UTC" | "String" | "IsZero" | "Month" | "Weekday" => Some(&[]),
            name => time.number(name).map(|_| &[][..]),
        },
        Value::Duration(_) => match name {
            "Round" | "Truncate" => Some(&[Param::Duration]),
            "String" | "Hours" | "Minutes" | "Seconds" | "Milliseconds" | "Microseconds" | "Nanoseconds"
            | "Abs" => Some(&[]),
            _ => None,
        },
        Value::Histogram(_) | Value::Named(..) if name == "String" => Some(&[]),
        _ => None,
    }
}

/// Calls a method that [`method`] has found.
pub(super) fn call(value: &Value, name: &str, args: &[Value]) -> Result<Value, String> {
    let arg = args.first();
    Ok(match (value, name, arg) {
        (Value::Time(time), "Format", Some(Value::Text(layout))) => time.format(layout).into(),
        (Value::Time(time), "Add", Some(Value::Duration(length))) => {
            Value::Time(crate::template::time::GoTime(time.0.saturating_add(length.0)))
        }
        (Value::Time(time), "Truncate" | "Round", Some(Value::Duration(length))) => {
            Value::Time(crate::template::time::GoTime(rounded(time.0, length.0, name == "Round")))
        }
        (Value::Time(time), "Sub", Some(Value::Time(other))) => {
            Value::Duration(GoDuration(time.0.saturating_sub(other.0)))
        }
        (Value::Time(time), "Before", Some(Value::Time(other))) => Value::Bool(time < other),
        (Value::Time(time), "After", Some(Value::Time(other))) => Value::Bool(time > other),
        (Value::Time(time), "Equal", Some(Value::Time(other))) => Value::Bool(time == other),
        (Value::Time(time), "UTC", _) => Value::Time(*time),
        (Value::Time(_), "IsZero", _) => Value::Bool(false),
        (Value::Time(time), "Month", _) => named(time.month()),
        (Value::Time(time), "Weekday", _) => named(time.weekday()),
        (Value::Duration(length), "Hours", _) => Value::Float(length.0 as f64 / 3.6e12),
        (Value::Duration(length), "Minutes", _) => Value::Float(length.0 as f64 / 6e10),
        (Value::Duration(length), "Seconds", _) => Value::Float(length.0 as f64 / 1e9),
        (Value::Duration(length), "Milliseconds", _) => Value::Int(length.0 / 1_000_000),
        (Value::Duration(length), "Microseconds", _) => Value::Int(length.0 / 1000),
        (Value::Duration(length), "Nanoseconds", _) => Value::Int(length.0),
        (Value::Duration(length), "Abs", _) => Value::Duration(GoDuration(length.0.saturating_abs())),
        (Value::Duration(length), "Round" | "Truncate", Some(Value::Duration(unit))) => {
            Value::Duration(GoDuration(rounded(length.0, unit.0, name == "Round")))
        }
        (Value::Time(time), name, None) if time.number(name).is_some() => {
            Value::Int(time.number(name).unwrap_or(0))
        }
        (value, "String", _) => crate::template::format::shown(value).into(),
        (value, name, _) => return Err(format!("{name} of {}", value.type_name())),
    })
}

fn named((number, name): (i64, &'static str)) -> Value {
    Value::Named(number, name)
}

/// `value` as a multiple of `unit`: the next one towards zero, or the nearest one.
fn rounded(value: i64, unit: i64, nearest: bool) -> i64 {
    if unit <= 0 {
        return value;
    }
    let rest = value % unit;
    let down = value - rest;
    match nearest && rest.unsigned_abs() >= unit.unsigned_abs().div_ceil(2) {
        true => down.saturating_add(if value < 0 { -unit } else { unit }),
        false => down,
    }
}
