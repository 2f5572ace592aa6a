//! `deploy/compose` started as a whole: each service in a network and a root of its own, with the volumes and the user of the image.
//!
//! No container engine is needed: what it would do, namespaces of the kernel do. Names of services are in `/etc/hosts`.

use std::collections::BTreeMap;
use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use tests::container::{Container, Image, stop};
use tests::{Network, Process, Switch, wait_for};

const PATIENCE: Duration = Duration::from_secs(60);

/// The user of the image.
const USER: u32 = 65_534;

/// What a compose file has here. Another field is refused, so that nothing in it is ignored.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ComposeFile {
    #[serde(rename = "name")]
    _name: String,
    #[serde(rename = "x-role")]
    _role: serde_json::Value,
    #[serde(rename = "x-once")]
    _once: serde_json::Value,
    #[serde(rename = "x-always")]
    _always: serde_json::Value,
    services: BTreeMap<String, Service>,
    volumes: BTreeMap<String, Option<()>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Service {
    image: String,
    read_only: bool,
    cap_drop: Vec<String>,
    security_opt: Vec<String>,
    stop_grace_period: String,
    restart: String,
    command: Vec<String>,
    #[serde(default)]
    volumes: Vec<String>,
    #[serde(default)]
    depends_on: BTreeMap<String, Dependency>,
    #[serde(default)]
    ports: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Dependency {
    condition: String,
}

/// The machine on which the file is started.
struct Machine {
    dir: tempfile::TempDir,
    image: Image,
    file: ComposeFile,
    networks: BTreeMap<String, Network>,
    _switch: Switch,
}

impl Machine {
    fn new() -> Option<Self> {
        let what = "the compose file as a whole";
        let dir = tempfile::tempdir().expect("a folder");
        let image = Image::build(dir.path(), what)?;
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/compose");
        let text = fs::read_to_string(source.join("compose.yaml")).expect("the compose file");
        let file: ComposeFile = serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{error}"));
        let switch = Switch::create("compose", what)?;
        let mut hosts = "127.0.0.1 localhost\n".to_owned();
        let mut networks = BTreeMap::new();
        for (at, name) in file.services.keys().enumerate() {
            let address = Ipv4Addr::new(10, 0, 0, u8::try_from(at + 1).expect("few services"));
            let network = Network::create(&format!("compose-{name}"), what)?;
            network.connect(&switch, address);
            hosts.push_str(&format!("{address} {name}\n"));
            networks.insert(name.clone(), network);
        }
        fs::write(dir.path().join("hosts"), hosts).expect("a file");
        // The folder of the file, with the passphrase that the page lets its reader write.
        let project = dir.path().join("project");
        fs::create_dir(&project).expect("a folder");
        for entry in fs::read_dir(&source).expect("the folder") {
            let entry = entry.expect("an entry");
            fs::copy(entry.path(), project.join(entry.file_name())).expect("a copy");
        }
        fs::write(project.join("passphrase"), "only a test\n").expect("a file");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("a mode");
        for volume in file.volumes.keys() {
            // A new volume has the owner of the folder in the image.
            let folder = dir.path().join("volumes").join(volume);
            fs::create_dir_all(&folder).expect("a folder");
            chown(&folder, Some(USER), Some(0)).expect("an owner");
        }
        Some(Self { dir, image, file, networks, _switch: switch })
    }

    /// Folder, place and whether it is read-only, of each volume of a service.
    fn mounts(&self, service: &Service) -> Vec<(PathBuf, String, bool)> {
        let mount = |volume: &String| {
            let parts: Vec<&str> = volume.split(':').collect();
            let folder = match parts[0] {
                "." => self.dir.path().join("project"),
                name => {
                    assert!(self.file.volumes.contains_key(name), "volume {name} is not declared");
                    self.dir.path().join("volumes").join(name)
                }
            };
            (folder, parts[1].to_owned(), parts.get(2) == Some(&"ro"))
        };
        service.volumes.iter().map(mount).collect()
    }

    fn start(&self, name: &str) -> Process {
        let service = &self.file.services[name];
        let mut container = Container::new(&self.image, USER, USER)
            .within(&self.networks[name])
            .with(&self.dir.path().join("hosts"), "/etc/hosts");
        for (folder, place, is_read_only) in self.mounts(service) {
            container = match is_read_only {
                true => container.with(&folder, &place),
                false => container.with_writable(&folder, &place),
            };
        }
        container.start(&service.command, &self.dir.path().join(format!("{name}.log")))
    }

    /// Starts every service after those that it waits for, which end with 0. Returns those that run.
    fn up(&self) -> BTreeMap<&str, Process> {
        let (mut done, mut running) = (Vec::new(), BTreeMap::new());
        let mut left: Vec<(&str, &Service)> =
            self.file.services.iter().map(|(name, service)| (name.as_str(), service)).collect();
        while !left.is_empty() {
            let is_free = |(_, service): &(&str, &Service)| {
                service.depends_on.keys().all(|name| done.contains(&name.as_str()))
            };
            let (free, rest): (Vec<_>, Vec<_>) = left.into_iter().partition(is_free);
            assert!(!free.is_empty(), "services that wait for each other: {rest:?}");
            left = rest;
            for (name, service) in free {
                let mut process = self.start(name);
                if service.restart == "no" {
                    assert_eq!(process.wait_end(), Some(0), "{name}: {}", process.output());
                    done.push(name);
                } else {
                    running.insert(name, process);
                }
            }
        }
        running
    }
}

#[test]
fn the_compose_file_is_started_as_a_whole_and_answers() {
    let Some(machine) = Machine::new() else { return };
    for (name, service) in &machine.file.services {
        assert!(service.read_only && service.cap_drop == ["ALL"], "{name}");
        assert_eq!(service.security_opt, ["no-new-privileges:true"], "{name}");
        assert!(service.image.contains("isthmus") && !service.stop_grace_period.is_empty(), "{name}");
        for (other, dependency) in &service.depends_on {
            assert_eq!(dependency.condition, "service_completed_successfully", "{name}: {other}");
            assert_eq!(machine.file.services[other].restart, "no", "{name}: {other}");
        }
    }
    println!("every service starts");
    let mut running = machine.up();
    let published = &machine.file.services["query"].ports[0];
    let port: u16 = published.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
    let query = |expression: &str| {
        let path = format!("/api/v1/query?query={}", tests::percent_encode(expression));
        machine.networks["query"].request(port, "GET", &path)
    };
    println!("the command of the page finds both clusters, without a warning");
    wait_for("both clusters", PATIENCE, || {
        let answer = query("count by (cluster) (up)")?;
        let is_whole = ["eu-1", "us-1"].iter().all(|cluster| answer.contains(&format!("\"{cluster}\"")));
        if is_whole && !answer.contains("\"warnings\"") { Ok(()) } else { Err(answer) }
    });
    println!("both replicas of eu-1, and the ruler over all of it");
    wait_for("a recorded series", PATIENCE, || {
        let answer = query("count(cluster:up:count)")?;
        if answer.contains("\"2\"]") { Ok(()) } else { Err(answer) }
    });
    for (name, process) in &mut running {
        assert!(process.is_running(), "{name}: {}", process.output());
        assert_eq!(stop(process), Some(0), "{name}: {}", process.output());
        let log = process.output();
        assert!(!log.contains("level=error") && !log.contains("panicked"), "{name}: {log}");
    }
}
