//! Command lines in the form that Thanos accepts, rewritten for clap.

use std::ffi::OsString;

use clap::Command;

/// Rewrites `--no-NAME` into `--NAME=false`, for every switch of `command` or one of its subcommands whose
/// value may be `true` or `false`. Where the switch takes no value, the argument is dropped, because the switch is off by
/// default.
///
/// Declare such a switch so that it takes an optional value:
/// `#[arg(long, default_value_t = true, default_missing_value = "true", num_args = 0..=1,
/// require_equals = true, action = clap::ArgAction::Set)]`. Arguments after `--` stay as they are, and so
/// does a `--no-NAME` that the command itself has.
///
/// Where several subcommands have a switch of the same name, the subcommand that `args` call decides.
pub fn kingpin_args(command: &Command, args: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let args: Vec<OsString> = args.into_iter().collect();
    let called = called(command, &args);
    let mut literal = false;
    let rewrite = |arg: OsString| {
        literal |= arg == "--";
        let name = arg.to_str().and_then(|text| text.strip_prefix("--no-"));
        match name.filter(|name| !literal && !has_argument(command, &format!("no-{name}"))) {
            None => Some(arg),
            Some(name) => match switch(called, name).or_else(|| switch(command, name)) {
                None => Some(arg),
                Some(Switch::WithValue) => Some(format!("--{name}=false").into()),
                Some(Switch::Plain) => None,
            },
        }
    };
    args.into_iter().filter_map(rewrite).collect()
}

/// The deepest subcommand that the arguments call.
fn called<'a>(command: &'a Command, args: &[OsString]) -> &'a Command {
    let words = args.iter().take_while(|arg| *arg != "--").filter_map(|arg| arg.to_str());
    words.fold(command, |command, word| command.find_subcommand(word).unwrap_or(command))
}

/// A flag that is on or off.
enum Switch {
    /// Takes an optional value of `true` or `false`.
    WithValue,
    /// Takes no value; off unless it is given.
    Plain,
}

/// The switch `name` of the command or of one of its subcommands.
fn switch(command: &Command, name: &str) -> Option<Switch> {
    let kind = |arg: &clap::Arg| {
        let values = arg.get_possible_values();
        let takes = |value| values.iter().any(|known| known.matches(value, false));
        match arg.get_action() {
            clap::ArgAction::SetTrue => Some(Switch::Plain),
            _ if values.len() == 2 && takes("true") && takes("false") => Some(Switch::WithValue),
            _ => None,
        }
    };
    let mut here = command.get_arguments().filter(|arg| arg.get_long() == Some(name));
    here.find_map(kind).or_else(|| command.get_subcommands().find_map(|sub| switch(sub, name)))
}

fn has_argument(command: &Command, name: &str) -> bool {
    command.get_arguments().any(|arg| arg.get_long() == Some(name))
        || command.get_subcommands().any(|sub| has_argument(sub, name))
}

#[cfg(test)]
mod tests {
    use clap::{ArgAction, CommandFactory, Parser};

    use super::*;

    #[derive(Parser)]
    struct TestProgram {
        #[command(subcommand)]
        command: TestCommand,
    }

    #[derive(clap::Subcommand)]
    enum TestCommand {
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
            #[arg(long = "web.disable-cors")]
            disable_cors: bool,
            #[arg(long)]
            name: Option<String>,
        },
    }

    #[test]
    fn a_switch_of_another_subcommand_is_ignored() {
        let plain =
            Command::new("upload").arg(clap::Arg::new("d").long("dry-run").action(ArgAction::SetTrue));
        let valued = clap::Arg::new("d").long("dry-run").value_parser(clap::value_parser!(bool));
        let command = Command::new("p").subcommand(plain).subcommand(Command::new("rewrite").arg(valued));
        let rewritten = |args: [&str; 3]| kingpin_args(&command, args.map(OsString::from));
        assert_eq!(rewritten(["p", "rewrite", "--no-dry-run"]), ["p", "rewrite", "--dry-run=false"]);
        assert_eq!(rewritten(["p", "upload", "--no-dry-run"]), ["p", "upload"]);
    }

    fn partial_response(args: &[&str]) -> Result<bool, clap::Error> {
        let args = ["isthmus", "query"].iter().chain(args).map(OsString::from);
        let TestCommand::Query { partial_response, disable_cors, name } =
            TestProgram::try_parse_from(kingpin_args(&TestProgram::command(), args))?.command;
        assert_eq!((name, disable_cors), (None, false));
        Ok(partial_response)
    }

    #[test]
    fn switches_can_be_turned_off_as_in_thanos() {
        let value = |args: &[&str]| partial_response(args).map_err(|error| error.kind());
        assert_eq!(value(&[]), Ok(true));
        assert_eq!(value(&["--query.partial-response"]), Ok(true));
        assert_eq!(value(&["--no-query.partial-response"]), Ok(false));
        assert_eq!(value(&["--query.partial-response=false"]), Ok(false));
        assert_eq!(value(&["--no-web.disable-cors"]), Ok(true));
        assert_eq!(value(&["--no-name"]), Err(clap::error::ErrorKind::UnknownArgument));
        assert_eq!(
            value(&["--", "--no-query.partial-response"]),
            Err(clap::error::ErrorKind::UnknownArgument)
        );
    }
}
