//! Cluster bundles: what is written, and which ones are refused.

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use rand::{Rng, SeedableRng, rngs::StdRng};

use super::*;
use crate::cluster_bundle::BundleFormat;

/// An environment with the characters that a quoted text must survive.
const ENVIRONMENT: &str = "pro'd$HOME\"\\#:";

/// The environment of the test in a format. Objects of Kubernetes have it in several kinds of quotes.
fn environment(format: &str) -> &'static str {
    if format == "kubernetes" { "production" } else { ENVIRONMENT }
}

/// Writes a bundle of cluster eu-1, and returns its folder or file.
fn bundle(test: &TestPki, format: &str, more: &[&str]) -> PathBuf {
    let (state, out) = (test.state(), test.dir.path().join(format!("eu-1-{format}")));
    let line = ["cluster", "bundle", "--state", state.to_str().unwrap(), "--format", format];
    let out_text = out.to_str().unwrap();
    let token = ["--cluster", "eu-1", "--environment", environment(format), "--address", "gw.example:10943"];
    let (code, printed) = pki(&[&line[..], &token, &["--out", out_text], more].concat());
    assert_eq!(code, 0, "{printed}");
    assert!(
        printed.contains("joins cluster eu-1 once, until 2") && !printed.contains(TOKEN_PREFIX),
        "{printed}"
    );
    out
}

fn formats() -> Vec<String> {
    let formats = BundleFormat::value_variants().iter();
    formats.map(|format| format.to_possible_value().unwrap().get_name().to_owned()).collect()
}

fn verify(path: &Path, more: &[&str]) -> (u8, String) {
    pki(&[&["cluster", "bundle", "verify", path.to_str().unwrap()], more].concat())
}

/// Checks that a bundle is refused, with one reason that contains `expected`.
fn refused(path: &Path, more: &[&str], expected: &str) {
    let (code, printed) = verify(path, more);
    assert_eq!(code, 4, "{printed}");
    let reasons: Vec<&str> = printed.lines().filter(|line| line.starts_with("REFUSED: ")).collect();
    assert!(reasons.len() == 1 && reasons[0].contains(expected), "{expected}: {printed}");
}

fn files(path: &Path) -> Vec<PathBuf> {
    match path.is_dir() {
        true => fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect(),
        false => vec![path.to_owned()],
    }
}

/// Replaces a text in each file of a bundle; at least one file has it.
fn edit(path: &Path, from: &str, to: &str) {
    let mut found = false;
    for file in files(path) {
        let text = fs::read_to_string(&file).unwrap();
        found |= text.contains(from);
        fs::write(&file, text.replace(from, to)).unwrap();
    }
    assert!(found, "{from} is in no file of {}", path.display());
}

#[test]
fn verify_says_what_a_bundle_of_each_format_does() {
    for format in formats() {
        let test = TestPki::new();
        let out = bundle(&test, &format, &[]);
        for file in files(&out) {
            assert_eq!(
                fs::metadata(&file).unwrap().permissions().mode() & 0o777,
                0o600,
                "{}",
                file.display()
            );
        }
        let (code, printed) = verify(&out, &["--trust-domain", "test.example"]);
        assert_eq!(code, 0, "{printed}");
        for expected in [
            "spiffe://test.example/cluster/eu-1/gateway",
            "spiffe://test.example/cluster/observability/gateway",
            "gw.example:10943, UDP and TCP",
            "can be used once, until 2",
            "trust domain  test.example",
            &format!("environment   {}", environment(&format)),
            "all series, samples of any age, with Info, Series, LabelNames, LabelValues, MetricMetadata",
            "creates       ",
        ] {
            assert!(printed.contains(expected), "{format}: {expected}: {printed}");
        }
        assert!(!printed.contains(TOKEN_PREFIX), "{printed}");
        let shown = object(&["cluster", "bundle", "verify", out.to_str().unwrap(), "--json"]);
        assert_eq!(shown["refused"], false);
        // The issuer knows more.
        let state = test.state();
        let with_state = ["--state", state.to_str().unwrap()];
        assert_eq!(verify(&out, &with_state).0, 0);
        let tokens = object(&[&["token", "list", "--json"][..], &with_state].concat());
        let id = tokens["tokens"][0]["id"].as_str().unwrap();
        assert_eq!(pki(&[&["token", "revoke", "--yes", id][..], &with_state].concat()).0, 0);
        refused(&out, &with_state, "is revoked; make a new bundle");
    }
}

