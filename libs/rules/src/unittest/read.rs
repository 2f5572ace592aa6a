//! Reads files of unit tests, and notes their mistakes.

use std::collections::BTreeMap;
use std::time::Duration;

use model::{Labels, Timestamp};
use promql::promqltest::{SequenceValue, parse_series};
use runtime::yaml::{Mistake, Mistakes, YamlFields, YamlNode, YamlValue};

use crate::answer::ALERT_NAME;
use crate::unittest::definition::{AlertTest, InputSeries, QueryTest, TestDefinition, UnitTestFile};

/// The interval of files that do not name one.
const DEFAULT_INTERVAL: Duration = Duration::from_secs(60);

impl UnitTestFile {
    /// Reads the text of a file.
    ///
    /// # Errors
    /// Every mistake, in the order of the file; never an empty list.
    pub fn parse(text: &str) -> Result<Self, Vec<Mistake>> {
        let node = YamlNode::parse(text).map_err(|mistake| vec![mistake])?;
        let mistakes = Mistakes::default();
        let mut fields = YamlFields::new("", &node, &mistakes);
        let rule_files = texts(&mut fields, "rule_files", &mistakes);
        let interval =
            fields.optional("evaluation_interval", duration).filter(|interval| !interval.is_zero());
        let interval = interval.unwrap_or(DEFAULT_INTERVAL);
        let group_eval_order = texts(&mut fields, "group_eval_order", &mistakes);
        for (at, name) in group_eval_order.iter().enumerate() {
            if group_eval_order[..at].contains(name) {
                fields
                    .wrong("group_eval_order", format!("group {name:?} occurs twice; name each group once"));
            }
        }
        let fuzzy_compare = fields.optional("fuzzy_compare", YamlNode::boolean).unwrap_or(false);
        let mut number = 0;
        let tests = fields.list("tests", |path, item| {
            number += 1;
            test(path, item, number - 1, interval, &mistakes)
        });
        fields.finish();
        let mistakes = mistakes.into_sorted();
        if mistakes.is_empty() {
            Ok(Self { rule_files, evaluation_interval: interval, group_eval_order, fuzzy_compare, tests })
        } else {
            Err(mistakes)
        }
    }
}

fn texts(fields: &mut YamlFields<'_>, name: &'static str, mistakes: &Mistakes) -> Vec<String> {
    fields.list(name, |path, item| item.scalar().map_err(|why| mistakes.add(item.line, path, why)).ok())
}

fn duration(node: &YamlNode) -> Result<Duration, String> {
    let text = node.scalar()?;
    promapi::parse_prometheus_duration(&text)
        .map_err(|_| format!("{text:?} is not a duration; write it as 30s, 5m or 1h30m"))
}

/// A time in RFC 3339 form, or in seconds since the epoch.
fn instant(node: &YamlNode) -> Result<Timestamp, String> {
    let text = node.scalar()?;
    promapi::parse_time("start_timestamp", &text).map_err(|_| {
        format!("{text:?} is not a time; write it as 2024-01-01T00:00:00Z or in seconds since the epoch")
    })
}

/// A mapping of names to text.
fn labels(node: &YamlNode) -> Result<Labels, String> {
    let YamlValue::Map(entries) = &node.value else {
        return Err(format!("expected a mapping of names to text, found {}", node.kind()));
    };
    let mut pairs = BTreeMap::new();
    for (key, value) in entries {
        pairs.insert(key.name().to_owned(), value.scalar()?);
    }
    Labels::from_pairs(pairs).map_err(|error| error.to_string())
}

fn test(
    path: String,
    node: &YamlNode,
    number: usize,
    default_interval: Duration,
    mistakes: &Mistakes,
) -> Option<TestDefinition> {
    let mut fields = YamlFields::new(path, node, mistakes);
    let name = fields.optional("name", YamlNode::scalar).filter(|name| !name.is_empty());
    let interval = fields.optional("interval", duration).filter(|interval| !interval.is_zero());
    let start = fields.optional("start_timestamp", instant).unwrap_or(Timestamp::EPOCH);
    let external_labels = fields.optional("external_labels", labels).unwrap_or_else(Labels::empty);
    let external_url = fields.optional("external_url", YamlNode::scalar).unwrap_or_default();
    let series = fields.list("input_series", |path, item| input_series(path, item, mistakes));
    let alerts = fields.list("alert_rule_test", |path, item| alert_test(path, item, mistakes));
    let queries = fields.list("promql_expr_test", |path, item| query_test(path, item, mistakes));
    fields.finish();
    Some(TestDefinition {
        name: name.unwrap_or_else(|| format!("unnamed#{number}")),
        line: node.line,
        interval: interval.unwrap_or(default_interval),
        start,
        external_labels,
        external_url,
        series,
        alerts,
        queries,
    })
}

