//! Names whose first address is dead: an IPv6 address to which packets vanish. Every connection by name uses the second one.
//!
//! All processes are in one network namespace, with a device behind which no machine is, and with a file of hosts of their own.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use tests::{Network, Process, create_named_token, create_trust_domain, free_port, isthmus, wait_for};

const PATIENCE: Duration = Duration::from_secs(60);
const DEAD: &str = "2001:db8:77::2";
/// The names of the observability gateway and of the store.
const NAMES: [&str; 2] = ["gateway.test", "store.test"];

/// Adds a device whose other end has no addresses. The neighbour is known, so that the kernel sends packets to it and reports no error.
fn add_dead_route(network: &Network) -> bool {
    [
        &["link", "add", "void", "type", "veth", "peer", "name", "nowhere"][..],
        &["address", "add", "2001:db8:77::1/64", "dev", "void", "nodad"],
        &["link", "set", "void", "up"],
        &["link", "set", "nowhere", "up"],
        &["neighbour", "add", DEAD, "lladdr", "02:00:00:00:00:02", "dev", "void", "nud", "permanent"],
    ]
    .iter()
    .all(|args| network.ip(args))
}

/// Starts a program that finds `hosts` as `/etc/hosts`. The mounts in the network are its own.
fn start(network: &Network, hosts: &Path, args: &[String], log: &Path) -> Process {
    let script = r#"mount --bind "$0" /etc/hosts && exec "$@""#;
    let line = ["-c".to_owned(), script.to_owned(), hosts.display().to_string()];
    network.start("sh", &[&line[..], args].concat(), log)
}

/// Checks that programs find the dead address first, and that a connection to it has no end.
fn check_hosts(network: &Network, hosts: &Path, dir: &Path) {
    let run = |args: &[&str]| {
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        let mut process = start(network, hosts, &args, &dir.join("check.log"));
        (process.wait_end(), process.output())
    };
    let (status, found) = run(&["getent", "ahosts", NAMES[0]]);
    assert!(status == Some(0) && found.starts_with(DEAD), "{found}");
    let connect = format!("exec 3<>/dev/tcp/{DEAD}/80");
    let (status, output) = run(&["timeout", "0.5", "bash", "-c", &connect]);
    assert_eq!(status, Some(124), "{output}");
}

struct World<'a> {
    network: &'a Network,
    dir: &'a Path,
}

impl World<'_> {
    fn start(&self, name: &str, args: &[String]) -> Process {
        let line = [&[isthmus().display().to_string()][..], args].concat();
        start(self.network, &self.dir.join("hosts"), &line, &self.dir.join(format!("{name}.log")))
    }

    fn write(&self, name: &str, text: &str) -> String {
        let file = self.dir.join(name);
        fs::write(&file, text).expect("a file");
        file.display().to_string()
    }

    fn gateway(&self, name: &str, yaml: &str, more: &[String]) -> (Process, SocketAddr) {
        let (http, grpc) = (free_port(), free_port());
        let config = self.write(&format!("{name}.yaml"), yaml);
        let own = [
            "gateway".to_owned(),
            format!("--config={config}"),
            format!("--http-address={http}"),
            format!("--grpc-address={grpc}"),
        ];
        (self.start(name, &[&own[..], more].concat()), grpc)
    }

    /// A querier that is asked for the series of the store.
    fn querier(&self, name: &str, store: &str) -> (Process, SocketAddr) {
        let (http, grpc) = (free_port(), free_port());
        let args = [
            "query".to_owned(),
            store.to_owned(),
            format!("--http-address={http}"),
            format!("--grpc-address={grpc}"),
        ];
        (self.start(name, &args), http)
    }

    fn wait_for_series(&self, what: &str, querier: SocketAddr) {
        wait_for(&format!("a series {what}"), PATIENCE, || {
            let answer = self.network.request(querier.port(), "GET", "/api/v1/query?query=up")?;
            if answer.contains(r#""cluster":"eu-1""#) { Ok(()) } else { Err(answer) }
        });
    }
}

fn the_second_address_is_used_over(transport: &str) {
    let what = "names with a dead address";
    let Some(network) = Network::create(&format!("dead-{transport}"), what) else { return };
    if !add_dead_route(&network) {
        println!("skipped: {what} (no device with IPv6 can be created here)");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let world = World { network: &network, dir: folder.path() };
    let lines = NAMES.map(|name| format!("{DEAD} {name}\n127.0.0.1 {name}\n"));
    world.write("hosts", &format!("127.0.0.1 localhost\n{}", lines.concat()));
    check_hosts(&network, &world.dir.join("hosts"), world.dir);

    let (mesh, store) = (free_port(), free_port());
    let scraped = free_port();
    let config = format!(
        "global:\n  scrape_interval: 1s\n  external_labels: {{cluster: eu-1, environment: testing, replica: a}}\n\
         scrape_configs:\n- job_name: own\n  static_configs: [{{targets: ['{scraped}']}}]\n"
    );
    let args = [
        "scrape".to_owned(),
        format!("--config.file={}", world.write("prometheus.yml", &config)),
        format!("--data-dir={}", world.dir.join("data").display()),
        format!("--http-address={scraped}"),
        format!("--grpc-address={store}"),
    ];
    let _scraper = world.start("scraper", &args);
    let state = create_trust_domain(world.dir);
    let yaml = format!(
        "role: observability\ndata_dir: observability\ntransport: {transport}\npki: {{state: {}}}\nlisten: {mesh}\n",
        state.display()
    );
    let (_observability, grpc) = world.gateway("observability", &yaml, &[]);
    let token = world.dir.join("eu-1.token");
    create_named_token(&state, "eu-1", &format!("{}:{}", NAMES[0], mesh.port()), &token);
    let yaml = format!(
        "role: cluster\ndata_dir: eu-1\ntransport: {transport}\ntargets: [{{name: scraper-0, address: '{}:{}'}}]\n",
        NAMES[1],
        store.port()
    );
    let began = Instant::now();
    let (_cluster, _) = world.gateway("eu-1", &yaml, &[format!("--join-file={}", token.display())]);
    let (_querier, http) = world.querier("querier", &format!("--gateway={grpc}"));
    world.wait_for_series("through the mesh", http);
    println!("{transport}: a series through the mesh {:?} after the gateway was started", began.elapsed());
    let began = Instant::now();
    let (_querier, http) = world.querier("direct", &format!("--endpoint={}:{}", NAMES[1], store.port()));
    world.wait_for_series("from the store", http);
    println!("a series from the store {:?} after the querier was started", began.elapsed());
}

#[test]
fn names_with_a_dead_first_address_work_over_quic() {
    the_second_address_is_used_over("quic");
}

#[test]
fn names_with_a_dead_first_address_work_over_tcp() {
    the_second_address_is_used_over("tcp");
}
