//! The ports of the demonstration. All are bound before anything starts, and each is released when the process that needs it
//! starts, so that no other program takes one meanwhile.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};

use anyhow::Result;

use crate::quickstart::plan::PORTS;
use crate::usage::UsageError;

/// Ports that are bound here, over TCP and UDP.
#[derive(Debug)]
pub(super) struct ReservedPorts(BTreeMap<u16, (TcpListener, UdpSocket)>);

impl ReservedPorts {
    /// Binds the [`PORTS`] ports from `base` on.
    ///
    /// # Errors
    /// A port is not free; the error names the process that uses it, where that can be found out.
    pub(super) fn bind(base: u16) -> Result<Self> {
        let Some(end) = base.checked_add(PORTS) else {
            let most = u16::MAX - PORTS;
            return Err(
                UsageError(format!("--base-port {base}: out of range, expected at most {most}")).into()
            );
        };
        let mut bound = BTreeMap::new();
        for port in base..end {
            let at = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            match TcpListener::bind(at).and_then(|tcp| Ok((tcp, UdpSocket::bind(at)?))) {
                Ok(sockets) => drop(bound.insert(port, sockets)),
                Err(error) => {
                    let holder = holder(port).unwrap_or_else(|| format!("another program ({error})"));
                    return Err(UsageError(format!(
                        "port {port} is used by {holder}; end it, or choose {PORTS} other ports with --base-port"
                    ))
                    .into());
                }
            }
        }
        Ok(Self(bound))
    }

    /// Releases the ports of `addresses`, for a process that starts now.
    pub(super) fn release(&mut self, addresses: &[SocketAddr]) {
        for address in addresses {
            self.0.remove(&address.port());
        }
    }
}

/// The process that is bound to a port, as `NAME (process ID)`. Only on Linux, and only if its files may be read.
fn holder(port: u16) -> Option<String> {
    let inodes: Vec<String> = ["tcp", "udp", "tcp6", "udp6"]
        .iter()
        .filter_map(|table| fs::read_to_string(format!("/proc/net/{table}")).ok())
        .flat_map(|table| inodes(&table, port))
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    let uses = |process: &fs::DirEntry| {
        let files = fs::read_dir(process.path().join("fd")).ok()?;
        files.flatten().find_map(|file| {
            let target = fs::read_link(file.path()).ok()?;
            inodes.iter().any(|inode| target.as_os_str() == inode.as_str()).then_some(())
        })
    };
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let process = processes
        .filter(|entry| entry.file_name().to_string_lossy().bytes().all(|byte| byte.is_ascii_digit()))
        .find(|process| uses(process).is_some())?;
    let name = fs::read_to_string(process.path().join("comm")).ok()?;
    Some(format!("{} (process {})", name.trim(), process.file_name().to_string_lossy()))
}

/// The inodes of the sockets of a table in `/proc/net` that are bound to a port and listen. See proc_net(5).
fn inodes(table: &str, port: u16) -> Vec<String> {
    let bound = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (_, local) = fields.get(1)?.rsplit_once(':')?;
        // 0A is a TCP socket that listens, 07 a UDP socket without a peer.
        let listens = matches!(*fields.get(3)?, "0A" | "07");
        (listens && u16::from_str_radix(local, 16) == Ok(port))
            .then(|| fields.get(9).map(|inode| (*inode).to_owned()))?
    };
    table.lines().skip(1).filter_map(bound).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_names_its_process() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let port = taken.local_addr().expect("an address").port();
        let base = port.saturating_sub(PORTS / 2).min(u16::MAX - PORTS);
        let error = ReservedPorts::bind(base).expect_err("a port is taken").to_string();
        assert!(error.contains("--base-port"), "{error}");
        let found = holder(port).expect("this process");
        assert!(found.ends_with(&format!("(process {})", std::process::id())), "{found}");
        let error = ReservedPorts::bind(u16::MAX - 3).expect_err("too high").to_string();
        assert!(error.contains("out of range"), "{error}");
    }
}