#[test]
fn each_gateway_of_a_bundle_has_a_token_of_its_own() {
    for format in ["kubernetes", "helm"] {
        let test = TestPki::new();
        let (state, out) = (test.state(), test.dir.path().join(format));
        let line =
            ["cluster", "bundle", "--state", state.to_str().unwrap(), "--format", format, "--gateways", "3"];
        let about = ["--cluster", "eu-1", "--environment", "production", "--address", "gw.example:10943"];
        let (code, printed) = pki(&[&line[..], &about, &["--out", out.to_str().unwrap()]].concat());
        assert_eq!(code, 0, "{printed}");
        assert!(
            printed.contains("The 3 tokens in it join 3 gateways of cluster eu-1, each once, until 2"),
            "{printed}"
        );
        let text: String = files(&out).iter().map(|file| fs::read_to_string(file).unwrap()).collect();
        for key in ["token-0: ", "token-1: ", "token-2: ", "replicas: 3"] {
            assert_eq!(text.matches(key).count(), 1, "{key}: {text}");
        }
        assert!(!text.contains("9999") && !text.contains("placeholder"), "{text}");
        let tokens = object(&["token", "list", "--json", "--state", state.to_str().unwrap()]);
        let ids: Vec<&str> =
            tokens["tokens"].as_array().unwrap().iter().map(|t| t["id"].as_str().unwrap()).collect();
        assert_eq!(ids.len(), 3);
        // Each is described, so that `verify` knows its end.
        let (code, printed) = verify(&out, &[]);
        assert_eq!(code, 0, "{printed}");
        for id in &ids {
            assert!(printed.contains(&format!("{id} can be used once, until 2")), "{id}: {printed}");
        }
        // One that was revoked is named.
        assert_eq!(pki(&["token", "revoke", "--yes", ids[1], "--state", state.to_str().unwrap()]).0, 0);
        refused(&out, &["--state", state.to_str().unwrap()], &format!("{} is revoked", ids[1]));
    }
}

#[test]
fn a_bundle_for_a_machine_has_one_gateway() {
    let test = TestPki::new();
    let (state, out) = (test.state(), test.dir.path().join("eu-1"));
    for (format, gateways, expected) in [
        ("systemd", "2", "make a bundle for each machine"),
        ("compose", "3", "make a bundle for each machine"),
    ] {
        let line = [
            "cluster",
            "bundle",
            "--state",
            state.to_str().unwrap(),
            "--format",
            format,
            "--gateways",
            gateways,
        ];
        let about = ["--cluster", "eu-1", "--environment", "production", "--address", "gw.example:10943"];
        let (code, printed) = pki(&[&line[..], &about, &["--out", out.to_str().unwrap()]].concat());
        assert!(code == 2 && printed.contains(expected), "{code} {printed}");
        assert!(
            object(&["token", "list", "--json", "--state", state.to_str().unwrap()])["tokens"]
                == serde_json::json!([])
        );
    }
}

/// A token does not say which environment its cluster is in; the issuer does.
#[test]
fn an_environment_that_is_not_registered_is_refused_by_the_issuer() {
    for format in formats() {
        let test = TestPki::new();
        let (state, out) = (test.state(), test.dir.path().join(&format));
        let line = ["cluster", "bundle", "--state", state.to_str().unwrap(), "--format", &format];
        let about = ["--cluster", "eu-1", "--environment", "production", "--address", "gw.example:10943"];
        let (code, printed) = pki(&[&line[..], &about, &["--out", out.to_str().unwrap()]].concat());
        assert_eq!(code, 0, "{printed}");
        edit(&out, "production", "testing");
        let (code, printed) = verify(&out, &["--state", state.to_str().unwrap()]);
        let reason = "is \"testing\", but the registration of eu-1: \"production\"; write \"production\"";
        assert!(code == 4 && printed.contains(reason), "{format}: {printed}");
    }
}

