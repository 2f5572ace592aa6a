//! A gateway process that can be started again.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::process::{Process, free_port, isthmus};

/// How a gateway is started.
#[derive(Clone, Debug)]
pub struct GatewayCommand {
    name: String,
    args: Vec<String>,
    log: PathBuf,
    /// Address of its HTTP port.
    pub http: SocketAddr,
    /// Address of its local gRPC port.
    pub grpc: SocketAddr,
}

impl GatewayCommand {
    /// Writes the configuration of a gateway into `dir`. With `token`, it joins with the token in this file.
    ///
    /// # Panics
    /// If the configuration cannot be written.
    pub fn new(dir: &Path, name: &str, yaml: &str, token: Option<&Path>) -> Self {
        let config = dir.join(format!("{name}.yaml"));
        fs::write(&config, yaml).expect("a file");
        let (http, grpc) = (free_port(), free_port());
        let mut args = vec![
            "gateway".to_owned(),
            format!("--config={}", config.display()),
            format!("--http-address={http}"),
            format!("--grpc-address={grpc}"),
        ];
        args.extend(token.map(|file| format!("--join-file={}", file.display())));
        Self { name: name.to_owned(), args, log: dir.join(format!("{name}.log")), http, grpc }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Starts it.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn start(&self) -> Process {
        Process::start(&isthmus(), &self.args, &self.log)
    }

    /// Starts it with more variables in its environment, `NAME=VALUE` each.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn start_with(&self, environment: &[String]) -> Process {
        let program = isthmus().display().to_string();
        let args = [environment, &[program][..], &self.args[..]].concat();
        Process::start(Path::new("env"), &args, &self.log)
    }

    /// Starts it, and waits until it is ready.
    ///
    /// # Panics
    /// If it does not become ready in time.
    pub fn start_ready(&self) -> Process {
        let mut process = self.start();
        process.wait_ready(&format!("gateway {}", self.name), self.http);
        process
    }
}
