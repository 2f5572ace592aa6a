//! The output of benchmarks: a table, or one JSON object per line.

use serde_json::{Map, Value, json};

/// One quantity that was measured in several interleaved runs.
pub(crate) struct BenchRow {
    pub(crate) name: String,
    pub(crate) unit: &'static str,
    /// One value per run. The median is reported.
    pub(crate) values: Vec<f64>,
    /// The reference: its name and its median.
    pub(crate) versus: Option<(String, f64)>,
    pub(crate) peak_rss_bytes: Option<u64>,
}

impl BenchRow {
    pub(crate) fn new(name: impl Into<String>, unit: &'static str, values: Vec<f64>) -> Self {
        Self { name: name.into(), unit, values, versus: None, peak_rss_bytes: None }
    }

    pub(crate) fn versus(mut self, name: impl Into<String>, median: f64) -> Self {
        self.versus = Some((name.into(), median));
        self
    }

    pub(crate) fn peak(mut self, bytes: u64) -> Self {
        self.peak_rss_bytes = Some(bytes);
        self
    }

    pub(crate) fn median(&self) -> f64 {
        median(&self.values)
    }
}

/// The middle value, or the mean of the two middle values.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0,
    }
}

/// Prints rows as they are added.
pub(crate) struct BenchReport {
    json: bool,
    header: bool,
}

impl BenchReport {
    pub(crate) fn new(json: bool) -> Self {
        Self { json, header: false }
    }

    pub(crate) fn add(&mut self, row: &BenchRow) {
        let value = row.median();
        let min = row.values.iter().copied().fold(f64::INFINITY, f64::min);
        let max = row.values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        if self.json {
            let mut object = Map::new();
            object.insert("name".to_owned(), json!(row.name));
            object.insert("value".to_owned(), json!(value));
            object.insert("unit".to_owned(), json!(row.unit));
            if let Some((name, median)) = &row.versus {
                object.insert("versus".to_owned(), json!(name));
                object.insert("ratio".to_owned(), json!(value / median));
            }
            if let Some(bytes) = row.peak_rss_bytes {
                object.insert("peak_rss_bytes".to_owned(), json!(bytes));
            }
            object.insert("runs".to_owned(), json!(row.values.len()));
            object.insert("min".to_owned(), json!(min));
            object.insert("max".to_owned(), json!(max));
            println!("{}", Value::Object(object));
            return;
        }
        if !self.header {
            println!(
                "{:<44} {:>11} {:<9} {:>10} {:>10}  {:<26} {:>9}",
                "NAME", "MEDIAN", "UNIT", "MIN", "MAX", "RATIO", "PEAK MiB"
            );
            self.header = true;
        }
        let ratio = row.versus.as_ref().map(|(name, median)| format!("{:.2} x {name}", value / median));
        let peak = row.peak_rss_bytes.map(|bytes| format!("{:.1}", bytes as f64 / (1 << 20) as f64));
        println!(
            "{:<44} {:>11.3} {:<9} {:>10.3} {:>10.3}  {:<26} {:>9}",
            row.name,
            value,
            row.unit,
            min,
            max,
            ratio.unwrap_or_default(),
            peak.unwrap_or_default()
        );
    }
}