#[test]
fn a_bundle_that_is_cut_off_is_refused_wherever_it_is_cut() {
    let test = TestPki::new();
    let whole = fs::read_to_string(bundle(&test, "kubernetes", &[])).unwrap();
    let cut = test.dir.path().join("cut");
    let objects = whole.find("# Cluster eu-1 joins").unwrap();
    let first = whole[objects..].find("\n---\n").unwrap() + objects;
    let lines =
        whole.match_indices('\n').map(|(at, _)| at).filter(|at| (first..whole.len() - 1).contains(at));
    for at in lines {
        fs::write(&cut, &whole[..=at]).unwrap();
        let (code, printed) = verify(&cut, &[]);
        assert!(code == 2 && printed.contains("is cut off"), "{at}: {code} {printed}");
    }
    fs::write(&cut, whole + "\n").unwrap();
    assert_eq!(verify(&cut, &[]).0, 0);
}

#[test]
fn the_secret_part_is_kept_apart() {
    for format in formats() {
        let test = TestPki::new();
        let secret = test.dir.path().join("secret");
        let out = bundle(&test, &format, &["--secret-out", secret.to_str().unwrap()]);
        for file in files(&out) {
            assert!(!fs::read_to_string(&file).unwrap().contains(TOKEN_PREFIX), "{}", file.display());
        }
        assert_eq!(fs::metadata(&secret).unwrap().permissions().mode() & 0o777, 0o600);
        let (code, printed) = verify(&out, &[]);
        assert!(code == 0 && printed.contains("is not in these files"), "{printed}");
        let (code, printed) = verify(&out, &[secret.to_str().unwrap()]);
        assert!(code == 0 && printed.contains("can be used once"), "{printed}");
    }
}

#[test]
fn a_bundle_that_must_not_be_applied_is_refused_with_the_reason() {
    for format in formats() {
        let test = TestPki::new();
        let out = bundle(&test, &format, &[]);
        refused(
            &out,
            &["--trust-domain", "staging.example"],
            "is for \"test.example\", expected \"staging.example\"",
        );

        println!("{format}: a token that has expired");
        let line = ["cluster", "bundle", "verify", out.to_str().unwrap()];
        let later = SystemTime::now() + std::time::Duration::from_secs(3600);
        let (code, printed) = pki_at(&line, later);
        assert!(
            code == 4 && printed.contains("REFUSED: token: ") && printed.contains(" expired at 2"),
            "{printed}"
        );
        let state = test.state();
        let (code, printed) = pki_at(&[&line[..], &["--state", state.to_str().unwrap()]].concat(), later);
        assert!(code == 4 && printed.contains(" expired at 2"), "{printed}");

        println!("{format}: labels of another cluster than the token");
        edit(&out, "\"eu-1\"", "\"us-1\"");
        let (code, printed) = verify(&out, &[]);
        assert!(
            code == 4 && printed.contains("REFUSED: cluster: ") && printed.contains("\"us-1\""),
            "{printed}"
        );
        edit(&out, "\"us-1\"", "\"eu-1\"");
        let [right, wrong] = match format.as_str() {
            "kubernetes" => ["trust_domain: test.example", "trust_domain: staging.example"],
            _ => ["\"test.example\"", "\"staging.example\""],
        };
        edit(&out, right, wrong);
        refused(&out, &[], "is \"staging.example\", but");
        edit(&out, wrong, right);
        assert_eq!(verify(&out, &[]).0, 0);

        println!("{format}: a token that was mistyped");
        edit(&out, TOKEN_PREFIX, "isthmus_join_x");
        refused(&out, &[], "ask for a new bundle");
    }
}

