//! The functions of the language: names, argument types, result types, and the option that enables each.

use std::fmt;

/// The type of an expression's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ValueType {
    /// One number at each instant.
    Scalar,
    /// A string.
    String,
    /// One sample of each series at each instant.
    Vector,
    /// A range of samples of each series.
    Matrix,
}

impl ValueType {
    /// The type's name in the API and in short messages: `scalar`, `string`, `vector`, `matrix`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::String => "string",
            Self::Vector => "vector",
            Self::Matrix => "matrix",
        }
    }

    /// The type's name in the documentation and in most messages: `instant vector`, `range vector`.
    pub const fn documented(self) -> &'static str {
        match self {
            Self::Vector => "instant vector",
            Self::Matrix => "range vector",
            other => other.as_str(),
        }
    }
}

impl fmt::Display for ValueType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How the number of arguments may differ from the number of argument types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variadic {
    /// Not at all.
    Exact,
    /// The last argument may be omitted or repeated; this is the most that may be given of its type.
    UpTo(usize),
    /// The last argument may be omitted, or repeated without limit.
    AnyMore,
}

/// Which option enables a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FunctionGate {
    /// Always enabled.
    Stable,
    /// Needs [`ParseOptions::experimental_functions`](super::ParseOptions::experimental_functions).
    Experimental,
    /// Needs [`ParseOptions::extended_functions`](super::ParseOptions::extended_functions).
    Extended,
}

/// A function's signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Function {
    /// Which function it is.
    pub id: FunctionId,
    /// Its name.
    pub name: &'static str,
    /// The types of its arguments.
    pub args: &'static [ValueType],
    /// How many arguments may be omitted or added.
    pub variadic: Variadic,
    /// The type of its result.
    pub returns: ValueType,
    /// The option that enables it.
    pub gate: FunctionGate,
}

impl Function {
    /// Finds a function by name, whether or not it is enabled.
    pub fn find(name: &str) -> Option<&'static Self> {
        FUNCTIONS.binary_search_by(|f| f.name.cmp(name)).ok().map(|at| &FUNCTIONS[at])
    }

    /// All functions, sorted by name.
    pub const fn all() -> &'static [Self] {
        FUNCTIONS
    }
}

impl FunctionId {
    /// The function's signature.
    pub const fn signature(self) -> &'static Function {
        &FUNCTIONS[self as usize]
    }
}

/// Builds the enum and the table from one list, which must be sorted by name.
macro_rules! functions {
    ($($id:ident $name:literal ($($arg:ident),*) $variadic:ident $(($more:literal))? -> $returns:ident, $gate:ident;)*) => {
        /// Identifies a function, for use in `match`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum FunctionId {
            $(#[doc = concat!("`", $name, "`")] $id,)*
        }

        const FUNCTIONS: &[Function] = &[$(Function {
            id: FunctionId::$id,
            name: $name,
            args: &[$(ValueType::$arg),*],
            variadic: Variadic::$variadic $(($more))?,
            returns: ValueType::$returns,
            gate: FunctionGate::$gate,
        },)*];
    };
}

