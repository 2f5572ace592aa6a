//! Tests of the flags.

use clap::Parser;
use storeapi::LabelLimits;

use super::*;

#[derive(Parser)]
struct QueryCommand {
    #[command(flatten)]
    args: QueryArgs,
}

fn check(args: &[&str]) -> Result<Config, String> {
    let args = std::iter::once("query").chain(args.iter().copied());
    let command = QueryCommand::try_parse_from(args).map_err(|e| e.to_string())?;
    command.args.check().map_err(|e| e.to_string())
}

#[test]
fn defaults_are_those_of_thanos() {
    let config = check(&[]).unwrap();
    assert_eq!(config.args.timeout, Duration::from_secs(120));
    assert_eq!(config.args.max_concurrent, 20);
    assert_eq!(config.partial_response(), PartialResponse::Warn);
    assert!(config.max_memory >= 64 << 20 && config.max_memory <= config.max_total_memory);
    assert_eq!(config.max_total_samples, 1_000_000_000);
}

#[test]
fn replica_labels_are_separated_by_commas_or_repeated() {
    let config = check(&["--query.replica-label=a,b", "--query.replica-label=c,", "--query.replica-label="]);
    assert_eq!(config.unwrap().args.replica_labels(), ["a", "b", "c"]);
}

#[test]
fn flags_are_parsed_into_the_configuration() {
    let config = check(&[
        "--endpoint=a:1",
        "--endpoint=dns+b:2",
        "--gateway=127.0.0.1:10941",
        "--grpc-compression=snappy",
        "--no-query.partial-response",
        "--selector-label=tier=\"x\"",
        "--query.max-memory=1.5GiB",
        "--query.max-total-memory=2GiB",
        "--enable-feature=promql-experimental-functions",
    ])
    .unwrap();
    assert_eq!(config.args.endpoint.len(), 2);
    assert_eq!(config.partial_response(), PartialResponse::Abort);
    assert_eq!(config.selector_labels.get("tier"), Some("x"));
    assert_eq!((config.max_memory, config.max_total_memory), (3 << 29, 2 << 30));
    assert_eq!(config.flags()["endpoint"], "a:1,dns+b:2");
    assert_eq!(config.channel.compression, Some(mesh::MessageEncoding::Snappy));
    assert_eq!(config.flags()["grpc-compression"], "snappy");
    assert!(config.has(Feature::ExperimentalFunctions) && !config.has(Feature::XFunctions));
}

/// Prometheus has no such limits by default. What comes over the mesh is trusted less.
#[test]
fn limits_on_labels_are_off_for_endpoints_and_high_for_stores_of_gateways() {
    let labels = |args: &[&str]| check(args).unwrap().args.labels;
    let off = LabelLimits { flags: "--endpoint", ..LabelLimits::OFF };
    assert_eq!(labels(&[]).endpoint(), off);
    let mesh = labels(&[]).gateway();
    assert_eq!((mesh.labels, mesh.name_bytes, mesh.value_bytes), (Some(1000), Some(16 << 10), Some(1 << 20)));
    let set = labels(&["--endpoint.label-value-length-limit=9", "--gateway.label-limit=0"]);
    assert_eq!((set.endpoint().value_bytes, set.gateway().labels), (Some(9), None));
}

#[test]
fn flags_for_tls_are_those_of_thanos() {
    let config = check(&[
        "--grpc-client-tls-secure",
        "--grpc-client-tls-skip-verify",
        "--grpc-client-tls-cert=",
        "--grpc-client-tls-key=",
        "--grpc-client-tls-ca=",
        "--grpc-client-server-name=store.example",
        "--grpc-client-tls-min-version=1.2",
    ]);
    assert!(config.unwrap().channel.tls.is_some());
    assert!(check(&["--grpc-client-server-name=x"]).unwrap().channel.tls.is_none(), "as in Thanos");
    for (flags, expected) in [
        (&["--grpc-client-tls-cert=a"][..], "only one of them is given, give both"),
        (&["--grpc-client-tls-secure", "--grpc-client-tls-ca=/no/such"], "/no/such: cannot be read"),
        (&["--grpc-client-tls-min-version=2"], "expected 1.2 or 1.3"),
        (&["--grpc-compression=lz4"], "none, gzip, snappy, zstd"),
    ] {
        let error = check(flags).unwrap_err();
        assert!(error.contains(expected), "{flags:?}: {error}");
    }
}

#[test]
fn x_functions_are_enabled_by_thanos_flag_or_by_feature() {
    for flag in ["--query.enable-x-functions", "--enable-feature=promql-x-functions"] {
        assert!(check(&[flag]).unwrap().has(Feature::XFunctions), "{flag}");
    }
}

#[test]
fn all_mistakes_are_reported_together_with_their_flags() {
    for (args, parts) in [
        (&["--endpoint=nowhere"][..], &["\"nowhere\"", "HOST:PORT"][..]),
        (&["--query.timeout=soon"], &["is not a duration"]),
        (&["--selector-label=x"], &["NAME=\"VALUE\""]),
        (&["--query.max-memory=lots"], &["\"lots\"", "512MiB"]),
        (
            &["--endpoint-strict=dns+a:1", "--query.max-concurrent=0", "--query.timeout=0s"],
            &["--endpoint-strict=dns+a:1", "--query.max-concurrent=0", "--query.timeout=0s"],
        ),
    ] {
        let error = check(args).err().unwrap();
        for part in parts {
            assert!(error.contains(part), "{args:?}: {error}");
        }
    }
}
