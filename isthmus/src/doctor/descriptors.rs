//! File descriptors: connections, files of blocks and sockets need them.

use rustix::process::{Resource, getrlimit};

use crate::doctor::finding::Finding;

/// A busy role needs this many.
const ENOUGH: u64 = 4096;
/// Below this, a role cannot serve its clients.
const TOO_FEW: u64 = 256;

const CHECK: &str = "descriptors";

/// Looks at the hard limit, because a role raises the soft one to it.
pub(super) fn check() -> Finding {
    judge(getrlimit(Resource::Nofile).maximum)
}

fn judge(limit: Option<u64>) -> Finding {
    let advice = "set LimitNOFILE (systemd), ulimits (compose) or `ulimit -n` to 65536";
    match limit {
        None => Finding::ok(CHECK, "no limit"),
        Some(limit) if limit >= ENOUGH => Finding::ok(CHECK, format!("{limit} are permitted")),
        Some(limit) if limit >= TOO_FEW => {
            Finding::warning(CHECK, format!("{limit} are permitted, a busy role needs {ENOUGH}; {advice}"))
        }
        Some(limit) => Finding::critical(
            CHECK,
            format!("{limit} are permitted, a role needs at least {TOO_FEW}; {advice}"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::finding::Severity;

    #[test]
    fn few_descriptors_are_reported() {
        let check = |limit, severity| assert_eq!(judge(limit).severity, severity, "{limit:?}");
        check(None, Severity::Ok);
        check(Some(4096), Severity::Ok);
        check(Some(4095), Severity::Warning);
        check(Some(255), Severity::Critical);
    }
}
