//! Random expressions that combine all parts of the language, meaningful or not, for a peer that supports all
//! of it. [`crate::expression`] generates meaningful expressions more often.

use promql::syntax::functions::{Function, FunctionGate, FunctionId, ValueType, Variadic};

use crate::random::Random;

/// Generates expressions.
pub(crate) struct Grammar<'r> {
    random: &'r mut Random,
    /// Range of the instants for `@`, in milliseconds.
    pins: (i64, i64),
}

const NAMES: [&str; 20] = [
    "requests_total",
    "requests_total",
    "latency_bucket",
    "temperature",
    "temperature",
    "fine",
    "up",
    "extreme",
    "started_total",
    "heat.total",
    "load",
    "load",
    "size",
    "mixed",
    "spread",
    "spread",
    "sizes",
    "sizes",
    "latency",
    "target_info",
];
const LABELS: [&str; 9] =
    ["job", "job", "instance", "instance", "code", "le", "__name__", "\"zone.name\"", "nothing"];
const FOLDS: [&str; 14] = [
    "sum", "sum", "avg", "avg", "min", "max", "count", "group", "stddev", "stdvar", "sum", "avg", "count",
    "max",
];
const ARITHMETIC: [&str; 9] = ["+", "-", "*", "/", "%", "^", "atan2", "</", ">/"];
const COMPARISONS: [&str; 6] = ["==", "!=", "<", "<=", ">", ">="];
const SETS: [&str; 3] = ["and", "or", "unless"];
const NUMBERS: [&str; 26] = [
    "0", "1", "2", "-3", "0.5", "10", "100", "1e3", "7", "NaN", "Inf", "-Inf", "-0.25", "-0", "1e-320",
    "1.7e308", "0x1F", "0.9", "0.99", "3", "1m", "-1h", "1_000", ".5", "0b", "2.5",
];
const LENGTHS: [&str; 9] = ["30s", "1m", "2m", "5m", "5m", "10m", "33s", "61s", "1m30s"];
const LENGTH_EXPRESSIONS: [&str; 10] = [
    "30s + 90s",
    "2 * 45s",
    "max_of(step(), 1m)",
    "min_of(range() + 1m, 5m)",
    "7m % 4m",
    "10m / (1 + 1)",
    "-30s + 2 ^ 7",
    "(step() + 15s)",
    "300",
    "range()",
];
const OFFSETS: [&str; 10] = [
    "1m",
    "5m",
    "37s",
    "-2m",
    "17m",
    "(2m - 90s)",
    "-(step())",
    "max_of(range(), 30s)",
    "-30",
    "(1m * 2 - 15s)",
];

impl<'r> Grammar<'r> {
    pub(crate) fn new(random: &'r mut Random, pins: (i64, i64)) -> Self {
        Grammar { random, pins }
    }

    /// A complete query.
    pub(crate) fn query(&mut self) -> String {
        let depth = self.random.between(1, 4);
        match self.random.below(100) {
            0..4 => self.scalar(depth),
            4 => self.string(),
            5..10 => self.call(depth, |function| {
                matches!(
                    function.id,
                    FunctionId::Sort
                        | FunctionId::SortDesc
                        | FunctionId::SortByLabel
                        | FunctionId::SortByLabelDesc
                )
            }),
            10 => self.range(depth, true),
            _ => self.vector(depth),
        }
    }

    fn number(&mut self) -> String {
        self.random.pick(&NUMBERS[..24]).to_owned()
    }

