//! Metrics of the process itself, read from `/proc` at each scrape (on Linux only).

use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// Clock ticks per second in `/proc/*/stat`; 100 on every architecture of Linux that Rust supports.
const TICKS_PER_SECOND: f64 = 100.0;

#[derive(Debug)]
pub(super) struct ProcessCollector;

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let mut gauge = |name: &str, help: &str, value: Option<f64>| match value {
            Some(value) => {
                let gauge = ConstGauge::new(value);
                gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)
            }
            None => Ok(()),
        };
        let stat = ProcessStat::read();
        let of_stat = |value: fn(&ProcessStat) -> f64| stat.as_ref().map(value);
        gauge("process_resident_memory_bytes", "Resident memory in bytes", memory_bytes("VmRSS:"))?;
        gauge("process_virtual_memory_bytes", "Virtual memory in bytes", memory_bytes("VmSize:"))?;
        gauge("process_open_fds", "Open file descriptors", open_files())?;
        gauge("process_max_fds", "Maximum number of open file descriptors", max_open_files())?;
        gauge("process_threads", "Threads of the operating system", of_stat(|stat| stat.threads))?;
        gauge(
            "process_start_time_seconds",
            "Start time of the process, in seconds since the Unix epoch",
            stat.as_ref().and_then(|stat| Some(boot_time()? + stat.start_seconds)),
        )?;
        if let Some(stat) = stat {
            let counter = ConstCounter::new(stat.cpu_seconds);
            let help = "User and system CPU time spent, in seconds";
            counter.encode(encoder.encode_descriptor(
                "process_cpu_seconds",
                help,
                None,
                counter.metric_type(),
            )?)?;
        }
        Ok(())
    }
}

/// Values from `/proc/self/stat`.
struct ProcessStat {
    cpu_seconds: f64,
    threads: f64,
    /// From boot to the start of the process.
    start_seconds: f64,
}

impl ProcessStat {
    fn read() -> Option<Self> {
        let text = fs::read_to_string("/proc/self/stat").ok()?;
        // The second field, the name, may contain spaces; it ends at the last parenthesis. proc(5) counts fields from 1,
        // so the first one after the name is number 3.
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
        Some(Self {
            cpu_seconds: (field(14)? + field(15)?) / TICKS_PER_SECOND,
            threads: field(20)?,
            start_seconds: field(22)? / TICKS_PER_SECOND,
        })
    }
}

/// A line of `/proc/self/status` that gives kibibytes.
fn memory_bytes(key: &str) -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    let kibibytes: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024.0)
}

fn boot_time() -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

fn open_files() -> Option<f64> {
    // The directory itself is open while it is listed.
    Some(fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1) as f64)
}

fn max_open_files() -> Option<f64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_ascii_whitespace().next()? {
        "unlimited" => Some(f64::INFINITY),
        number => number.parse().ok(),
    }
}
