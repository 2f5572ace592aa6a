//! Random expressions over the series of [`crate::data`].

use crate::random::Random;

/// Which parts of the language are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// Everything that the slow evaluator supports.
    Full,
    /// Only floats, and only expressions that Prometheus 2.42 computes like Prometheus 3.
    Old,
}

/// Generates expressions.
pub(crate) struct ExpressionWriter<'r> {
    random: &'r mut Random,
    dialect: Dialect,
    /// Range of the instants for `@`, in milliseconds.
    pins: (i64, i64),
}

const COUNTERS: [&str; 2] = ["requests_total", "latency_bucket"];
const GAUGES: [&str; 3] = ["temperature", "fine", "up"];
const NATIVE: [&str; 3] = ["load", "size", "mixed"];

const OVER_TIME: [&str; 23] = [
    "rate",
    "increase",
    "delta",
    "irate",
    "idelta",
    "changes",
    "resets",
    "deriv",
    "sum_over_time",
    "avg_over_time",
    "min_over_time",
    "max_over_time",
    "count_over_time",
    "last_over_time",
    "present_over_time",
    "stddev_over_time",
    "stdvar_over_time",
    "first_over_time",
    "mad_over_time",
    "ts_of_first_over_time",
    "ts_of_last_over_time",
    "ts_of_max_over_time",
    "ts_of_min_over_time",
];
const NATIVE_OVER_TIME: [&str; 12] = [
    "rate",
    "rate",
    "increase",
    "delta",
    "irate",
    "idelta",
    "resets",
    "sum_over_time",
    "avg_over_time",
    "last_over_time",
    "first_over_time",
    "count_over_time",
];
const SIMPLE: [&str; 24] = [
    "abs", "ceil", "floor", "sgn", "sqrt", "ln", "log2", "log10", "exp", "sin", "cos", "tan", "asin", "acos",
    "atan", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh", "rad", "deg", "round",
];
const DATES: [&str; 8] =
    ["minute", "hour", "day_of_week", "day_of_month", "day_of_year", "days_in_month", "month", "year"];
const FOLDS: [&str; 8] = ["sum", "avg", "min", "max", "count", "group", "stddev", "stdvar"];
const COMPARISONS: [&str; 6] = ["==", "!=", "<", "<=", ">", ">="];
const ARITHMETIC: [&str; 7] = ["+", "-", "*", "/", "%", "^", "atan2"];

impl<'r> ExpressionWriter<'r> {
    pub(crate) fn new(random: &'r mut Random, dialect: Dialect, pins: (i64, i64)) -> Self {
        ExpressionWriter { random, dialect, pins }
    }

    /// A complete query.
    pub(crate) fn query(&mut self) -> String {
        match self.random.below(100) {
            0..3 => self.scalar(2),
            3..5 if self.is_full() && self.random.percent(40) => {
                let function = self.random.pick(&["sort_by_label", "sort_by_label_desc"]);
                let labels = self.random.pick(&["\"job\"", "\"instance\", \"code\"", "\"nothing\""]);
                format!("{function}({}, {labels})", self.floats(1))
            }
            3..5 => format!("{}({})", self.random.pick(&["sort", "sort_desc"]), self.floats(1)),
            5..25 if self.is_full() => self.natives(),
            _ => {
                let depth = self.random.between(0, 3);
                self.floats(depth)
            }
        }
    }

    /// A range vector, which is allowed only in instant queries.
    pub(crate) fn range_query(&mut self) -> String {
        let name = self.metric();
        self.range(name, 1)
    }

    fn is_full(&self) -> bool {
        self.dialect == Dialect::Full
    }

