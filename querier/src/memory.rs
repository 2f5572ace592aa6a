//! How much memory there is, and how much of it queries may have.

use std::fs;

use promql::QueryError;

/// What is assumed where the system does not say.
const UNKNOWN_BYTES: u64 = 2 << 30;
/// Below this no useful query runs.
const LEAST_BYTES: u64 = 64 << 20;

/// What all queries together may hold: half of the memory. The other half is for what connections hold and for the
/// rest of the process, so that queries which are too large end with an error and not with the process.
pub(crate) fn for_all_queries() -> u64 {
    (total_bytes() / 2).max(LEAST_BYTES)
}

/// What one query may hold of the `total` for all: a quarter, so that one does not leave others without.
pub(crate) fn for_one_query(total: u64) -> u64 {
    (total / 4).max(LEAST_BYTES).min(total)
}

/// The memory of the container, or of the machine.
fn total_bytes() -> u64 {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| mem_total(&text));
    let limits = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    let container = limits.iter().find_map(|path| fs::read_to_string(path).ok()?.trim().parse().ok());
    // Outside of containers the second file holds a number beyond any machine.
    machine.into_iter().chain(container).min().unwrap_or(UNKNOWN_BYTES)
}

fn mem_total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// What a query's end is told with: for a limit, also the flag that sets it.
pub(crate) fn told(error: &QueryError) -> String {
    let QueryError::Limit(limit) = error else { return error.to_string() };
    let flag = match limit.name {
        "max_bytes" => "max-memory",
        "max_total_bytes" => "max-total-memory",
        "max_total_samples" => "max-total-samples",
        _ => "max-samples",
    };
    format!("{limit} (--query.{flag})")
}

/// Reads a size such as `512MiB`, `1.5GiB`, `2GB` or `1000000`.
pub(crate) fn parse_bytes(text: &str) -> Result<u64, String> {
    let refuse =
        || format!("size {text:?}: write a number and a unit (B, KiB, MiB, GiB, KB, MB, GB), such as 512MiB");
    let digits = text.bytes().take_while(|b| b.is_ascii_digit() || *b == b'.').count();
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit.trim() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        _ => return Err(refuse()),
    };
    let number: f64 = number.parse().map_err(|_| refuse())?;
    let bytes = number * factor as f64;
    if bytes >= 1.0 && bytes < u64::MAX as f64 { Ok(bytes as u64) } else { Err(refuse()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machines_memory_is_read() {
        assert_eq!(mem_total("MemTotal:        1024 kB\nMemFree: 1 kB\n"), Some(1 << 20));
        assert_eq!(mem_total("nonsense"), None);
        assert!(for_all_queries() >= LEAST_BYTES);
        assert_eq!(for_one_query(4 << 30), 1 << 30);
        assert_eq!(for_one_query(1000), 1000);
    }
}