fn input_series(path: String, node: &YamlNode, mistakes: &Mistakes) -> Option<InputSeries> {
    let mut fields = YamlFields::new(path, node, mistakes);
    let series = fields.required("series", YamlNode::scalar);
    let values = fields.optional("values", YamlNode::scalar).unwrap_or_default();
    fields.finish();
    let series = series?;
    match parse_series(&series) {
        Ok((labels, extra)) if extra.is_empty() => match parse_series(&format!("{series} {values}")) {
            Ok((_, values)) => Some(InputSeries { labels, values }),
            Err(why) => {
                fields_wrong(mistakes, node, "values", &why);
                None
            }
        },
        Ok(_) => {
            fields_wrong(mistakes, node, "series", "has values; write them into the field values");
            None
        }
        Err(why) => {
            fields_wrong(mistakes, node, "series", &why);
            None
        }
    }
}

/// Notes a mistake in the field `name` of a mapping.
fn fields_wrong(mistakes: &Mistakes, node: &YamlNode, name: &str, why: &str) {
    let YamlValue::Map(entries) = &node.value else { return };
    let line = entries.iter().find(|(key, _)| key.name() == name).and_then(|(_, value)| value.line);
    mistakes.add(line.or(node.line), name, why);
}

fn alert_test(path: String, node: &YamlNode, mistakes: &Mistakes) -> Option<AlertTest> {
    let mut fields = YamlFields::new(path, node, mistakes);
    let after = fields.optional("eval_time", duration).unwrap_or_default();
    let name = fields.required("alertname", |node| match node.scalar()? {
        name if name.is_empty() => Err("must not be empty; name the alert that is tested".to_owned()),
        name => Ok(name),
    });
    let expected = fields.list("exp_alerts", |path, item| {
        let mut fields = YamlFields::new(path, item, mistakes);
        let found = fields.optional("exp_labels", labels).unwrap_or_else(Labels::empty);
        let annotations = fields.optional("exp_annotations", labels).unwrap_or_else(Labels::empty);
        fields.finish();
        let mut with_name = found.to_builder();
        with_name.set(ALERT_NAME, name.as_deref().unwrap_or_default());
        Some((with_name.build(), annotations))
    });
    fields.finish();
    Some(AlertTest { line: node.line, after, name: name?, expected })
}

fn query_test(path: String, node: &YamlNode, mistakes: &Mistakes) -> Option<QueryTest> {
    let mut fields = YamlFields::new(path, node, mistakes);
    let query = fields.required("expr", YamlNode::scalar);
    let after = fields.optional("eval_time", duration).unwrap_or_default();
    let expected = fields.list("exp_samples", |path, item| expected_sample(path, item, mistakes));
    fields.finish();
    Some(QueryTest { line: node.line, after, query: query?, expected })
}

fn expected_sample(path: String, node: &YamlNode, mistakes: &Mistakes) -> Option<(Labels, SequenceValue)> {
    let mut fields = YamlFields::new(path, node, mistakes);
    let labels = fields.optional("labels", |node| match node.scalar()?.trim() {
        "" => Ok(Labels::empty()),
        text => match parse_series(text)? {
            (labels, values) if values.is_empty() => Ok(labels),
            _ => Err("has values; write the value into the field value".to_owned()),
        },
    });
    let value = fields.optional("value", |node| {
        let text = node.scalar()?;
        let value = match text.to_ascii_lowercase().as_str() {
            ".inf" | "+.inf" => Some(f64::INFINITY),
            "-.inf" => Some(f64::NEG_INFINITY),
            ".nan" => Some(f64::NAN),
            other => promql::parse_float(other),
        };
        value.ok_or_else(|| format!("{text:?} is not a number"))
    });
    let histogram = fields.optional("histogram", |node| match node.scalar()? {
        text if text.is_empty() => Ok(None),
        text => match &parse_series(&format!("{{}} {text}"))?.1[..] {
            [value @ SequenceValue::Histogram { .. }] => Ok(Some(value.clone())),
            _ => Err(format!("{text:?} is not one histogram, such as {{{{count:1 buckets:[1]}}}}")),
        },
    });
    fields.finish();
    let value = histogram.flatten().unwrap_or(SequenceValue::Float(value.unwrap_or(0.0)));
    Some((labels.unwrap_or_else(Labels::empty), value))
}
