//! The functions of templates and the types of their parameters.

/// The type of a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Param {
    Any,
    Text,
    /// A sample of a query.
    Sample,
    /// The result of a query.
    Samples,
    /// A length of time, for methods of times.
    Duration,
    /// A time, for methods of times.
    Time,
}

impl Param {
    /// The name of the type in Go.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Any => "interface {}",
            Self::Text => "string",
            Self::Sample => "*template.sample",
            Self::Samples => "template.queryResult",
            Self::Duration => "time.Duration",
            Self::Time => "time.Time",
        }
    }
}

/// The parameters of a function.
#[derive(Clone, Copy, Debug)]
pub(super) struct Signature {
    pub(super) params: &'static [Param],
    /// The type of further arguments, if there may be any.
    pub(super) rest: Option<Param>,
}

/// The signature of the function `name`, or `None` if there is no such function.
pub(super) fn of(name: &str) -> Option<Signature> {
    use Param::{Any, Sample, Samples, Text};
    let (params, rest): (&'static [Param], _) = match name {
        "and" | "or" | "index" | "slice" | "eq" | "call" => (&[Any], Some(Any)),
        "html" | "js" | "urlquery" | "print" | "println" | "args" => (&[], Some(Any)),
        "printf" => (&[Text], Some(Any)),
        "len" | "not" => (&[Any], None),
        "ne" | "lt" | "le" | "gt" | "ge" => (&[Any, Any], None),
        "query" | "safeHtml" | "title" | "toUpper" | "toLower" | "graphLink" | "tableLink" | "stripPort"
        | "stripDomain" | "parseDuration" | "urlQueryEscape" => (&[Text], None),
        "first" => (&[Samples], None),
        "label" => (&[Text, Sample], None),
        "value" | "strvalue" => (&[Sample], None),
        "match" => (&[Text, Text], None),
        "reReplaceAll" => (&[Text, Text, Text], None),
        "sortByLabel" => (&[Text, Samples], None),
        "humanize" | "humanize1024" | "humanizeDuration" | "humanizePercentage" | "humanizeTimestamp"
        | "toTime" | "toDuration" => (&[Any], None),
        "now" | "pathPrefix" | "externalURL" => (&[], None),
        _ => return None,
    };
    Some(Signature { params, rest })
}
