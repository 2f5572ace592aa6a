//! How rule files are read.

use promql::ParseOptions;

/// Which names rules may use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NameScheme {
    /// Names are any text in UTF-8, as in Prometheus 3.
    #[default]
    Utf8,
    /// Names consist of ASCII letters, digits and underscores, as before Prometheus 3.
    Legacy,
}

/// How files are read.
#[derive(Clone, Copy, Debug, Default)]
pub struct RuleFileOptions {
    /// Which parts of PromQL expressions may use.
    pub parse: ParseOptions,
    /// Which names are valid.
    pub names: NameScheme,
    /// Ignores fields that are not known instead of reporting them.
    pub ignore_unknown_fields: bool,
}
