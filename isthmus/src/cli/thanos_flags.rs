//! Compares `docs/thanos-flags.md` with the flags of Thanos 0.43 and with those that the program accepts.
//!
//! `thanos-0.43-flags.txt` has a line `ROLE FLAG` for each flag in `cmd/thanos` of Thanos, hidden ones included.

use std::collections::BTreeMap;

use clap::{Arg, Command, CommandFactory};
use runtime::UNNEEDED_HEADING;

use crate::cli::Cli;

const PAGE: &str = include_str!("../../../docs/thanos-flags.md");
const FLAGS_OF_THANOS: &str = include_str!("thanos-0.43-flags.txt");

/// A row of the page: status and note by role and flag.
type Rows = BTreeMap<(String, String), (String, String)>;

fn rows() -> Rows {
    let mut rows = Rows::new();
    let mut roles: Vec<String> = Vec::new();
    for line in PAGE.lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            let names = heading.to_lowercase().replace(" and ", ", ");
            roles = names.split(", ").map(str::to_owned).collect();
        }
        let Some(row) = line.strip_prefix("| `--") else { continue };
        let (flag, rest) = row.split_once("` | ").expect("a flag in back quotes");
        let (status, note) = rest.trim_end_matches('|').split_once(" |").expect("three columns");
        for role in &roles {
            let known = (status.to_owned(), note.trim().to_owned());
            let twice = rows.insert((role.clone(), flag.to_owned()), known);
            assert!(twice.is_none(), "two rows for --{flag} of {role}");
        }
    }
    rows
}

/// The command that takes the flags of a role of Thanos.
fn command(role: &str) -> Command {
    let name = if role == "query-frontend" { "query" } else { role };
    let mut cli = Cli::command();
    cli.build();
    cli.find_subcommand(name).expect("a subcommand").clone()
}

fn flag<'a>(command: &'a Command, name: &str) -> Option<&'a Arg> {
    command.get_arguments().find(|arg| arg.get_long() == Some(name))
}

fn is_unneeded(arg: &Arg) -> bool {
    arg.get_help_heading() == Some(UNNEEDED_HEADING)
}

#[test]
fn the_page_lists_each_flag_of_thanos_once() {
    let listed: Vec<String> = rows().into_keys().map(|(role, flag)| format!("{role} {flag}")).collect();
    let mut expected: Vec<&str> = FLAGS_OF_THANOS.lines().collect();
    expected.sort_unstable();
    let mut listed: Vec<&str> = listed.iter().map(String::as_str).collect();
    listed.sort_unstable();
    assert_eq!(listed, expected);
}

#[test]
fn the_program_accepts_what_the_page_says() {
    for ((role, name), (status, note)) in rows() {
        let command = command(&role);
        let accepted = flag(&command, &name);
        let row = format!("--{name} of {role}: {status}, {note:?}");
        match status.as_str() {
            "same" => assert!(accepted.is_some_and(|arg| !is_unneeded(arg)), "{row}"),
            "no effect" => {
                let arg = accepted.filter(|arg| is_unneeded(arg)).unwrap_or_else(|| panic!("{row}"));
                assert_eq!(arg.get_help().map(ToString::to_string), Some(note.clone()), "{name}");
            }
            "other name" => assert!(note.contains("`--") || note.contains("`isthmus "), "{row}"),
            _ => panic!("unknown status: {row}"),
        }
        // Each flag that a note names exists.
        for named in note.split("`--").skip(1).filter_map(|rest| rest.split(['`', ' ', '=']).next()) {
            assert!(flag(&command, named).is_some(), "{row} names --{named}");
        }
    }
}

#[test]
fn each_flag_without_effect_is_on_the_page() {
    let rows = rows();
    for role in ["sidecar", "store", "compact", "rule", "query"] {
        for arg in command(role).get_arguments().filter(|arg| is_unneeded(arg)) {
            let name = arg.get_long().expect("a long name");
            let roles = [role, "query-frontend"].map(str::to_owned);
            assert!(
                roles.iter().any(|r| rows.contains_key(&(r.clone(), name.to_owned()))),
                "{role} --{name}"
            );
        }
    }
}
