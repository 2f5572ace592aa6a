//! Prints values like Go's package `fmt`.

use promql::{go_g, go_quoted, histogram_text};

use crate::template::value::{TemplateSample, Value};

/// Largest width or precision of `printf`. Go allows a million; Rust's formatter prints no more than this.
const MAX_WIDTH: usize = 65_535;

/// A value like `%v`.
pub(super) fn shown(value: &Value) -> String {
    match value {
        Value::Nil => "<nil>".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::Byte(value) => value.to_string(),
        Value::Float(value) => go_g(*value),
        Value::Text(text) | Value::Html(text) => text.to_string(),
        Value::Labels(labels) => map(labels.iter().map(|label| (label.name, label.value.to_owned()))),
        Value::Args(args) => map(args.iter().map(|(name, value)| (name.as_str(), shown(value)))),
        Value::Sample(sample) => sample_text(sample),
        Value::Samples(samples) => {
            let samples: Vec<String> =
                samples.iter().map(|sample| format!("&{}", sample_text(sample))).collect();
            format!("[{}]", samples.join(" "))
        }
        Value::Histogram(histogram) => histogram_text(histogram),
        Value::Time(time) => time.to_string(),
        Value::Duration(duration) => duration.to_string(),
        Value::Named(_, name) => (*name).to_owned(),
        Value::Alert(alert) => {
            let [labels, external] =
                [&alert.labels, &alert.external_labels].map(|labels| shown(&Value::Labels(labels.clone())));
            format!("{{{labels} {external} {} {}}}", alert.external_url, shown(&alert.value))
        }
    }
}

fn sample_text(sample: &TemplateSample) -> String {
    format!("{{{} {}}}", shown(&Value::Labels(sample.labels.clone())), shown(&sample.value))
}

fn map<'a>(entries: impl Iterator<Item = (&'a str, String)>) -> String {
    let entries: Vec<String> = entries.map(|(name, value)| format!("{name}:{value}")).collect();
    format!("map[{}]", entries.join(" "))
}

/// `Sprint`: a space between two values of which none is a string.
pub(super) fn print(values: &[Value]) -> String {
    let mut out = String::new();
    for (i, value) in values.iter().enumerate() {
        let is_text = |value: &Value| matches!(value, Value::Text(_) | Value::Html(_));
        if i > 0 && !is_text(value) && !is_text(&values[i - 1]) {
            out.push(' ');
        }
        out += &shown(value);
    }
    out
}

/// `Sprintln`.
pub(super) fn print_line(values: &[Value]) -> String {
    let values: Vec<String> = values.iter().map(shown).collect();
    values.join(" ") + "\n"
}

/// A float like `%.{precision}g`.
pub(super) fn general(value: f64, precision: usize) -> String {
    Float { alternate: false, value }.general(Some(precision))
}

/// A float like `%e` with the fewest digits: `1e+00`.
pub(crate) fn scientific(value: f64) -> String {
    if value.is_finite() { Float { alternate: false, value }.scientific(None) } else { go_g(value) }
}

/// A float and the flag `#`.
struct Float {
    alternate: bool,
    value: f64,
}

impl Float {
    /// `%e`, with the fewest digits if there is no precision.
    fn scientific(&self, precision: Option<usize>) -> String {
        let text = match precision {
            Some(precision) => format!("{:.precision$e}", self.value),
            None => format!("{:e}", self.value),
        };
        let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let exponent: i32 = exponent.parse().unwrap_or(0);
        let sign = if exponent < 0 { '-' } else { '+' };
        format!("{mantissa}e{sign}{:02}", exponent.abs())
    }

    fn general(&self, precision: Option<usize>) -> String {
        if !self.value.is_finite() {
            return go_g(self.value);
        }
        let precision = match precision {
            None if self.alternate => 6,
            None => return go_g(self.value),
            Some(precision) => precision.max(1),
        };
        let rounded = format!("{:.*e}", precision - 1, self.value);
        let (mantissa, exponent) = rounded.split_once('e').unwrap_or((&rounded, "0"));
        let exponent: i32 = exponent.parse().unwrap_or(0);
        let cut = |text: &str| match text.contains('.') && !self.alternate {
            true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
            false => text.to_owned(),
        };
        if exponent < -4 || exponent >= precision as i32 {
            let sign = if exponent < 0 { '-' } else { '+' };
            return format!("{}e{sign}{:02}", cut(mantissa), exponent.abs());
        }
        let decimals = usize::try_from(precision as i32 - 1 - exponent).unwrap_or(0);
        cut(&format!("{:.decimals$}", self.value))
    }
}

