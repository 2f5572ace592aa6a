//! How much memory the allocator keeps: for a role that has to stay within a stated amount.

use std::env;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// glibc reads it when a program starts.
const VARIABLE: &str = "MALLOC_ARENA_MAX";

/// Starts this program again with two arenas of the allocator, unless the environment says how many there are. Call it first of all.
///
/// glibc has eight arenas for each processor, and what is freed in one of them is not used for another one: with many threads that
/// read from buckets, a fifth of the memory of a small store was free memory of arenas. The number can only be set before a program
/// starts, or by a call that is not safe. The process stays the same one.
///
/// It returns where there is nothing to do, and where the program cannot be started again, which only costs memory.
pub fn with_few_arenas() {
    let is_set = |name| env::var_os(name).is_some();
    if !cfg!(target_env = "gnu") || is_set(VARIABLE) || is_set("GLIBC_TUNABLES") {
        return;
    }
    let Ok(program) = env::current_exe() else { return };
    let mut args = env::args_os();
    let name = args.next().unwrap_or_else(|| program.clone().into());
    // It returns only if it fails.
    let _failed = Command::new(program).arg0(name).args(args).env(VARIABLE, "2").exec();
}