    fn metric(&mut self) -> &'static str {
        if self.random.percent(45) { self.random.pick(&COUNTERS) } else { self.random.pick(&GAUGES) }
    }

    fn matchers(&mut self, name: &str) -> String {
        if self.random.percent(45) {
            return String::new();
        }
        if self.random.percent(4) {
            return r#"{job="nowhere"}"#.to_owned();
        }
        let jobs = [r#"{job="api"}"#, r#"{job!="api"}"#, r#"{job=~"a.*"}"#, r#"{job!~"a.+|x"}"#];
        let instances = [
            r#"{instance=~"0|2"}"#,
            r#"{instance!~"[01]"}"#,
            r#"{job="db",instance="1"}"#,
            r#"{instance!="",job=~".+"}"#,
        ];
        let own = match name {
            "requests_total" => r#"{code="500"}"#,
            "latency_bucket" => r#"{le=~"0.5|1|.Inf"}"#,
            _ => r#"{code=""}"#,
        };
        let with_instances = name != "latency_bucket" && name != "mixed";
        match self.random.below(5) {
            0 => own.to_owned(),
            1 | 2 if with_instances => self.random.pick(&instances).to_owned(),
            _ => self.random.pick(&jobs).to_owned(),
        }
    }

    /// `offset` and `@`.
    fn modifiers(&mut self) -> String {
        let mut text = String::new();
        if self.random.percent(12) {
            let mut pin = self.random.between(self.pins.0, self.pins.1);
            if !self.is_full() {
                // Neither at the time of a sample nor at an evaluation of a subquery.
                pin = pin / 1000 * 1000 + 500;
            }
            let pins =
                [format!(" @ {}", pin as f64 / 1000.0), " @ start()".to_owned(), " @ end()".to_owned()];
            text.push_str(&pins[self.random.below(3) as usize]);
        }
        if self.random.percent(15) {
            let offsets: &[&str] = if self.is_full() {
                &["1m", "5m", "37s", "-2m", "17m", "(2m - 90s)", "-(step())", "max_of(range(), 30s)"]
            } else {
                &["1m", "5m", "37s", "-2m"]
            };
            text.push_str(" offset ");
            text.push_str(self.random.pick(offsets));
        }
        text
    }

    fn selector(&mut self, name: &str) -> String {
        if self.is_full() && self.random.percent(3) {
            // Several metrics, whose series may differ only in the name.
            let other = self.metric();
            return format!("{{__name__=~\"{name}|{other}\"}}{}", self.modifiers());
        }
        format!("{name}{}{}", self.matchers(name), self.modifiers())
    }

    fn range(&mut self, name: &str, depth: i64) -> String {
        if depth > 0 && self.random.percent(20) {
            let inner = if self.random.percent(50) {
                let inner = self.range(name, 0);
                let first = if name == "temperature" { "min_over_time" } else { "rate" };
                let function = self.random.pick(&[first, "max_over_time", "avg_over_time", "sum_over_time"]);
                format!("{function}({inner})")
            } else {
                // A nested subquery would be evaluated at the boundaries of the outer one, where 2.42 has
                // closed windows.
                let depth = self.random.between(0, i64::from(self.is_full()));
                self.float_of(name, depth)
            };
            let range = self.random.pick(&["2m", "5m", "10m"]);
            let steps: &[&str] =
                if self.is_full() { &["", "1m", "30s", "45s", "2m"] } else { &["", "1m", "2m"] };
            let step = self.random.pick(steps);
            return format!("{}[{range}:{step}]{}", parenthesised(&inner), self.modifiers());
        }
        let mut length = self.random.pick(&["30s", "1m", "2m", "5m", "5m", "10m", "33s"]);
        if self.is_full() && self.random.percent(8) {
            length = self.random.pick(&[
                "30s + 90s",
                "2 * 45s",
                "max_of(step(), 1m)",
                "min_of(range() + 1m, 5m)",
                "7m % 4m",
                "10m / (1 + 1)",
                "-30s + 2 ^ 7",
            ]);
        }
        format!("{name}{}[{length}]{}", self.matchers(name), self.modifiers())
    }

    fn scalar(&mut self, depth: i64) -> String {
        match self.random.below(if depth > 0 { 10 } else { 6 }) {
            0..4 => self.number(),
            4 => "time()".to_owned(),
            5 => "pi()".to_owned(),
            6 | 7 => format!("scalar({})", self.floats(depth - 1)),
            8 => {
                let operator = self.arithmetic();
                format!("({} {operator} {})", self.scalar(depth - 1), self.scalar(depth - 1))
            }
            _ => {
                let operator = self.random.pick(&COMPARISONS);
                format!("({} {operator} bool {})", self.scalar(depth - 1), self.scalar(depth - 1))
            }
        }
    }

    fn number(&mut self) -> String {
        self.random
            .pick(&["0", "1", "2", "-3", "0.5", "10", "100", "1e3", "7", "NaN", "Inf", "-0.25"])
            .to_owned()
    }

    fn by(&mut self) -> &'static str {
        self.random.pick(&[
            "",
            "",
            "by (job) ",
            "by (job) ",
            "by (instance) ",
            "by (job, instance) ",
            "by (nothing) ",
            "by (__name__) ",
            "by (__name__, job) ",
            "without (code) ",
            "without (instance) ",
            "without (job, le) ",
        ])
    }

    /// An instant vector of floats.
    fn floats(&mut self, depth: i64) -> String {
        let name = self.metric();
        self.float_of(name, depth)
    }

    /// An instant vector of floats whose first operand selects series of the given name.
    fn float_of(&mut self, name: &str, depth: i64) -> String {
        if depth <= 0 {
            return if self.random.percent(50) { self.selector(name) } else { self.over_time(name, 0) };
        }
        match self.random.below(100) {
            0..18 => self.over_time(name, depth),
            18..36 => self.aggregation(name, depth - 1),
            36..48 => self.one_to_one(name, depth - 1),
            48..54 => self.many_to_one(name, depth - 1),
            54..62 => self.set(name, depth - 1),
            62..70 => self.with_scalar(name, depth - 1),
            70..78 => {
                let function = self.random.pick(&SIMPLE);
                format!("{function}({})", self.float_of(name, depth - 1))
            }
            78..82 => self.relabel(name, depth - 1),
            82..87 => self.classic(),
            // Prometheus ignores the offset of such a selector if it also has an `@`.
            87..89 => {
                let (matchers, offset) =
                    (self.matchers(name), self.random.pick(&["", " offset 1m", " @ end()"]));
                format!("timestamp({name}{matchers}{offset})")
            }
            89 => format!("timestamp({})", self.float_of(name, depth - 1)),
            90 => format!("absent({})", self.float_of(name, depth - 1)),
            91 => format!("absent_over_time({})", self.range(name, depth)),
            92 => format!("vector({})", self.scalar(depth - 1)),
            93 => {
                let function = self.random.pick(&DATES);
                format!("{function}(abs({}) * 1e7 < 1e11)", parenthesised(&self.selector(name)))
            }
            94 => format!("{}()", self.random.pick(&DATES)),
            95 | 96 => format!("-{}", parenthesised(&self.float_of(name, depth - 1))),
            _ => {
                let vector = self.float_of(name, depth - 1);
                let (low, high) = (self.scalar(0), self.scalar(1));
                match self.random.below(4) {
                    0 => format!("clamp({vector}, {low}, {high})"),
                    1 => format!("clamp_min({vector}, {low})"),
                    2 => format!("clamp_max({vector}, {high})"),
                    _ => format!(
                        "round({vector}, {})",
                        self.random.pick(&["0.5", "10", "0.1", "-2", "time() % 7"])
                    ),
                }
            }
        }
    }

    fn over_time(&mut self, name: &str, depth: i64) -> String {
        if self.is_full() && self.random.percent(6) {
            let function = self.random.pick(&["rate", "increase", "delta"]);
            let length = self.random.pick(&["30s", "1m", "5m"]);
            let boundary = self.random.pick(&["anchored", "smoothed"]);
            return format!("{function}({name}{}[{length}] {boundary})", self.matchers(name));
        }
        let range = self.range(name, depth);
        // 2.42 moves a pinned window with the steps if another argument of the call changes.
        let may_move = self.is_full() || !range.contains('@');
        match self.random.below(10) {
            0 if may_move => {
                let q = self.random.pick(&["0.5", "0.9", "0", "1", "-1", "2", "NaN", "time() % 2"]);
                format!("quantile_over_time({q}, {range})")
            }
            1 if may_move => {
                let ahead = self.random.pick(&["60", "-30", "3600", "time() % 100"]);
                format!("predict_linear({range}, {ahead})")
            }
            2 if self.is_full() => format!("double_exponential_smoothing({range}, 0.5, 0.25)"),
            _ => {
                let counter = name.ends_with("_total") || name.ends_with("_bucket");
                let gaps = name == "temperature" || range.contains(':');
                let functions = match self.dialect {
                    // At the edge of a gap 2.42 extrapolates counters differently, and it lacks the last
                    // functions of the list.
                    Dialect::Old if gaps => &OVER_TIME[2..17],
                    _ if counter && self.random.percent(40) => &OVER_TIME[..2],
                    Dialect::Old => &OVER_TIME[..17],
                    Dialect::Full => &OVER_TIME[..],
                };
                format!("{}({range})", self.random.pick(functions))
            }
        }
    }

    fn aggregation(&mut self, name: &str, depth: i64) -> String {
        let by = self.by();
        let limited = self.is_full() && self.random.percent(8);
        if limited {
            if self.random.percent(40) {
                let ratio =
                    self.random.pick(&["0.5", "-0.5", "0.1", "-0.9", "1", "0", "2", "NaN", "time() % 1"]);
                let inner = self.float_of(name, depth.min(1));
                return format!("limit_ratio {by}({ratio}, {inner})");
            }
            let count = self.random.pick(&["1", "2", "5", "0"]);
            return format!("limitk {by}({count}, {})", self.selector(name));
        }
        let inner = self.float_of(name, depth);
        match self.random.below(10) {
            0 | 1 => {
                let op = self.random.pick(&["topk", "bottomk"]);
                let count = self.random.pick(&["1", "2", "3", "2.7", "0", "-1", "time() / 600"]);
                format!("{op} {by}({count}, {inner})")
            }
            2 => {
                let q = self.random.pick(&["0.5", "0.9", "0", "1", "-0.1", "1.5", "NaN", "time() % 2"]);
                format!("quantile {by}({q}, {inner})")
            }
            3 => {
                let label = self.random.pick(&["value", "job"]);
                format!("count_values {by}(\"{label}\", {inner})")
            }
            _ => format!("{} {by}({inner})", self.fold()),
        }
    }

    /// An aggregation without a parameter.
    fn fold(&mut self) -> &'static str {
        // The last ones differ for a single NaN or infinity, for which 2.42 computes no deviation.
        let folds = if self.is_full() { &FOLDS[..] } else { &FOLDS[..6] };
        self.random.pick(folds)
    }

    fn arithmetic(&mut self) -> &'static str {
        // Go's power function rounds differently, and 2.42 keeps the name after `atan2`.
        let operators = if self.is_full() { &ARITHMETIC[..] } else { &ARITHMETIC[..5] };
        self.random.pick(operators)
    }

    /// An operator that is not a set operator, sometimes with `bool`.
    fn operator(&mut self) -> String {
        if self.random.percent(60) {
            return self.arithmetic().to_owned();
        }
        let bool = if self.random.percent(40) { " bool" } else { "" };
        format!("{}{bool}", self.random.pick(&COMPARISONS))
    }

    fn one_to_one(&mut self, name: &str, depth: i64) -> String {
        let operator = self.operator();
        if self.random.percent(40) {
            // Both sides keep exactly the labels that are matched.
            let other = self.metric();
            let by = self.random.pick(&["by (job)", "by (job, instance)"]);
            let on = self.random.pick(&["", "on (job, instance)", "ignoring (code)"]);
            let (left, right) = (self.float_of(name, depth), self.float_of(other, depth));
            let (first, second) = (self.fold(), self.fold());
            return format!("{first} {by} ({left}) {operator} {on} {second} {by} ({right})");
        }
        let other = if self.random.percent(80) { name } else { self.metric() };
        let fill = self.fill();
        let on = self.random.pick(&["", "", "on (job, instance, code, le)", "ignoring (code)", "on (job)"]);
        let (left, right) = (self.float_of(name, depth), self.float_of(other, depth));
        format!("{} {operator} {on} {fill} {}", parenthesised(&left), parenthesised(&right))
    }

    /// The fill values for series without a partner.
    fn fill(&mut self) -> &'static str {
        if self.is_full() && self.random.percent(15) {
            self.random.pick(&[
                "fill (0)",
                "fill_left (1)",
                "fill_right (-2)",
                "fill_left (3) fill_right (NaN)",
            ])
        } else {
            ""
        }
    }

    fn many_to_one(&mut self, name: &str, depth: i64) -> String {
        let operator = self.operator();
        let many = parenthesised(&self.float_of(name, depth));
        let other = self.metric();
        let one = format!("{} by (job) ({})", self.fold(), self.float_of(other, depth));
        let include = self.random.pick(&["()", "()", "(instance)", "(code)"]);
        let fill = self.fill();
        if self.random.percent(60) {
            format!("{many} {operator} on (job) group_left {include} {fill} {one}")
        } else {
            format!("{one} {operator} on (job) group_right {include} {fill} {many}")
        }
    }

    fn set(&mut self, name: &str, depth: i64) -> String {
        let operator = self.random.pick(&["and", "or", "unless"]);
        let on = self.random.pick(&[
            "",
            "",
            "on (job)",
            "on (job, instance)",
            "ignoring (code, instance)",
            "on ()",
        ]);
        let other = if self.random.percent(50) { name } else { self.metric() };
        let (left, right) = (self.float_of(name, depth), self.float_of(other, depth));
        format!("{} {operator} {on} {}", parenthesised(&left), parenthesised(&right))
    }

    fn with_scalar(&mut self, name: &str, depth: i64) -> String {
        let operator = self.operator();
        let vector = parenthesised(&self.float_of(name, depth));
        let scalar = self.scalar(1);
        if self.random.percent(70) {
            format!("{vector} {operator} {scalar}")
        } else {
            format!("{scalar} {operator} {vector}")
        }
    }

    fn relabel(&mut self, name: &str, depth: i64) -> String {
        let vector = self.float_of(name, depth);
        match self.random.below(6) {
            0 => format!(r#"label_replace({vector}, "where", "$1-$2", "job", "(.)(.*)")"#),
            1 => format!(r#"label_replace({vector}, "job", "x$1", "instance", "([01])")"#),
            2 => format!(r#"label_replace({vector}, "instance", "", "instance", "1")"#),
            3 => format!(r#"label_replace({vector}, "__name__", "renamed", "job", ".*")"#),
            4 => format!(r#"label_join({vector}, "where", "/", "job", "instance")"#),
            _ => format!(r#"label_join({vector}, "code", ",", "code", "nothing")"#),
        }
    }

    /// Quantiles and fractions of classic histograms.
    fn classic(&mut self) -> String {
        let range = format!(
            "latency_bucket{}[{}]",
            self.matchers("latency_bucket"),
            self.random.pick(&["1m", "2m", "5m"])
        );
        let buckets = match self.random.below(4) {
            0 => self.selector("latency_bucket"),
            1 => format!("rate({range})"),
            2 => format!("sum by (le) (rate({range}))"),
            _ => format!("sum by (le, job) (increase({range}))"),
        };
        if self.is_full() && self.random.percent(20) {
            let bounds = self.random.pick(&["0, 0.7", "0.2, 3", "-1, 0.1", "2, 1", "-Inf, +Inf", "NaN, 1"]);
            return format!("histogram_fraction({bounds}, {buckets})");
        }
        if self.is_full() && self.random.percent(10) {
            let quantiles = self.random.pick(&["0.5", "0.5, 0.9, 1", "0, -1, NaN", "0.5, 0.5"]);
            let label = self.random.pick(&["q", "q", "job"]);
            return format!("histogram_quantiles({buckets}, \"{label}\", {quantiles})");
        }
        let q = self.random.pick(&["0.5", "0.9", "0.99", "0", "1", "-1", "2", "NaN", "time() % 1000 / 1000"]);
        format!("histogram_quantile({q}, {buckets})")
    }

    /// Expressions over native histograms.
    fn natives(&mut self) -> String {
        let name = self.random.pick(&NATIVE);
        let histograms = self.histograms(name);
        match self.random.below(15) {
            14 => {
                let quantiles = self.random.pick(&["0.5", "0.1, 1", "2, NaN"]);
                format!("histogram_quantiles({histograms}, \"q\", {quantiles})")
            }
            0..3 => histograms,
            3..6 => {
                let q = self.random.pick(&["0.5", "0.1", "0.9", "0", "1", "-1", "2", "NaN"]);
                format!("histogram_quantile({q}, {histograms})")
            }
            6..11 => {
                if self.random.percent(20) {
                    let bounds =
                        self.random.pick(&["0, 0.7", "0.2, 3", "-1, 0.1", "2, 1", "-Inf, +Inf", "NaN, 1"]);
                    return format!("histogram_fraction({bounds}, {histograms})");
                }
                let functions = [
                    "histogram_count",
                    "histogram_sum",
                    "histogram_avg",
                    "histogram_stddev",
                    "histogram_stdvar",
                ];
                format!("{}({histograms})", self.random.pick(&functions))
            }
            11 => {
                let fold = self.random.pick(&["count", "group", "min", "max"]);
                format!("{fold} {}({histograms})", self.by())
            }
            12 => format!("{} or {}", parenthesised(&histograms), parenthesised(&self.floats(1))),
            _ => format!("abs({})", parenthesised(&histograms)),
        }
    }

    /// An instant vector with histograms.
    fn histograms(&mut self, name: &str) -> String {
        let source = if self.random.percent(40) {
            self.selector(name)
        } else {
            let range = if self.random.percent(15) {
                format!("{}[5m:30s]{}", self.selector(name), self.modifiers())
            } else {
                self.range(name, 0)
            };
            format!("{}({range})", self.random.pick(&NATIVE_OVER_TIME))
        };
        match self.random.below(10) {
            0..4 => source,
            4..8 => {
                let fold = self.random.pick(&["sum", "sum", "avg"]);
                let by = self.random.pick(&["", "by (job) ", "by (instance) ", "without (instance) "]);
                format!("{fold} {by}({source})")
            }
            8 => format!(
                "({source}) {} {}",
                self.random.pick(&["*", "/", "+"]),
                self.random.pick(&["2", "0.5", "-1", "0"])
            ),
            _ => {
                let operator = self.random.pick(&["+", "-", "*", "==", "!=", "== bool", "!= bool", "<"]);
                let other = if self.random.percent(50) { source.clone() } else { self.selector(name) };
                format!("({source}) {operator} ({other})")
            }
        }
    }
}

fn parenthesised(text: &str) -> String {
    format!("({text})")
}
