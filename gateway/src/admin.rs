//! The admin socket: what a running gateway tells those who run it, and what they may change.
//!
//! A Unix socket in the data directory (`admin.sock`, mode 0600) serves HTTP with JSON, so that only the user of the gateway
//! and root can connect. The commands `isthmus gateway status`, `peers` and so on are its clients; so is
//! `curl --unix-socket`. Addresses of targets are shown here and nowhere else.
//!
//! Reading order: [`report`] (what is shown), `view` (where it comes from), `server`, `client`.

pub(crate) mod client;
pub(crate) mod report;
pub(crate) mod server;
pub(crate) mod view;

use std::path::{Path, PathBuf};

/// The socket of the gateway with this data directory.
pub(crate) fn socket_path(data_dir: &Path) -> PathBuf {
    data_dir.join("admin.sock")
}
