//! Rolling restarts of every role under load: no query fails.
//!
//! A query fails if it is not answered, or if its answer lacks something, with or without a warning. Where a role has two
//! processes, the next one is restarted when the first one is read again, as a rolling update should wait.
//!
//! `ISTHMUS_RESTARTS` is the number of restarts of each role, `ISTHMUS_TRANSPORTS` lists the transports. `ISTHMUS_PAUSE_MILLISECONDS`
//! is added to the random time before each restart, which `ISTHMUS_SEED` decides: a connection that lasted less than 2 s is not dialled
//! again at once.

mod load;
mod scene;

use std::time::{Duration, Instant};

use crate::rolling_restarts::load::{Load, Outcome};
use crate::rolling_restarts::scene::{Scene, Size};

/// Queries a second.
const RATE: u32 = 200;

fn number(variable: &str, usual: u64) -> u64 {
    std::env::var(variable).ok().and_then(|number| number.parse().ok()).unwrap_or(usual)
}

/// Numbers that look random, below a bound.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// Restarts the programs of `roles` one after the other while queries run. Returns the failed queries.
fn restart_under_load(scene: &mut Scene, roles: &[&str], transport: &str) -> Vec<String> {
    let (restarts, seed) = (number("ISTHMUS_RESTARTS", 2), number("ISTHMUS_SEED", 1));
    let pause = number("ISTHMUS_PAUSE_MILLISECONDS", 0);
    let mut random = Random(seed);
    let questions = scene.questions();
    let load = Load::start(scene.queriers(), questions.clone(), RATE);
    let mut failed = Vec::new();
    for name in roles {
        let (begun, mut slowest) = (Instant::now(), Duration::ZERO);
        for restart in 0..restarts {
            std::thread::sleep(Duration::from_millis(pause + random.below(200)));
            let role = scene.roles.iter_mut().find(|role| role.name == *name).expect("a role");
            let which = usize::try_from(restart).expect("few restarts") % role.programs.len();
            let restarted = Instant::now();
            role.programs[which].restart();
            slowest = slowest.max(restarted.elapsed());
            scene.wait_whole();
            scene.wait_without_warnings(&questions);
        }
        let Outcome { asked, second, warned, slowest: query, failed: lost } = load.so_far();
        println!(
            "{transport}, seed {seed}: {restarts} restarts of the {name} in {:.1?} (the slowest {slowest:.1?}): {asked} queries, \
             {second} asked the second querier, {warned} complete with a warning, {} failed, the slowest {query:.1?}",
            begun.elapsed(),
            lost.len(),
        );
        failed.extend(lost.into_iter().map(|why| format!("{name}: {why}")));
    }
    let rate = load.stop();
    println!("{transport}, seed {seed}: {rate:.0} queries a second");
    failed
}

fn check(size: Size, roles: &[&str], usual: &str) {
    let transports = std::env::var("ISTHMUS_TRANSPORTS").unwrap_or_else(|_| usual.to_owned());
    for transport in transports.split(',') {
        let mut scene = Scene::start(transport, size);
        let failed = restart_under_load(&mut scene, roles, transport);
        assert!(
            failed.is_empty(),
            "{transport}: {} failed: {:#?}",
            failed.len(),
            &failed[..failed.len().min(5)]
        );
    }
}

#[test]
fn rolling_restarts_of_every_role_fail_no_query() {
    let roles =
        ["observability gateway", "cluster gateway", "sidecar", "scraper", "store", "ruler", "querier"];
    check(Size::Everything, &roles, "quic");
}

#[test]
fn restarts_of_the_only_observability_gateway_fail_no_query() {
    check(Size::Single, &["observability gateway"], "tcp,quic");
}