/// The flags, width and precision of a verb.
#[derive(Clone, Copy, Debug, Default)]
struct Spec {
    minus: bool,
    plus: bool,
    sharp: bool,
    space: bool,
    zero: bool,
    width: Option<usize>,
    precision: Option<usize>,
}

/// `Sprintf`.
pub(super) fn printf(format: &str, args: &[Value]) -> String {
    let mut printer = Printer { args, next: 0, reordered: false, out: String::new() };
    let mut rest = format;
    while let Some(percent) = rest.find('%') {
        printer.out += &rest[..percent];
        rest = printer.verb(&rest[percent + 1..]);
    }
    printer.out += rest;
    if !printer.reordered && printer.next < args.len() {
        let extra: Vec<String> = args[printer.next..]
            .iter()
            .map(|value| match value {
                Value::Nil => "<nil>".to_owned(),
                value => format!("{}={}", value.type_name(), shown(value)),
            })
            .collect();
        printer.out += &format!("%!(EXTRA {})", extra.join(", "));
    }
    printer.out
}

struct Printer<'a> {
    args: &'a [Value],
    next: usize,
    reordered: bool,
    out: String,
}

impl Printer<'_> {
    /// Prints one verb and returns the text after it.
    fn verb<'f>(&mut self, text: &'f str) -> &'f str {
        let mut spec = Spec::default();
        let mut rest = text;
        while let Some(flag) = rest.chars().next() {
            match flag {
                '-' => spec.minus = true,
                '+' => spec.plus = true,
                '#' => spec.sharp = true,
                ' ' => spec.space = true,
                '0' => spec.zero = true,
                _ => break,
            }
            rest = &rest[1..];
        }
        rest = self.index(rest);
        (spec.width, rest) = self.number(rest, "%!(BADWIDTH)", &mut spec.minus);
        if let Some(after) = rest.strip_prefix('.') {
            let after = self.index(after);
            let mut negative = false;
            let (precision, after) = self.number(after, "%!(BADPREC)", &mut negative);
            spec.precision = if negative { None } else { Some(precision.unwrap_or(0)) };
            rest = after;
        }
        rest = self.index(rest);
        let Some(verb) = rest.chars().next() else {
            self.out += "%!(NOVERB)";
            return rest;
        };
        if verb == '%' {
            self.out.push('%');
        } else if let Some(value) = self.args.get(self.next) {
            self.next += 1;
            let text = formatted(value, verb, spec);
            self.out += &text;
        } else {
            self.out += &format!("%!{verb}(MISSING)");
        }
        &rest[verb.len_utf8()..]
    }

    /// Reads `[2]`, which chooses the next argument.
    fn index<'f>(&mut self, rest: &'f str) -> &'f str {
        let Some((inside, after)) = rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) else {
            return rest;
        };
        match inside.parse::<usize>() {
            Ok(index) if index >= 1 => {
                self.next = index - 1;
                self.reordered = true;
                after
            }
            _ => rest,
        }
    }

    /// Reads a number or `*`.
    fn number<'f>(&mut self, rest: &'f str, bad: &str, negative: &mut bool) -> (Option<usize>, &'f str) {
        if let Some(after) = rest.strip_prefix('*') {
            let number = match self.args.get(self.next) {
                Some(Value::Int(number)) if number.unsigned_abs() <= MAX_WIDTH as u64 => {
                    *negative |= *number < 0;
                    Some(number.unsigned_abs() as usize)
                }
                _ => {
                    self.out += bad;
                    None
                }
            };
            self.next += 1;
            return (number, after);
        }
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        (rest[..digits].parse().ok().filter(|number| *number <= MAX_WIDTH), &rest[digits..])
    }
}

/// One value with one verb.
fn formatted(value: &Value, verb: char, spec: Spec) -> String {
    if verb == 'T' {
        return padded(value.type_name(), Spec { zero: false, ..spec });
    }
    // `%+v` and `%#v` ask for details, not for a sign.
    let spec = Spec { plus: spec.plus && verb != 'v', ..spec };
    let bad = || match value {
        Value::Nil => format!("%!{verb}(<nil>)"),
        value => format!("%!{verb}({}={})", value.type_name(), formatted(value, 'v', spec)),
    };
    match value {
        Value::Nil if verb == 'v' => padded("<nil>", spec),
        Value::Bool(value) if matches!(verb, 't' | 'v') => {
            padded(if *value { "true" } else { "false" }, spec)
        }
        Value::Int(value) | Value::Named(value, _) if "dboOxXcqU".contains(verb) => {
            integer(*value, verb, spec)
        }
        Value::Int(value) if verb == 'v' => integer(*value, 'd', spec),
        Value::Byte(value) if "vdboOxXcqU".contains(verb) => {
            integer(i64::from(*value), if verb == 'v' { 'd' } else { verb }, spec)
        }
        Value::Float(value) if "vgGeEfF".contains(verb) => float(*value, verb, spec),
        Value::Text(text) | Value::Html(text) if "vsqxX".contains(verb) => string(text, verb, spec),
        Value::Duration(duration) if verb == 'd' => integer(duration.0, 'd', spec),
        Value::Histogram(_) | Value::Time(_) | Value::Duration(_) | Value::Named(..)
            if "vsqxX".contains(verb) =>
        {
            string(&shown(value), verb, spec)
        }
        Value::Labels(_) | Value::Args(_) | Value::Sample(_) | Value::Samples(_) | Value::Alert(_)
            if matches!(verb, 'v' | 's') =>
        {
            let prefix = if matches!(value, Value::Sample(_)) { "&" } else { "" };
            format!("{prefix}{}", shown(value))
        }
        _ => bad(),
    }
}

