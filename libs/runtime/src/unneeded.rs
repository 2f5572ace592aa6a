//! Flags of Thanos that a role accepts although it does not need them, so that a command line of Thanos starts the role.
//!
//! Each role has a list of them. They are not in its help text. The role logs a warning for each one that is given.

use std::fmt;
use std::marker::PhantomData;

use clap::{Arg, ArgAction, ArgMatches, Command, Error};

/// The heading under which the flags of Thanos without effect are declared.
pub const UNNEEDED_HEADING: &str = "Flags of Thanos without effect";

/// A flag of Thanos without effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnneededFlag {
    /// Its name, without dashes.
    pub name: &'static str,
    /// Whether it takes a value; otherwise it is a switch, which `--no-NAME` turns off.
    pub takes_value: bool,
    /// Why it is not needed, or what to use instead.
    pub reason: &'static str,
}

impl UnneededFlag {
    /// A flag with a value.
    pub const fn value(name: &'static str, reason: &'static str) -> Self {
        Self { name, takes_value: true, reason }
    }

    /// A switch.
    pub const fn switch(name: &'static str, reason: &'static str) -> Self {
        Self { name, takes_value: false, reason }
    }
}

/// What every role of Thanos has and no role of ours needs.
pub const UNNEEDED_BY_ALL: &[UnneededFlag] = &[
    UnneededFlag::switch("enable-auto-gomemlimit", "the program has no garbage collector"),
    UnneededFlag::value("auto-gomemlimit.ratio", "the program has no garbage collector"),
    UnneededFlag::value("debug.name", "each log line names its component"),
];

/// The flags of Thanos that one role accepts without effect, in groups.
pub trait UnneededFlags: Clone + fmt::Debug + Send + Sync + 'static {
    /// The flags. A name occurs once, and is not the name of a flag that has an effect.
    const FLAGS: &'static [&'static [UnneededFlag]];
}

/// Accepts the flags of `L`; flatten it into the flags of the role.
pub struct UnneededArgs<L> {
    given: Vec<UnneededFlag>,
    role: PhantomData<L>,
}

impl<L: UnneededFlags> UnneededArgs<L> {
    /// The flags that were given, in the order of the list.
    pub fn given(&self) -> &[UnneededFlag] {
        &self.given
    }

    /// Logs a warning for each flag that was given.
    pub fn warn(&self) {
        for flag in &self.given {
            tracing::warn!(flag = %format_args!("--{}", flag.name), reason = flag.reason, "a flag of Thanos has no effect here");
        }
    }

    fn flags() -> impl Iterator<Item = &'static UnneededFlag> {
        L::FLAGS.iter().copied().flatten()
    }

    fn of(matches: &ArgMatches) -> Self {
        let given = |flag: &&UnneededFlag| {
            matches.value_source(flag.name) == Some(clap::parser::ValueSource::CommandLine)
        };
        Self { given: Self::flags().filter(given).copied().collect(), role: PhantomData }
    }
}

impl<L> Clone for UnneededArgs<L> {
    fn clone(&self) -> Self {
        Self { given: self.given.clone(), role: PhantomData }
    }
}

impl<L> fmt::Debug for UnneededArgs<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.given.iter().map(|flag| flag.name)).finish()
    }
}

impl<L: UnneededFlags> clap::FromArgMatches for UnneededArgs<L> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        Ok(Self::of(matches))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::of(matches);
        Ok(())
    }
}

impl<L: UnneededFlags> clap::Args for UnneededArgs<L> {
    fn augment_args(command: Command) -> Command {
        Self::flags().fold(command, |command, flag| {
            let arg = Arg::new(flag.name)
                .long(flag.name)
                .hide(true)
                .help(flag.reason)
                .help_heading(UNNEEDED_HEADING)
                .action(ArgAction::Append);
            command.arg(match flag.takes_value {
                true => arg.num_args(1).allow_hyphen_values(true),
                false => arg
                    .num_args(0..=1)
                    .require_equals(true)
                    .default_missing_value("true")
                    .value_parser(["true", "false"]),
            })
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use clap::{CommandFactory, Parser};

    use super::*;
    use crate::kingpin::kingpin_args;

    #[derive(Clone, Debug)]
    struct TestRole;

    impl UnneededFlags for TestRole {
        const FLAGS: &'static [&'static [UnneededFlag]] =
            &[UNNEEDED_BY_ALL, &[UnneededFlag::value("query.promql-engine", "there is one engine")]];
    }

    #[derive(Parser)]
    struct TestFlags {
        #[command(flatten)]
        unneeded: UnneededArgs<TestRole>,
        #[arg(long)]
        needed: Option<String>,
    }

    fn given(args: &[&str]) -> Result<Vec<&'static str>, clap::error::ErrorKind> {
        let args = std::iter::once("role").chain(args.iter().copied()).map(OsString::from);
        let flags = TestFlags::try_parse_from(kingpin_args(&TestFlags::command(), args));
        let flags = flags.map_err(|error| error.kind())?;
        assert_eq!(flags.needed.as_deref(), Some("x"));
        Ok(flags.unneeded.given().iter().map(|flag| flag.name).collect())
    }

    #[test]
    fn flags_without_effect_are_accepted_in_each_form_and_reported() {
        assert_eq!(given(&["--needed=x"]), Ok(vec![]));
        for engine in [&["--query.promql-engine=thanos"][..], &["--query.promql-engine", "thanos"]] {
            assert_eq!(given(&[&["--needed=x"], engine].concat()), Ok(vec!["query.promql-engine"]));
        }
        for switch in
            ["--enable-auto-gomemlimit", "--no-enable-auto-gomemlimit", "--enable-auto-gomemlimit=false"]
        {
            assert_eq!(given(&[switch, "--needed", "x"]), Ok(vec!["enable-auto-gomemlimit"]));
        }
        let twice = given(&["--auto-gomemlimit.ratio=-1", "--auto-gomemlimit.ratio", "-1", "--needed=x"]);
        assert_eq!(twice, Ok(vec!["auto-gomemlimit.ratio"]));
        assert_eq!(given(&["--query.no-such-flag=1"]), Err(clap::error::ErrorKind::UnknownArgument));
        let help = TestFlags::command().render_long_help().to_string();
        assert!(help.contains("--needed") && !help.contains("gomemlimit"), "{help}");
    }
}
