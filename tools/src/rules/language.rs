//! Flags that say which expressions, names and fields are accepted.

use promql::{EngineOptions, ParseOptions};
use rules::{NameScheme, RuleFileOptions, UnitTestOptions};

/// Flags of all commands for rules.
#[derive(Debug, clap::Args)]
pub(super) struct LanguageFlags {
    /// Enable a part of PromQL that is not stable yet, such as promql-experimental-functions; repeatable. The querier needs the
    /// same flags
    #[arg(long, value_name = "FEATURE", value_enum, hide_possible_values = true, value_delimiter = ',')]
    enable_feature: Vec<RuleFeature>,

    /// Accept only names of ASCII letters, digits and underscores, as before Prometheus 3
    #[arg(long)]
    legacy_names: bool,

    /// Ignore fields of rule files that are not known. By default they are mistakes
    #[arg(long)]
    ignore_unknown_fields: bool,
}

/// Parts of the language that are disabled by default.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum RuleFeature {
    #[value(name = "promql-experimental-functions")]
    ExperimentalFunctions,
    #[value(name = "promql-extended-range-selectors")]
    ExtendedRangeSelectors,
    #[value(name = "promql-binop-fill-modifiers")]
    FillModifiers,
    #[value(name = "promql-delayed-name-removal")]
    DelayedNameRemoval,
    #[value(name = "promql-x-functions")]
    ExtendedFunctions,
}

impl LanguageFlags {
    fn has(&self, feature: RuleFeature) -> bool {
        self.enable_feature.contains(&feature)
    }

    /// How rule files are read.
    pub(super) fn rules(&self) -> RuleFileOptions {
        RuleFileOptions {
            parse: ParseOptions {
                experimental_functions: self.has(RuleFeature::ExperimentalFunctions),
                extended_range_selectors: self.has(RuleFeature::ExtendedRangeSelectors),
                fill_modifiers: self.has(RuleFeature::FillModifiers),
                extended_functions: self.has(RuleFeature::ExtendedFunctions),
                ..ParseOptions::default()
            },
            names: if self.legacy_names { NameScheme::Legacy } else { NameScheme::Utf8 },
            ignore_unknown_fields: self.ignore_unknown_fields,
        }
    }

    /// How unit tests run.
    pub(super) fn tests(&self) -> UnitTestOptions {
        let rules = self.rules();
        let engine = EngineOptions {
            parse: rules.parse,
            delayed_name_removal: self.has(RuleFeature::DelayedNameRemoval),
            ..UnitTestOptions::default().engine
        };
        UnitTestOptions { rules, engine }
    }
}
