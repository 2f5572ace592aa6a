//! The functions that every Go template has.

use std::cmp::Ordering;
use std::rc::Rc;

use crate::template::format::{print, print_line, printf, shown};
use crate::template::value::Value;

type Called = Result<Value, String>;

/// Calls the function `name`, or returns `None` if it is not one of these.
pub(super) fn call(name: &str, args: &[Value]) -> Option<Called> {
    Some(match (name, args) {
        ("print", args) => Ok(print(args).into()),
        ("println", args) => Ok(print_line(args).into()),
        ("printf", [Value::Text(format), args @ ..]) => Ok(printf(format, args).into()),
        ("html", args) => Ok(html(&joined(args)).into()),
        ("js", args) => Ok(js(&joined(args)).into()),
        ("urlquery", args) => Ok(query_escape(&joined(args)).into()),
        ("len", [value]) => length(value),
        ("index", [value, indexes @ ..]) => index(value, indexes),
        ("slice", [value, indexes @ ..]) => slice(value, indexes),
        // No value of these templates is a function.
        ("call", _) => Err("call of nil".to_owned()),
        ("not", [value]) => Ok(Value::Bool(!value.is_true())),
        ("eq", [_]) => Err("missing argument for comparison".to_owned()),
        ("eq", [first, others @ ..]) => equal(first, others).map(Value::Bool),
        ("ne", [a, b]) => equal(a, std::slice::from_ref(b)).map(|equal| Value::Bool(!equal)),
        ("lt", [a, b]) => order(a, b).map(|order| Value::Bool(order == Some(Ordering::Less))),
        ("le", [a, b]) => order(a, b).map(|order| Value::Bool(order.is_some_and(Ordering::is_le))),
        // As in Go, these two are the inverse of the others, so they hold for NaN.
        ("gt", [a, b]) => order(a, b).map(|order| Value::Bool(!order.is_some_and(Ordering::is_le))),
        ("ge", [a, b]) => order(a, b).map(|order| Value::Bool(order != Some(Ordering::Less))),
        _ => return None,
    })
}

/// A value as an action prints it.
pub(super) fn printable(value: &Value) -> String {
    match value {
        Value::Nil => "<no value>".to_owned(),
        value => shown(value),
    }
}

fn joined(args: &[Value]) -> String {
    match args {
        [Value::Text(text)] => text.to_string(),
        args => {
            let printable = |value: &Value| match value {
                Value::Nil => "<no value>".into(),
                value => value.clone(),
            };
            print(&args.iter().map(printable).collect::<Vec<_>>())
        }
    }
}

fn html(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\0' => out.push('\u{fffd}'),
            '"' => out += "&#34;",
            '\'' => out += "&#39;",
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            c => out.push(c),
        }
    }
    out
}

fn js(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' => out += "\\\\",
            '\'' => out += "\\'",
            '"' => out += "\\\"",
            '<' | '>' | '&' | '=' => out += &format!("\\u{:04X}", u32::from(c)),
            c if c < ' ' || (c >= '\u{80}' && (c.is_control() || (c.is_whitespace() && c != ' '))) => {
                out += &format!("\\u{:04X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out
}

/// `text` as a part of a query string.
pub(super) fn query_escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            b' ' => out.push('+'),
            byte => out += &format!("%{byte:02X}"),
        }
    }
    out
}

fn length(value: &Value) -> Called {
    let length = match value {
        Value::Text(text) | Value::Html(text) => text.len(),
        Value::Labels(labels) => labels.len(),
        Value::Args(args) => args.len(),
        Value::Samples(samples) => samples.len(),
        Value::Nil => return Err("reflect: call of reflect.Value.Type on zero Value".to_owned()),
        other => return Err(format!("len of type {}", other.type_name())),
    };
    Ok(Value::Int(length as i64))
}

/// A position in something of length `length`. The end is a position too.
fn position(index: &Value, length: usize) -> Result<usize, String> {
    let at = match index {
        Value::Int(at) => *at,
        Value::Byte(at) => i64::from(*at),
        Value::Nil => return Err("cannot index slice/array with nil".to_owned()),
        other => return Err(format!("cannot index slice/array with type {}", other.type_name())),
    };
    usize::try_from(at).ok().filter(|at| *at <= length).ok_or_else(|| format!("index out of range: {at}"))
}

