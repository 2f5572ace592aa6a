//! The role over real sockets.

mod alerts;
mod operator;
mod prometheus;
mod querier;
mod reload;
mod restore;
mod served;
mod short_lives;
mod slow;
mod world;

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use runtime::RunningRole;
use serde_json::{Value, json};
use tempfile::TempDir;

use world::*;
