//! The flags of a role and the files that they name, as the role reads them at its start.

use clap::{ArgMatches, Error, FromArgMatches};
use compactor::CompactArgs;
use querier::QueryArgs;
use ruler::{RuleArgs, RulerServers};
use runtime::{CommonArgs, ConfigMistakes, mistakes_in_files};
use scraper::ScrapeArgs;
use sidecar::SidecarArgs;
use store::StoreArgs;

use crate::agent::AgentArgs;

/// All mistakes that a role would report at its start. The configuration file of a gateway is not read here, and neither is a token of
/// standard input.
///
/// # Errors
/// The command line is not that of the role.
pub(super) fn mistakes(role: &str, matches: &ArgMatches) -> Result<ConfigMistakes, Error> {
    let own = match role {
        "sidecar" => SidecarArgs::from_arg_matches(matches)?.mistakes(),
        "store" => StoreArgs::from_arg_matches(matches)?.mistakes(),
        "compact" => CompactArgs::from_arg_matches(matches)?.mistakes(),
        "query" => QueryArgs::from_arg_matches(matches)?.check().err().unwrap_or_default(),
        "rule" => RuleArgs::from_arg_matches(matches)?.check().err().unwrap_or_default(),
        "scrape" => ScrapeArgs::from_arg_matches(matches)?.check(Vec::new()).err().unwrap_or_default(),
        "agent" => AgentArgs::from_arg_matches(matches)?.mistakes(),
        "gateway" => ConfigMistakes::default(),
        _ => return Ok(ConfigMistakes::default()),
    };
    let of_files = mistakes_in_files(role, &CommonArgs::from_arg_matches(matches)?);
    Ok(own.lines().iter().chain(of_files.lines()).cloned().collect())
}

/// The HTTP servers of a ruler; none of other roles.
///
/// # Errors
/// The command line is not that of a ruler.
pub(super) fn servers(role: &str, matches: &ArgMatches) -> Result<RulerServers, Error> {
    match role {
        "rule" => Ok(RuleArgs::from_arg_matches(matches)?.servers()),
        _ => Ok(RulerServers::default()),
    }
}
