//! The benchmarks: `./tests/bench [--json] [NAME...]`.

mod bucket_bench;
mod compactor_bench;
mod delay;
mod envoy;
mod h2load;
mod head_bench;
mod idle_fleet_bench;
mod load;
mod mesh_bench;
mod moto;
mod promql_bench;
mod promql_plan_bench;
mod querier_bench;
mod remotewrite_bench;
mod report;
mod ruler_bench;
mod scrape_bench;
mod sidecar_bench;
mod source;
mod store_bench;
mod stores;
mod stores_bench;
mod tsdb_bench;

use std::process::ExitCode;

use report::BenchReport;

/// The name of a benchmark and its function.
type Bench = (&'static str, fn(&mut BenchReport));

const BENCHES: &[Bench] = &[
    ("promql", promql_bench::run),
    ("promql-plan", promql_plan_bench::run),
    ("tsdb", tsdb_bench::run),
    ("head", head_bench::run),
    ("scrape", scrape_bench::run),
    ("remotewrite", remotewrite_bench::run),
    ("bucket", bucket_bench::run),
    ("compactor", compactor_bench::run),
    ("ruler", ruler_bench::run),
    ("mesh", mesh_bench::run),
    ("mesh-vs-envoy", mesh_bench::run_versus),
    ("idle-fleet", idle_fleet_bench::run),
    ("sidecar", sidecar_bench::run),
    ("store", store_bench::run),
    ("store-vs-prometheus", store_bench::run_versus),
    ("querier", querier_bench::run),
    ("stores", stores_bench::run),
    ("aging", stores_bench::run_aging),
];

fn main() -> ExitCode {
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    if let [role, address, cluster] = args.as_slice()
        && role == source::ROLE
    {
        source::serve(address, cluster);
        return ExitCode::SUCCESS;
    }
    if let [role, shape] = args.as_slice()
        && role == stores::ROLE
    {
        stores::serve(shape);
        return ExitCode::SUCCESS;
    }
    if let [role, case] = args.as_slice()
        && role == promql_bench::ROLE
    {
        promql_bench::run_case(case);
        return ExitCode::SUCCESS;
    }
    if let [role, stage] = args.as_slice()
        && role == tsdb_bench::ROLE
    {
        tsdb_bench::run_stage(stage);
        return ExitCode::SUCCESS;
    }
    if let [role, stage] = args.as_slice()
        && role == bucket_bench::ROLE
    {
        bucket_bench::run_stage(stage);
        return ExitCode::SUCCESS;
    }
    if let [role, stage] = args.as_slice()
        && role == compactor_bench::ROLE
    {
        compactor_bench::run_stage(stage);
        return ExitCode::SUCCESS;
    }
    if let [role, stage] = args.as_slice()
        && role == head_bench::ROLE
    {
        head_bench::run_stage(stage);
        return ExitCode::SUCCESS;
    }
    if let [role, stage @ ..] = args.as_slice()
        && role == scrape_bench::ROLE
    {
        scrape_bench::run_stage(stage);
        return ExitCode::SUCCESS;
    }
    if let [role, stage @ ..] = args.as_slice()
        && role == remotewrite_bench::ROLE
    {
        remotewrite_bench::run_stage(stage);
        return ExitCode::SUCCESS;
    }
    let json = args.iter().any(|arg| arg == "--json");
    args.retain(|arg| arg != "--json");
    if let Some(unknown) = args.iter().find(|arg| !BENCHES.iter().any(|(name, _)| name == arg)) {
        let names: Vec<&str> = BENCHES.iter().map(|(name, _)| *name).collect();
        eprintln!("error: unknown benchmark {unknown:?}; expected one of {}", names.join(", "));
        return ExitCode::from(2);
    }
    let mut report = BenchReport::new(json);
    for (name, run) in BENCHES {
        if args.is_empty() || args.iter().any(|arg| arg == name) {
            run(&mut report);
        }
    }
    ExitCode::SUCCESS
}
