//! Command lines as Thanos' parser understands them, rewritten for ours.

use std::ffi::OsString;

use clap::Command;

/// Rewrites `--no-NAME` into `--NAME=false`, for every switch of `command` or one of its subcommands whose
/// value may be `true` or `false`.
///
/// Declare such a switch so that it takes an optional value:
/// `#[arg(long, default_value_t = true, default_missing_value = "true", num_args = 0..=1,
/// require_equals = true, action = clap::ArgAction::Set)]`. Arguments after `--` stay as they are, and so
/// does a `--no-NAME` that the command knows itself.
pub fn kingpin_args(command: &Command, args: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut literal = false;
    let rewrite = |arg: OsString| {
        literal |= arg == "--";
        let name = arg.to_str().and_then(|text| text.strip_prefix("--no-"));
        match name {
            Some(name) if !literal && is_switch(command, name) && !knows(command, &format!("no-{name}")) => {
                format!("--{name}=false").into()
            }
            _ => arg,
        }
    };
    args.into_iter().map(rewrite).collect()
}

/// Whether `name` is an option with an optional value of `true` or `false`, here or further down.
fn is_switch(command: &Command, name: &str) -> bool {
    let takes_bool = |arg: &clap::Arg| {
        let values = arg.get_possible_values();
        arg.get_long() == Some(name)
            && values.len() == 2
            && ["true", "false"].iter().all(|value| values.iter().any(|known| known.matches(value, false)))
    };
    command.get_arguments().any(takes_bool) || command.get_subcommands().any(|sub| is_switch(sub, name))
}

fn knows(command: &Command, name: &str) -> bool {
    command.get_arguments().any(|arg| arg.get_long() == Some(name))
        || command.get_subcommands().any(|sub| knows(sub, name))
}

#[cfg(test)]
mod tests {
    use clap::{ArgAction, CommandFactory, Parser};

    use super::*;

    #[derive(Parser)]
    struct Program {
        #[command(subcommand)]
        role: Role,
    }

    #[derive(clap::Subcommand)]
    enum Role {
        Query {
            #[arg(
                long = "query.partial-response",
                default_value_t = true,
                default_missing_value = "true",
                num_args = 0..=1,
                require_equals = true,
                action = ArgAction::Set
            )]
            partial_response: bool,
            #[arg(long)]
            name: Option<String>,
        },
    }

    fn partial_response(args: &[&str]) -> Result<bool, clap::Error> {
        let args = ["isthmus", "query"].iter().chain(args).map(OsString::from);
        let Role::Query { partial_response, name } =
            Program::try_parse_from(kingpin_args(&Program::command(), args))?.role;
        assert_eq!(name, None);
        Ok(partial_response)
    }

    #[test]
    fn switches_can_be_turned_off_as_in_thanos() {
        let value = |args: &[&str]| partial_response(args).map_err(|error| error.kind());
        assert_eq!(value(&[]), Ok(true));
        assert_eq!(value(&["--query.partial-response"]), Ok(true));
        assert_eq!(value(&["--no-query.partial-response"]), Ok(false));
        assert_eq!(value(&["--query.partial-response=false"]), Ok(false));
        assert_eq!(value(&["--no-name"]), Err(clap::error::ErrorKind::UnknownArgument));
        assert_eq!(
            value(&["--", "--no-query.partial-response"]),
            Err(clap::error::ErrorKind::UnknownArgument)
        );
    }
}
