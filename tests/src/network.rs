//! Networks apart from that of this machine, in namespaces of the kernel.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;

use crate::process::Process;

/// A network with a loopback device and nothing else. It is removed when dropped.
pub struct Network {
    name: String,
}

/// Whether a command of `ip` succeeds.
fn ip(args: &[&str]) -> bool {
    Command::new("ip").args(args).output().is_ok_and(|output| output.status.success())
}

impl Network {
    /// Creates it. If that is not possible, prints that `what` is skipped.
    pub fn create(name: &str, what: &str) -> Option<Self> {
        let name = format!("isthmus-{name}-{}", std::process::id());
        if !ip(&["netns", "add", &name]) {
            println!("skipped: {what} (no network namespace can be created here)");
            return None;
        }
        let network = Self { name };
        assert!(network.ip(&["link", "set", "lo", "up"]), "no loopback device");
        Some(network)
    }

    /// Runs a command of `ip` in the network. Whether it succeeds.
    pub fn ip(&self, args: &[&str]) -> bool {
        ip(&[&["-n", &self.name], args].concat())
    }

    /// Joins the networks that a switch connects, with this address.
    ///
    /// # Panics
    /// If the devices cannot be created.
    pub fn connect(&self, switch: &Switch, address: Ipv4Addr) {
        let port = format!("p{}", address.octets()[3]);
        let (own, its) = (self.name.as_str(), switch.0.name.as_str());
        let with_length = format!("{address}/24");
        for args in [
            &["-n", own, "link", "add", "eth0", "type", "veth", "peer", "name", &port, "netns", its][..],
            &["-n", its, "link", "set", &port, "master", "bridge", "up"],
            &["-n", own, "address", "add", &with_length, "dev", "eth0"],
            &["-n", own, "link", "set", "eth0", "up"],
        ] {
            assert!(ip(args), "ip {args:?}");
        }
    }

    /// The words before a command that runs in this network.
    pub(crate) fn prefix(&self) -> Vec<String> {
        ["ip", "netns", "exec", &self.name].map(str::to_owned).to_vec()
    }

    /// Starts a program of this machine in the network.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn start(&self, program: &str, args: &[String], log: &Path) -> Process {
        let mut line = self.prefix();
        line.push(program.to_owned());
        line.extend_from_slice(args);
        Process::start(Path::new(&line[0]), &line[1..], log)
    }

    /// Sends an HTTP request to a port of loopback in the network. Returns the answer, with its head.
    ///
    /// # Errors
    /// The port cannot be reached.
    pub fn request(&self, port: u16, method: &str, path: &str) -> Result<String, String> {
        let script = format!(
            "exec 3<>/dev/tcp/127.0.0.1/{port} && printf '%s %s HTTP/1.0\\r\\nHost: localhost\\r\\n\\r\\n' \"$1\" \"$2\" >&3 && cat <&3"
        );
        let mut line = self.prefix();
        line.extend(["bash", "-c", &script, "bash", method, path].map(str::to_owned));
        let output = Command::new(&line[0]).args(&line[1..]).output().map_err(|error| error.to_string())?;
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // It stays only if a process is left in it.
        drop(Command::new("ip").args(["netns", "del", &self.name]).output());
    }
}

/// A switch, in a network of its own.
pub struct Switch(Network);

impl Switch {
    /// Creates it. If that is not possible, prints that `what` is skipped.
    pub fn create(name: &str, what: &str) -> Option<Self> {
        let network = Network::create(name, what)?;
        let added = ip(&["-n", &network.name, "link", "add", "bridge", "type", "bridge"])
            && ip(&["-n", &network.name, "link", "set", "bridge", "up"]);
        if !added {
            println!("skipped: {what} (no bridge can be created here)");
        }
        added.then_some(Self(network))
    }
}