#[test]
fn a_bundle_for_kubernetes_is_printed_without_a_file() {
    let test = TestPki::new();
    let state = test.state();
    let line =
        ["cluster", "bundle", "--state", state.to_str().unwrap(), "--cluster", "eu-1", "--address", "gw:1"];
    let (code, printed) = pki(&[&line[..], &["--environment", "production"]].concat());
    assert!(code == 0 && printed.starts_with("---\napiVersion: v1\nkind: Secret\n"), "{printed}");
    assert!(!printed.contains("placeholder"), "{printed}");
    let file = test.dir.path().join("eu-1.yaml");
    fs::write(&file, printed).unwrap();
    let (code, printed) = verify(&file, &[]);
    assert!(
        code == 0 && printed.contains("Secret isthmus-join") && printed.contains("StatefulSet "),
        "{printed}"
    );

    let other = [&line[..4], &["--cluster", "us-1", "--address", "gw:1"]].concat();
    let (code, printed) = pki(&[&other[..], &["--environment", "a'b"]].concat());
    assert!(code == 2 && printed.contains("use --format helm"), "{printed}");
    let (code, printed) = pki(&[&line[..], &["--environment", "production", "--format", "helm"]].concat());
    assert!(code == 2 && printed.contains("--out is missing"), "{printed}");
    let tokens = object(&["token", "list", "--state", state.to_str().unwrap(), "--json"]);
    assert_eq!(tokens["tokens"].as_array().unwrap().len(), 1);
}

#[test]
fn the_labels_of_the_store_are_compared_with_the_registration() {
    let test = TestPki::new();
    let out = bundle(&test, "systemd", &[]);
    let file = out.join("prometheus.yml");
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains("pro'd$$HOME"), "{text}");
    fs::write(&file, text.replace("pro'd$$HOME", "testing")).unwrap();
    refused(&out, &[], "prometheus.yml, external_labels: is \"testing");
}

#[test]
fn a_folder_with_files_is_refused_before_a_token_is_made() {
    let test = TestPki::new();
    let out = bundle(&test, "systemd", &[]);
    let (state, out) = (test.state(), out.to_str().unwrap().to_owned());
    let line =
        ["cluster", "bundle", "--state", state.to_str().unwrap(), "--out", &out, "--format", "systemd"];
    let token = ["--cluster", "us-1", "--environment", "x", "--address", "gw:1"];
    let (code, printed) = pki(&[&line[..], &token].concat());
    assert!(code == 5 && printed.contains("is not empty"), "{printed}");
    let tokens = object(&["token", "list", "--state", state.to_str().unwrap(), "--json"]);
    assert_eq!(tokens["tokens"].as_array().unwrap().len(), 1);
    let (code, printed) =
        pki(&["cluster", "bundle", "verify", test.dir.path().join("none").to_str().unwrap()]);
    assert!(code == 3 && printed.contains("none"), "{printed}");
    fs::write(test.dir.path().join("empty.yaml"), "a: 1\n").unwrap();
    refused(&test.dir.path().join("empty.yaml"), &[], "neither a configuration of a gateway nor a token");
}

/// Damaged files are reported or read, whatever is in them.
#[test]
fn mutated_bundles_do_no_harm() {
    let seed = rand::rng().random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    for format in formats() {
        let test = TestPki::new();
        let out = bundle(&test, &format, &[]);
        for file in files(&out) {
            let original = fs::read(&file).unwrap();
            for _ in 0..40 {
                let mut bytes = original.clone();
                for _ in 0..random.random_range(1..8) {
                    let at = random.random_range(0..bytes.len());
                    match random.random_range(0..3) {
                        0 => bytes[at] = random.random(),
                        1 => bytes.truncate(at.max(1)),
                        _ => bytes.insert(at, *b"{}[]:&*\n- |>'\"".get(random.random_range(0..14)).unwrap()),
                    }
                }
                fs::write(&file, &bytes).unwrap();
                let (code, printed) = verify(&out, &[]);
                assert!([0, 2, 4].contains(&code), "{code}: {printed}");
            }
            fs::write(&file, &original).unwrap();
        }
    }
}
