//! Child processes that are killed when dropped, and their resource usage.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::http::get;

/// How long a process may take to become ready.
const START: Duration = Duration::from_secs(30);

/// Path of the `isthmus` program: `$ISTHMUS_BIN`, or the program that was built next to this test.
///
/// # Panics
/// If it does not exist. The message says what to do.
pub fn isthmus() -> PathBuf {
    if let Some(path) = std::env::var_os("ISTHMUS_BIN") {
        return PathBuf::from(path);
    }
    let me = std::env::current_exe().expect("a running program has a file");
    let beside = me.ancestors().skip(1).take(2).map(|dir| dir.join("isthmus")).find(|path| path.is_file());
    beside.expect("no isthmus program next to the tests; run `cargo build` first, or set ISTHMUS_BIN")
}

/// Ports of [`free_port`]: below those that the kernel gives to connections (from 32,768 on), so that none takes one before the
/// server that it is meant for binds it. Quickstarts of the tests begin at 22,000.
const FREE_PORTS: std::ops::Range<u16> = 10_240..21_000;

/// A port on 127.0.0.1 that is free for TCP and UDP at the moment, and that no earlier call in this process returned.
///
/// # Panics
/// If there is none.
pub fn free_port() -> SocketAddr {
    static CALLS: AtomicU32 = AtomicU32::new(0);
    // Processes at the same time begin at different ports.
    let begin = std::process::id().wrapping_mul(101);
    let free = FREE_PORTS.into_iter().find_map(|_| {
        let number = begin.wrapping_add(CALLS.fetch_add(1, Relaxed)) % FREE_PORTS.len() as u32;
        let at = SocketAddr::from((Ipv4Addr::LOCALHOST, FREE_PORTS.start + number as u16));
        (TcpListener::bind(at).is_ok() && UdpSocket::bind(at).is_ok()).then_some(at)
    });
    free.expect("no port is free for TCP and UDP")
}

/// Calls `probe` until it succeeds, for at most `limit`.
///
/// # Panics
/// If it does not succeed in time, with the last error.
pub fn wait_for<T>(what: &str, limit: Duration, mut probe: impl FnMut() -> Result<T, String>) -> T {
    let begun = Instant::now();
    loop {
        match probe() {
            Ok(value) => return value,
            Err(complaint) => assert!(begun.elapsed() < limit, "waited {limit:?} for {what}: {complaint}"),
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A child process with its output in a file. It is killed when dropped.
pub struct Process {
    child: Child,
    log: PathBuf,
}

/// Resource usage of a process since its start.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Processor time in user and kernel mode, in seconds.
    pub cpu_seconds: f64,
    /// Resident memory now.
    pub rss_bytes: u64,
    /// The most resident memory at any time.
    pub peak_rss_bytes: u64,
}

impl Process {
    /// Starts `program`. Its output is written to `log`.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn start(program: &Path, args: &[String], log: &Path) -> Self {
        let output = File::create(log).expect("a log file");
        let child = Command::new(program)
            .args(args)
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("a second handle"))
            .stderr(output)
            .spawn()
            .unwrap_or_else(|e| panic!("start {}: {e}", program.display()));
        Self { child, log: log.to_owned() }
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The output so far.
    pub fn output(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Whether the process is running.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits until `/-/ready` at `http` responds with 200.
    ///
    /// # Panics
    /// If the process exits, or is not ready after 30 seconds. The message contains its log.
    pub fn wait_ready(&mut self, name: &str, http: SocketAddr) {
        wait_for(&format!("{name} to be ready"), START, || {
            assert!(self.is_running(), "{name} exited:\n{}", self.output());
            match get(http, "/-/ready") {
                Ok((200, _)) => Ok(()),
                Ok((status, body)) => Err(format!("{status}: {body}; its log:\n{}", self.output())),
                Err(error) => Err(error),
            }
        });
    }

    /// Kills the process and waits until it has exited.
    pub fn kill(&mut self) {
        // Both fail only if the process has already exited.
        drop(self.child.kill());
        drop(self.child.wait());
    }

    /// Asks the process to stop, as SIGTERM does, waits for its end, and returns its exit code.
    ///
    /// # Panics
    /// If it does not end in 30 seconds.
    pub fn terminate(&mut self) -> Option<i32> {
        let id =
            i32::try_from(self.id()).ok().and_then(rustix::process::Pid::from_raw).expect("a process id");
        rustix::process::kill_process(id, rustix::process::Signal::TERM).expect("a signal");
        self.wait_end()
    }

    /// Waits for the end of the process, and returns its exit code.
    ///
    /// # Panics
    /// If it does not end in 30 seconds.
    pub fn wait_end(&mut self) -> Option<i32> {
        wait_for("the end of a process", START, || match self.child.try_wait() {
            Ok(Some(status)) => Ok(status.code()),
            _ => Err(self.output()),
        })
    }

    /// Resource usage according to `/proc`; zero if the process has exited.
    pub fn usage(&self) -> Usage {
        Usage::of(self.id())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Usage {
    /// Resource usage of the process with this id.
    pub fn of(id: u32) -> Self {
        /// Clock ticks per second. The user-space interface of Linux always uses 100.
        const TICKS: f64 = 100.0;
        let read = |file: &str| fs::read_to_string(format!("/proc/{id}/{file}")).unwrap_or_default();
        let stat = read("stat");
        // The name in parentheses may contain any characters. User and system time are the 12th and 13th field after it.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
        let ticks = |at: usize| fields.get(at).and_then(|f| f.parse::<f64>().ok()).unwrap_or(0.0);
        let status = read("status");
        let kib = |name: &str| -> u64 {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|l| l.split_whitespace().next()?.parse().ok()).unwrap_or(0)
        };
        Self {
            cpu_seconds: (ticks(11) + ticks(12)) / TICKS,
            rss_bytes: kib("VmRSS:") * 1024,
            peak_rss_bytes: kib("VmHWM:") * 1024,
        }
    }
}