    fn string(&mut self) -> String {
        self.random.pick(&[r#""x""#, r#""""#, r#"'it\'s'"#, "`raw\\`", r#""\u00e9\x41""#]).to_owned()
    }

    fn vector(&mut self, depth: i64) -> String {
        if depth <= 0 {
            return self.selector();
        }
        match self.random.below(100) {
            0..8 => self.selector(),
            8..46 => self.call(depth, |function| function.returns == ValueType::Vector),
            46..66 => self.aggregation(depth),
            66..93 => self.binary(depth),
            93..96 => format!("{}{}", self.random.pick(&["-", "+", "- -"]), self.vector(depth - 1)),
            96 => format!("({})", self.vector(depth - 1)),
            97 => format!("histogram_quantile({}, {})", self.quantile(), self.buckets()),
            98 => format!("histogram_fraction({}, {}, {})", self.number(), self.number(), self.buckets()),
            _ => self.info(depth),
        }
    }

    /// Classic buckets, sometimes with native histograms of the same name.
    fn buckets(&mut self) -> String {
        let name = self.random.pick(&["latency_bucket", "{__name__=~\"latency(_bucket)?\"}"]);
        let range = self.random.pick(&LENGTHS);
        let by = self.random.pick(&["by (le)", "by (le, job)", "by (job)", "without (instance)"]);
        match self.random.below(4) {
            0 => name.to_owned(),
            1 => format!("rate({name}[{range}])"),
            2 => format!("sum {by} (rate({name}[{range}]))"),
            _ => format!("sum {by} ({name})"),
        }
    }

    fn info(&mut self, depth: i64) -> String {
        let vector = self.vector(depth - 1);
        let selectors = [
            "",
            "",
            ", {version=~\".+\"}",
            ", {__name__=\"build_info\"}",
            ", {__name__=~\".+_info\"}",
            ", {region=\"eu\"}",
            ", {region=~\"eu|\", version!=\"\"}",
            ", {version=\"\"}",
            ", {__name__=~\"(target|build)_info\", version=~\".+\"}",
            ", {__name__!=\"target_info\"}",
        ];
        format!("info({vector}{})", self.random.pick(&selectors))
    }

    fn matchers(&mut self) -> String {
        self.random
            .pick(&[
                "",
                "",
                "",
                r#"job="api""#,
                r#"job!="api""#,
                r#"job=~"a.*""#,
                r#"job!~"a.+|x""#,
                r#"instance=~"0|2""#,
                r#"instance!~"[01]""#,
                r#"code="500""#,
                r#"code="""#,
                r#"le=~"0.5|1|.Inf""#,
                r#""zone.name"="é""#,
                r#""zone.name"!~".+""#,
                r#"job="nowhere""#,
                r#"instance!="",job=~".+""#,
                r#"job=~"(?i)A[^x]i|""#,
                r#"code=~"5..|""#,
                r#"code!~"(2|5)00""#,
                r#"instance=~"[^1]?""#,
                r#""zone.name"=~"(s.*|\\pL)""#,
            ])
            .to_owned()
    }

    /// `offset` and `@`, in any order.
    fn modifiers(&mut self) -> String {
        let mut parts = Vec::new();
        if self.random.percent(10) {
            let pin = self.random.between(self.pins.0, self.pins.1);
            let pins =
                [format!(" @ {}", pin as f64 / 1000.0), " @ start()".to_owned(), " @ end()".to_owned()];
            parts.push(pins[self.random.below(3) as usize].clone());
        }
        if self.random.percent(15) {
            parts.push(format!(" offset {}", self.random.pick(&OFFSETS)));
        }
        if self.random.percent(50) {
            parts.reverse();
        }
        parts.concat()
    }

    /// A selector without modifiers.
    fn series(&mut self) -> String {
        let (name, matchers) = (self.random.pick(&NAMES), self.matchers());
        let separator = if matchers.is_empty() { "" } else { ", " };
        if name.contains('.') || self.random.percent(6) {
            return format!("{{\"{name}\"{separator}{matchers}}}");
        }
        match self.random.below(40) {
            0 => format!("{{__name__=\"{name}\"{separator}{matchers}}}"),
            1 => {
                let other = self.random.pick(&NAMES);
                format!("{{__name__=~\"{name}|{other}\"{separator}{matchers}}}")
            }
            2 if !matchers.is_empty() => format!("{{__name__=~\".+\", {matchers}}}"),
            _ if matchers.is_empty() => name.to_owned(),
            _ => format!("{name}{{{matchers}}}"),
        }
    }

    fn selector(&mut self) -> String {
        format!("{}{}", self.series(), self.modifiers())
    }

    fn length(&mut self) -> &'static str {
        if self.random.percent(8) {
            self.random.pick(&LENGTH_EXPRESSIONS)
        } else {
            self.random.pick(&LENGTHS)
        }
    }

    /// A range vector. It is neither anchored nor smoothed if `plain` is set.
    fn range(&mut self, depth: i64, plain: bool) -> String {
        if depth > 0 && self.random.percent(25) {
            let inner = if self.random.percent(90) { self.vector(depth - 1) } else { self.scalar(depth - 1) };
            let step = self.random.pick(&["", "1m", "30s", "45s", "2m", "step()", "15s * 2"]);
            return format!("({inner})[{}:{step}]{}", self.length(), self.modifiers());
        }
        let boundary = match self.random.below(10) {
            0..5 if !plain => self.random.pick(&[" anchored", " smoothed"]),
            0 if self.random.percent(5) => self.random.pick(&[" anchored", " smoothed"]),
            _ => "",
        };
        format!("{}[{}]{boundary}{}", self.series(), self.length(), self.modifiers())
    }

    fn quantile(&mut self) -> String {
        self.random.pick(&["0.5", "0.9", "0.99", "0", "1", "-1", "2", "NaN", "0.25", "time() % 2"]).to_owned()
    }

    fn scalar(&mut self, depth: i64) -> String {
        match self.random.below(if depth > 0 { 12 } else { 6 }) {
            0..4 => self.number(),
            4 => "time()".to_owned(),
            5 => self.random.pick(&["pi()", "start()", "end()", "step()", "range()"]).to_owned(),
            6 | 7 => format!("scalar({})", self.vector(depth - 1)),
            8 => {
                let operator = self.random.pick(&ARITHMETIC[..7]);
                format!("({} {operator} {})", self.scalar(depth - 1), self.scalar(depth - 1))
            }
            9 => {
                let operator = self.random.pick(&COMPARISONS);
                format!("({} {operator} bool {})", self.scalar(depth - 1), self.scalar(depth - 1))
            }
            10 => {
                let function = self.random.pick(&["max_of", "min_of"]);
                format!("{function}({}, {})", self.scalar(depth - 1), self.scalar(depth - 1))
            }
            _ => format!("-{}", self.scalar(depth - 1)),
        }
    }

    /// A call of a random function for which `fits` returns true.
    fn call(&mut self, depth: i64, fits: fn(&Function) -> bool) -> String {
        let functions: Vec<&Function> =
            Function::all().iter().filter(|f| f.gate != FunctionGate::Extended && fits(f)).collect();
        let function = self.random.pick(&functions);
        let extended = matches!(
            function.id,
            FunctionId::Rate
                | FunctionId::Increase
                | FunctionId::Delta
                | FunctionId::Resets
                | FunctionId::Changes
        );
        match function.id {
            FunctionId::Info => return self.info(depth),
            FunctionId::LabelReplace => return self.relabel(depth),
            FunctionId::QuantileOverTime => {
                return format!("quantile_over_time({}, {})", self.quantile(), self.range(depth - 1, true));
            }
            FunctionId::HistogramQuantile => {
                return format!("histogram_quantile({}, {})", self.quantile(), self.vector(depth - 1));
            }
            FunctionId::HistogramQuantiles => {
                let (first, second) = (self.quantile(), self.quantile());
                let label = self.random.pick(&["\"q\"", "\"job\"", "\"quantile\""]);
                return format!(
                    "histogram_quantiles({}, {label}, {first}, {second})",
                    self.vector(depth - 1)
                );
            }
            FunctionId::DoubleExponentialSmoothing if self.random.percent(90) => {
                let (a, b) = (self.random.pick(&["0.5", "0.1"]), self.random.pick(&["0.3", "0.9"]));
                return format!("double_exponential_smoothing({}, {a}, {b})", self.range(depth - 1, true));
            }
            _ => {}
        }
        let types = function.args.iter().copied();
        let more = match (function.variadic, function.args.last()) {
            (Variadic::Exact, _) | (_, None) => 0,
            (Variadic::UpTo(_), _) => -i64::from(self.random.percent(50)),
            (Variadic::AnyMore, _) => self.random.between(-1, 1),
        };
        let last = function.args.last().copied();
        let count = (function.args.len() as i64 + more).max(0) as usize;
        let types: Vec<ValueType> = types.chain(last).take(count).collect();
        let args: Vec<String> = types
            .into_iter()
            .enumerate()
            .map(|(at, kind)| match kind {
                ValueType::Vector => self.vector(depth - 1),
                ValueType::Matrix => self.range(depth - 1, !extended),
                ValueType::Scalar => self.scalar(depth - 1),
                ValueType::String if function.id == FunctionId::LabelJoin && at == 2 => {
                    self.random.pick(&["\"/\"", "\"\""]).to_owned()
                }
                ValueType::String => format!("\"{}\"", self.random.pick(&LABELS).trim_matches('"')),
            })
            .collect();
        format!("{}({})", function.name, args.join(", "))
    }

    fn relabel(&mut self, depth: i64) -> String {
        let vector = self.vector(depth - 1);
        let rest = self.random.pick(&[
            r#""where", "$1-$2", "job", "(.)(.*)""#,
            r#""job", "x$1", "instance", "([01])""#,
            r#""instance", "", "instance", "1""#,
            r#""__name__", "renamed", "job", ".*""#,
            r#""__name__", "", "job", "api""#,
            r#""zone.name", "${name}é", "code", "(?P<name>.)..""#,
            r#""le", "$1", "le", "(.*)\\..*""#,
            r#""job", "", "", "()""#,
            r#""instance", "$0$3$$", "job", "(?i)A(.)i""#,
        ]);
        format!("label_replace({vector}, {rest})")
    }

    fn grouping(&mut self) -> String {
        if self.random.percent(25) {
            return String::new();
        }
        let labels = self.labels(3);
        format!("{} ({labels})", self.random.pick(&["by", "by", "without"]))
    }

    fn labels(&mut self, most: i64) -> String {
        let count = self.random.between(0, most);
        let labels: Vec<&str> = (0..count).map(|_| self.random.pick(&LABELS)).collect();
        labels.join(", ")
    }

    fn aggregation(&mut self, depth: i64) -> String {
        let (by, inner) = (self.grouping(), self.vector(depth - 1));
        let (operator, args) = match self.random.below(20) {
            0 | 1 => (
                self.random.pick(&["topk", "bottomk"]),
                format!(
                    "({}, {inner})",
                    self.random.pick(&["1", "2", "3", "2.7", "0", "-1", "NaN", "time() / 600"])
                ),
            ),
            2 => ("quantile", format!("({}, {inner})", self.quantile())),
            3 => (
                "count_values",
                format!(
                    "({}, {inner})",
                    self.random.pick(&["\"value\"", "\"job\"", "\"zone.name\"", "\"__name__\""])
                ),
            ),
            4 => (
                "limitk",
                format!("({}, {inner})", self.random.pick(&["1", "2", "3", "5", "0", "-1", "2.7"])),
            ),
            5 => (
                "limit_ratio",
                format!(
                    "({}, {inner})",
                    self.random.pick(&[
                        "0.5",
                        "-0.5",
                        "0.1",
                        "-0.9",
                        "1",
                        "-1",
                        "0",
                        "2",
                        "NaN",
                        "-3",
                        "time() % 1"
                    ])
                ),
            ),
            _ => (self.random.pick(&FOLDS), format!("({inner})")),
        };
        if self.random.percent(70) {
            format!("{operator} {by} {args}")
        } else {
            format!("{operator}{args} {by}")
        }
    }

    /// An operand. Often one whose labels match those of other operands.
    fn operand(&mut self, depth: i64) -> String {
        match self.random.below(10) {
            0..3 => {
                let by = self.random.pick(&["by (job)", "by (job, instance)", "without (code, le)"]);
                format!("{} {by} ({})", self.random.pick(&FOLDS), self.vector(depth - 1))
            }
            3 => format!("({})", self.scalar(depth - 1)),
            4 => self.number(),
            _ => format!("({})", self.vector(depth - 1)),
        }
    }

    fn binary(&mut self, depth: i64) -> String {
        let left = self.operand(depth);
        let right = if self.random.percent(25) { left.clone() } else { self.operand(depth) };
        let set = self.random.percent(18);
        let operator = if set {
            self.random.pick(&SETS).to_owned()
        } else if self.random.percent(65) {
            self.random.pick(&ARITHMETIC).to_owned()
        } else {
            let bool = if self.random.percent(40) { " bool" } else { "" };
            format!("{}{bool}", self.random.pick(&COMPARISONS))
        };
        if self.random.percent(30) {
            return format!("{left} {operator} {right}");
        }
        let mut matching = match self.random.below(8) {
            0 | 1 => format!("on ({})", self.labels(3)),
            2 => format!("ignoring ({})", self.labels(3)),
            3 | 4 => "on (job)".to_owned(),
            5 => "on (job, instance)".to_owned(),
            _ => "ignoring (code, le)".to_owned(),
        };
        if !set {
            if self.random.percent(40) {
                let side = self.random.pick(&["group_left", "group_right"]);
                let labels =
                    if self.random.percent(50) { String::new() } else { format!(" ({})", self.labels(2)) };
                matching = format!("{matching} {side}{labels}");
            }
            if self.random.percent(25) {
                let number = self.random.pick(&["0", "1", "-2", "NaN", "1e3"]);
                let other = self.random.pick(&["0", "7", "Inf"]);
                let fills = [
                    format!(" fill ({number})"),
                    format!(" fill_left ({number})"),
                    format!(" fill_right ({number})"),
                    format!(" fill_left ({number}) fill_right ({other})"),
                    format!(" fill_right ({number}) fill_left ({other})"),
                ];
                matching.push_str(&fills[self.random.below(5) as usize]);
            }
        }
        format!("{left} {operator} {matching} {right}")
    }
}
