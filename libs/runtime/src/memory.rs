//! The memory that a process may use, and sizes as flags write them.

use std::fs;
use std::path::Path;

/// Assumed memory if the system does not report it.
const UNKNOWN_BYTES: u64 = 2 << 30;

/// The memory that this process may use, in bytes: that of the machine, or the lowest limit of its control groups; 2 GiB if the
/// system does not report it.
pub fn available_memory() -> u64 {
    total_bytes(Path::new("/"))
}

/// As [`available_memory`]; `root` is the root of the file system.
fn total_bytes(root: &Path) -> u64 {
    let machine = fs::read_to_string(root.join("proc/meminfo")).ok().and_then(|text| mem_total(&text));
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let groups = groups.lines().filter_map(|line| group_limit(root, line));
    // Without a limit, cgroup version 1 reports a number larger than any machine has.
    machine.into_iter().chain(groups).min().unwrap_or(UNKNOWN_BYTES)
}

/// The lowest limit of a control group and its ancestors. `line` is a line of `/proc/self/cgroup`: number,
/// controllers and path. Version 2 has number 0 and no controllers.
fn group_limit(root: &Path, line: &str) -> Option<u64> {
    let mut fields = line.splitn(3, ':').skip(1);
    let (controllers, path) = (fields.next()?, fields.next()?);
    let (mount, file) = if controllers.is_empty() {
        ("sys/fs/cgroup", "memory.max")
    } else if controllers.split(',').any(|controller| controller == "memory") {
        ("sys/fs/cgroup/memory", "memory.limit_in_bytes")
    } else {
        return None;
    };
    // In a container the path may be that of the host, while only its last part is visible here, at the top.
    // Therefore missing files are ignored.
    let path = Path::new(path.trim_start_matches('/'));
    let limit =
        |group: &Path| fs::read_to_string(root.join(mount).join(group).join(file)).ok()?.trim().parse().ok();
    path.ancestors().filter_map(limit).min()
}

fn mem_total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// Parses a size such as `512MiB`, `1.5GiB`, `2GB` or `1000000`, for flags.
///
/// # Errors
/// A text that names the size and the units.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let refuse = || {
        format!("size {text:?} is not a number with a unit (B, KiB, MiB, GiB, KB, MB, GB), such as 512MiB")
    };
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

    /// The memory of a system with these files, given as path and content.
    fn system(files: &[(&str, &str)]) -> u64 {
        let root = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        total_bytes(root.path())
    }

    #[test]
    fn lowest_control_group_limit_is_used() {
        const MIB: u64 = 1 << 20;
        let mib = |mib: u64| format!("{}\n", mib * MIB);
        let machine = ("proc/meminfo", "MemTotal:        8388608 kB\n");
        let v2 = |path: &'static str| ("proc/self/cgroup", path);
        assert_eq!(system(&[]), UNKNOWN_BYTES);
        assert_eq!(system(&[machine]), 8192 * MIB);
        assert_eq!(system(&[machine, v2("0::/\n")]), 8192 * MIB);
        // A container that sees only its own group, under its own name or that of the host.
        for name in ["0::/\n", "0::/kubepods/pod1/container1\n", "0::/../../other\n"] {
            let own = ("sys/fs/cgroup/memory.max", &*mib(512));
            assert_eq!(system(&[machine, v2(name), own]), 512 * MIB, "{name}");
        }
        // A service in a slice with a lower limit.
        let (slice, service) =
            ("sys/fs/cgroup/a.slice/memory.max", "sys/fs/cgroup/a.slice/b.service/memory.max");
        let nested = v2("0::/a.slice/b.service\n");
        assert_eq!(system(&[machine, nested, (slice, &mib(300)), (service, &mib(900))]), 300 * MIB);
        assert_eq!(system(&[machine, nested, (slice, &mib(900)), (service, &mib(300))]), 300 * MIB);
        assert_eq!(system(&[machine, nested, (slice, &mib(300)), (service, "max\n")]), 300 * MIB);
        assert_eq!(system(&[machine, nested, (slice, "max\n"), (service, "max\n")]), 8192 * MIB);
        assert_eq!(system(&[machine, nested, (service, &mib(99_999))]), 8192 * MIB);
        // The limit of another group does not count.
        assert_eq!(
            system(&[machine, nested, ("sys/fs/cgroup/a.slice/c.service/memory.max", &mib(1))]),
            8192 * MIB
        );
        // Version 1, together with version 2 without the memory controller.
        let v1 = "12:cpu,cpuacct:/docker/x\n5:memory:/docker/x\n0::/docker/x\n";
        let v1 = ("proc/self/cgroup", v1);
        let (outer, inner) = (
            "sys/fs/cgroup/memory/docker/memory.limit_in_bytes",
            "sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes",
        );
        assert_eq!(system(&[machine, v1, (inner, "9223372036854771712\n")]), 8192 * MIB);
        assert_eq!(system(&[machine, v1, (inner, &mib(700)), (outer, "9223372036854771712\n")]), 700 * MIB);
        let top = ("sys/fs/cgroup/memory/memory.limit_in_bytes", &*mib(600));
        assert_eq!(system(&[machine, v1, top]), 600 * MIB);
    }

    #[test]
    fn memory_of_the_machine_is_parsed() {
        assert_eq!(mem_total("MemTotal:        1024 kB\nMemFree: 1 kB\n"), Some(1 << 20));
        assert_eq!(mem_total("nonsense"), None);
    }

    #[test]
    fn sizes_have_units_of_both_kinds() {
        let check = |text: &str, bytes: u64| assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        check("512MiB", 512 << 20);
        check("1.5GiB", 3 << 29);
        check("250MB", 250_000_000);
        check("1000000", 1_000_000);
        for text in ["", "lots", "1TiB", "-1", "0"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
    }
}