fn string(text: &str, verb: char, spec: Spec) -> String {
    let cut: String =
        spec.precision.map_or_else(|| text.to_owned(), |most| text.chars().take(most).collect());
    let hex = |upper: bool| -> String {
        cut.bytes().map(|b| if upper { format!("{b:02X}") } else { format!("{b:02x}") }).collect()
    };
    match verb {
        'q' => padded(&go_quoted(&cut), spec),
        'v' if spec.sharp => padded(&go_quoted(&cut), spec),
        'x' => padded(&hex(false), spec),
        'X' => padded(&hex(true), spec),
        _ => padded(&cut, spec),
    }
}

fn integer(value: i64, verb: char, spec: Spec) -> String {
    let character = || u32::try_from(value).ok().and_then(char::from_u32).unwrap_or('\u{fffd}');
    match verb {
        'c' => return padded(&character().to_string(), spec),
        'q' => return padded(&format!("'{}'", character()), spec),
        'U' => return padded(&format!("U+{value:04X}"), spec),
        _ => {}
    }
    let magnitude = value.unsigned_abs();
    let (prefix, mut digits) = match verb {
        'b' => (if spec.sharp { "0b" } else { "" }, format!("{magnitude:b}")),
        'o' => (if spec.sharp { "0" } else { "" }, format!("{magnitude:o}")),
        'O' => ("0o", format!("{magnitude:o}")),
        'x' => (if spec.sharp { "0x" } else { "" }, format!("{magnitude:x}")),
        'X' => (if spec.sharp { "0X" } else { "" }, format!("{magnitude:X}")),
        _ => ("", magnitude.to_string()),
    };
    if let Some(precision) = spec.precision {
        if precision == 0 && value == 0 {
            return padded("", Spec { zero: false, ..spec });
        }
        digits = format!("{digits:0>precision$}");
    }
    signed(value < 0, prefix, &digits, Spec { zero: spec.zero && spec.precision.is_none(), ..spec })
}

fn float(value: f64, verb: char, spec: Spec) -> String {
    let float = Float { alternate: spec.sharp, value: value.abs() };
    let is_negative = value.is_sign_negative() && !value.is_nan();
    if !value.is_finite() {
        let text = if value.is_nan() { "NaN" } else { "Inf" };
        let spec = Spec { zero: false, plus: spec.plus || (!value.is_nan() && !is_negative), ..spec };
        return signed(is_negative, "", text, spec);
    }
    let digits = match verb.to_ascii_lowercase() {
        'e' => float.scientific(Some(spec.precision.unwrap_or(6))),
        'f' => format!("{:.*}", spec.precision.unwrap_or(6), float.value),
        _ => float.general(spec.precision),
    };
    let digits = if verb.is_ascii_uppercase() { digits.to_ascii_uppercase() } else { digits };
    signed(is_negative, "", &digits, spec)
}

/// A number with its sign, filled with zeros if the flag asks for it.
fn signed(negative: bool, prefix: &str, digits: &str, spec: Spec) -> String {
    let sign = match (negative, spec.plus, spec.space) {
        (true, ..) => "-",
        (false, true, _) => "+",
        (false, false, true) => " ",
        _ => "",
    };
    if spec.zero && !spec.minus {
        let width = spec.width.unwrap_or(0).saturating_sub(sign.len() + prefix.len());
        return format!("{sign}{prefix}{digits:0>width$}");
    }
    padded(&format!("{sign}{prefix}{digits}"), spec)
}

fn padded(text: &str, spec: Spec) -> String {
    let width = spec.width.unwrap_or(0);
    match (spec.minus, spec.zero) {
        (true, _) => format!("{text:<width$}"),
        (false, true) => format!("{text:0>width$}"),
        (false, false) => format!("{text:>width$}"),
    }
}