functions! {
    Abs "abs" (Vector) Exact -> Vector, Stable;
    Absent "absent" (Vector) Exact -> Vector, Stable;
    AbsentOverTime "absent_over_time" (Matrix) Exact -> Vector, Stable;
    Acos "acos" (Vector) Exact -> Vector, Stable;
    Acosh "acosh" (Vector) Exact -> Vector, Stable;
    Asin "asin" (Vector) Exact -> Vector, Stable;
    Asinh "asinh" (Vector) Exact -> Vector, Stable;
    Atan "atan" (Vector) Exact -> Vector, Stable;
    Atanh "atanh" (Vector) Exact -> Vector, Stable;
    AvgOverTime "avg_over_time" (Matrix) Exact -> Vector, Stable;
    Ceil "ceil" (Vector) Exact -> Vector, Stable;
    Changes "changes" (Matrix) Exact -> Vector, Stable;
    Clamp "clamp" (Vector, Scalar, Scalar) Exact -> Vector, Stable;
    ClampMax "clamp_max" (Vector, Scalar) Exact -> Vector, Stable;
    ClampMin "clamp_min" (Vector, Scalar) Exact -> Vector, Stable;
    Cos "cos" (Vector) Exact -> Vector, Stable;
    Cosh "cosh" (Vector) Exact -> Vector, Stable;
    CountOverTime "count_over_time" (Matrix) Exact -> Vector, Stable;
    DayOfMonth "day_of_month" (Vector) UpTo(1) -> Vector, Stable;
    DayOfWeek "day_of_week" (Vector) UpTo(1) -> Vector, Stable;
    DayOfYear "day_of_year" (Vector) UpTo(1) -> Vector, Stable;
    DaysInMonth "days_in_month" (Vector) UpTo(1) -> Vector, Stable;
    Deg "deg" (Vector) Exact -> Vector, Stable;
    Delta "delta" (Matrix) Exact -> Vector, Stable;
    Deriv "deriv" (Matrix) Exact -> Vector, Stable;
    DoubleExponentialSmoothing "double_exponential_smoothing" (Matrix, Scalar, Scalar) Exact -> Vector, Experimental;
    End "end" () Exact -> Scalar, Experimental;
    Exp "exp" (Vector) Exact -> Vector, Stable;
    FirstOverTime "first_over_time" (Matrix) Exact -> Vector, Stable;
    Floor "floor" (Vector) Exact -> Vector, Stable;
    HistogramAvg "histogram_avg" (Vector) Exact -> Vector, Stable;
    HistogramCount "histogram_count" (Vector) Exact -> Vector, Stable;
    HistogramFraction "histogram_fraction" (Scalar, Scalar, Vector) Exact -> Vector, Stable;
    HistogramQuantile "histogram_quantile" (Scalar, Vector) Exact -> Vector, Stable;
    HistogramQuantiles "histogram_quantiles" (Vector, String, Scalar, Scalar) UpTo(9) -> Vector, Experimental;
    HistogramStddev "histogram_stddev" (Vector) Exact -> Vector, Stable;
    HistogramStdvar "histogram_stdvar" (Vector) Exact -> Vector, Stable;
    HistogramSum "histogram_sum" (Vector) Exact -> Vector, Stable;
    Hour "hour" (Vector) UpTo(1) -> Vector, Stable;
    Idelta "idelta" (Matrix) Exact -> Vector, Stable;
    Increase "increase" (Matrix) Exact -> Vector, Stable;
    Info "info" (Vector, Vector) UpTo(1) -> Vector, Experimental;
    Irate "irate" (Matrix) Exact -> Vector, Stable;
    LabelJoin "label_join" (Vector, String, String, String) AnyMore -> Vector, Stable;
    LabelReplace "label_replace" (Vector, String, String, String, String) Exact -> Vector, Stable;
    LastOverTime "last_over_time" (Matrix) Exact -> Vector, Stable;
    Ln "ln" (Vector) Exact -> Vector, Stable;
    Log10 "log10" (Vector) Exact -> Vector, Stable;
    Log2 "log2" (Vector) Exact -> Vector, Stable;
    MadOverTime "mad_over_time" (Matrix) Exact -> Vector, Experimental;
    MaxOf "max_of" (Scalar, Scalar) Exact -> Scalar, Experimental;
    MaxOverTime "max_over_time" (Matrix) Exact -> Vector, Stable;
    MinOf "min_of" (Scalar, Scalar) Exact -> Scalar, Experimental;
    MinOverTime "min_over_time" (Matrix) Exact -> Vector, Stable;
    Minute "minute" (Vector) UpTo(1) -> Vector, Stable;
    Month "month" (Vector) UpTo(1) -> Vector, Stable;
    Pi "pi" () Exact -> Scalar, Stable;
    PredictLinear "predict_linear" (Matrix, Scalar) Exact -> Vector, Stable;
    PresentOverTime "present_over_time" (Matrix) Exact -> Vector, Stable;
    QuantileOverTime "quantile_over_time" (Scalar, Matrix) Exact -> Vector, Stable;
    Rad "rad" (Vector) Exact -> Vector, Stable;
    Range "range" () Exact -> Scalar, Experimental;
    Rate "rate" (Matrix) Exact -> Vector, Stable;
    Resets "resets" (Matrix) Exact -> Vector, Stable;
    Round "round" (Vector, Scalar) UpTo(1) -> Vector, Stable;
    Scalar "scalar" (Vector) Exact -> Scalar, Stable;
    Sgn "sgn" (Vector) Exact -> Vector, Stable;
    Sin "sin" (Vector) Exact -> Vector, Stable;
    Sinh "sinh" (Vector) Exact -> Vector, Stable;
    Sort "sort" (Vector) Exact -> Vector, Stable;
    SortByLabel "sort_by_label" (Vector, String) AnyMore -> Vector, Experimental;
    SortByLabelDesc "sort_by_label_desc" (Vector, String) AnyMore -> Vector, Experimental;
    SortDesc "sort_desc" (Vector) Exact -> Vector, Stable;
    Sqrt "sqrt" (Vector) Exact -> Vector, Stable;
    Start "start" () Exact -> Scalar, Experimental;
    StartTimestamp "start_timestamp" (Vector) Exact -> Vector, Experimental;
    StddevOverTime "stddev_over_time" (Matrix) Exact -> Vector, Stable;
    StdvarOverTime "stdvar_over_time" (Matrix) Exact -> Vector, Stable;
    Step "step" () Exact -> Scalar, Experimental;
    SumOverTime "sum_over_time" (Matrix) Exact -> Vector, Stable;
    Tan "tan" (Vector) Exact -> Vector, Stable;
    Tanh "tanh" (Vector) Exact -> Vector, Stable;
    Time "time" () Exact -> Scalar, Stable;
    Timestamp "timestamp" (Vector) Exact -> Vector, Stable;
    TsOfFirstOverTime "ts_of_first_over_time" (Matrix) Exact -> Vector, Experimental;
    TsOfLastOverTime "ts_of_last_over_time" (Matrix) Exact -> Vector, Experimental;
    TsOfMaxOverTime "ts_of_max_over_time" (Matrix) Exact -> Vector, Experimental;
    TsOfMinOverTime "ts_of_min_over_time" (Matrix) Exact -> Vector, Experimental;
    Vector "vector" (Scalar) Exact -> Vector, Stable;
    Xdelta "xdelta" (Matrix) Exact -> Vector, Extended;
    Xincrease "xincrease" (Matrix) Exact -> Vector, Extended;
    Xrate "xrate" (Matrix) Exact -> Vector, Extended;
    Year "year" (Vector) UpTo(1) -> Vector, Stable;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_indexed_by_function_id() {
        assert!(FUNCTIONS.is_sorted_by(|a, b| a.name < b.name));
        for function in FUNCTIONS {
            assert_eq!(Function::find(function.name), Some(function));
            assert_eq!(function.id.signature(), function);
        }
        assert_eq!(Function::find("rat"), None);
    }
}
