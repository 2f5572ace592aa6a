//! No core dumps of processes with keys.

/// Forbids core dumps of this process, which would contain its keys. A failure is ignored: the limit of the system is then
/// lower already.
pub fn forbid_core_dumps() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
}

#[cfg(test)]
mod tests {
    use rustix::process::{Resource, getrlimit};

    #[test]
    fn a_process_with_keys_dumps_no_core() {
        super::forbid_core_dumps();
        assert_eq!(getrlimit(Resource::Core).current, Some(0));
    }
}