fn index(value: &Value, indexes: &[Value]) -> Called {
    if matches!(value, Value::Nil) {
        return Err("index of untyped nil".to_owned());
    }
    let mut value = value.clone();
    for index in indexes {
        let key = || match index {
            Value::Text(key) => Ok(key),
            Value::Nil => Err("value is nil; should be of type string".to_owned()),
            other => Err(format!("value has type {}; should be string", other.type_name())),
        };
        let beyond = |length: usize| format!("reflect: slice index out of range: {length}");
        value = match &value {
            Value::Text(text) | Value::Html(text) => {
                let at = position(index, text.len())?;
                let byte = text.as_bytes().get(at).ok_or("reflect: string index out of range")?;
                Value::Byte(*byte)
            }
            Value::Samples(samples) => {
                let at = position(index, samples.len())?;
                Value::Sample(Rc::clone(samples.get(at).ok_or_else(|| beyond(at))?))
            }
            Value::Labels(labels) => labels.value(key()?).into(),
            Value::Args(args) => args.get(&**key()?).cloned().unwrap_or(Value::Nil),
            Value::Nil => return Err("index of nil pointer".to_owned()),
            other => return Err(format!("can't index item of type {}", other.type_name())),
        };
    }
    Ok(value)
}

fn slice(value: &Value, indexes: &[Value]) -> Called {
    let length = match value {
        Value::Nil => return Err("slice of untyped nil".to_owned()),
        _ if indexes.len() > 3 => return Err(format!("too many slice indexes: {}", indexes.len())),
        Value::Text(_) | Value::Html(_) if indexes.len() == 3 => {
            return Err("cannot 3-index slice a string".to_owned());
        }
        Value::Text(text) | Value::Html(text) => text.len(),
        Value::Samples(samples) => samples.len(),
        other => return Err(format!("can't slice item of type {}", other.type_name())),
    };
    let mut bounds = [0, length, length];
    for (bound, index) in bounds.iter_mut().zip(indexes) {
        *bound = position(index, length)?;
    }
    for pair in bounds.windows(2) {
        if pair[0] > pair[1] {
            return Err(format!("invalid slice index: {} > {}", pair[0], pair[1]));
        }
    }
    let range = bounds[0]..bounds[1];
    Ok(match value {
        Value::Samples(samples) => Value::Samples(Rc::new(samples[range].to_vec())),
        Value::Text(text) | Value::Html(text) => {
            String::from_utf8_lossy(&text.as_bytes()[range]).into_owned().into()
        }
        _ => Value::Nil,
    })
}

/// A value that can be compared, by its kind.
#[derive(PartialEq, PartialOrd)]
enum Basic<'v> {
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(&'v str),
}

fn basic(value: &Value) -> Option<Basic<'_>> {
    Some(match value {
        Value::Bool(value) => Basic::Bool(*value),
        Value::Int(value) | Value::Named(value, _) => Basic::Int(*value),
        Value::Byte(value) => Basic::Int(i64::from(*value)),
        Value::Float(value) => Basic::Float(*value),
        Value::Text(text) | Value::Html(text) => Basic::Text(text),
        _ => return None,
    })
}

fn incompatible(a: &Value, b: &Value) -> String {
    format!("incompatible types for comparison: {} and {}", a.type_name(), b.type_name())
}

fn equal(first: &Value, others: &[Value]) -> Result<bool, String> {
    for other in others {
        let is_equal = match (basic(first), basic(other)) {
            (Some(a), Some(b)) if std::mem::discriminant(&a) == std::mem::discriminant(&b) => a == b,
            (None, None) => match (first, other) {
                (Value::Nil, Value::Nil) => true,
                (Value::Nil, _) | (_, Value::Nil) => false,
                (Value::Labels(_) | Value::Args(_) | Value::Samples(_), _) => {
                    return Err(format!("non-comparable type {}: {}", shown(first), first.type_name()));
                }
                (Value::Sample(a), Value::Sample(b)) => Rc::ptr_eq(a, b),
                (Value::Time(a), Value::Time(b)) => a == b,
                (Value::Duration(a), Value::Duration(b)) => a == b,
                _ => false,
            },
            _ if matches!(first, Value::Nil) || matches!(other, Value::Nil) => false,
            _ => return Err(incompatible(first, other)),
        };
        if is_equal {
            return Ok(true);
        }
    }
    Ok(false)
}

/// How two values are ordered; `None` for NaN.
fn order(a: &Value, b: &Value) -> Result<Option<Ordering>, String> {
    let bad = || "invalid type for comparison".to_owned();
    let (first, second) = (basic(a).ok_or_else(bad)?, basic(b).ok_or_else(bad)?);
    if std::mem::discriminant(&first) != std::mem::discriminant(&second) {
        return Err(incompatible(a, b));
    }
    if matches!(first, Basic::Bool(_)) { Err(bad()) } else { Ok(first.partial_cmp(&second)) }
}
