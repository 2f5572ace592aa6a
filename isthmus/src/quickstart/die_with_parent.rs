//! Lets a child process end when this process does, however it ends.
//!
//! The kernel does this on Linux (`PR_SET_PDEATHSIG`), if the child asks for it between fork and exec. The standard library
//! has only an unsafe way to run code there, because a forked process must not allocate or take locks.
#![allow(unsafe_code, reason = "code between fork and exec; it makes one system call and nothing else")]

use tokio::process::Command;

/// Makes the process that `command` starts die with the thread that starts it.
#[cfg(target_os = "linux")]
pub(super) fn die_with_parent(command: &mut Command) {
    let ask = || {
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
            .map_err(std::io::Error::from)
    };
    // SAFETY: `ask` makes one system call. It neither allocates nor takes a lock, as pre_exec requires.
    unsafe {
        command.pre_exec(ask);
    }
}

/// Elsewhere, children outlive a process that was killed.
#[cfg(not(target_os = "linux"))]
pub(super) fn die_with_parent(_: &mut Command) {}
