//! The memory of the machine, or of the control group of this process.

use crate::doctor::finding::Finding;

const MIB: u64 = 1 << 20;
/// A small role needs this much.
const ENOUGH: u64 = 256 * MIB;
/// With less, a role is killed when it starts to work.
const TOO_LITTLE: u64 = 64 * MIB;

const CHECK: &str = "memory";

pub(super) fn check(available_bytes: u64) -> Finding {
    let text = format!("{} MiB may be used", available_bytes / MIB);
    let advice = "raise the limit of the container (`resources.limits.memory`) or of the unit (MemoryMax)";
    match available_bytes {
        ENOUGH.. => Finding::ok(CHECK, text),
        TOO_LITTLE.. => {
            Finding::warning(CHECK, format!("{text}, expected at least {} MiB; {advice}", ENOUGH / MIB))
        }
        _ => Finding::critical(
            CHECK,
            format!("{text}, a role needs at least {} MiB; {advice}", TOO_LITTLE / MIB),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::finding::Severity;

    #[test]
    fn little_memory_is_reported() {
        let check = |mib: u64, severity| assert_eq!(check(mib * MIB).severity, severity, "{mib}");
        check(256, Severity::Ok);
        check(255, Severity::Warning);
        check(63, Severity::Critical);
    }
}
