//! Files of the toolkit's form, good and bad.

use super::*;

/// A bcrypt hash of "test", from the toolkit's own tests.
const HASH: &str = "$2y$10$QOauhQNbBCuQDKes6eFzPeMqBSjb7Mr5DUmpZ/VcEd00UAV/LDeSi";

fn load(text: &str) -> Result<WebConfig, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("web.yml");
    std::fs::write(&path, text).unwrap();
    WebConfig::load(&path).map(|loaded| loaded.value)
}

#[test]
fn a_file_without_tls_leaves_it_off() {
    for text in ["", "# nothing", "{}", "tls_server_config: {}", "tls_server_config: {min_version: TLS13}"] {
        assert!(load(text).unwrap().tls.is_none(), "{text}");
    }
    let config = load(&format!(
        "basic_auth_users:\n  alice: {HASH}\nhttp_server_config:\n  http2: false\n  headers:\n    X-Frame-Options: deny\nrate_limit: {{interval: 1s, burst: 3}}"
    ));
    let config = config.unwrap();
    assert_eq!(config.users, [("alice".to_owned(), HASH.to_owned())]);
    assert_eq!(config.headers[0].0, "x-frame-options");
    assert!(config.rate_limit.is_some());
}

#[test]
fn all_mistakes_are_reported_with_their_lines() {
    for (text, expected) in [
        (
            "tls_config: {}",
            "line 1: tls_config: unknown field; known fields: http_server_config, tls_server_config",
        ),
        ("tls_server_config: {cert_file: a}", "tls_server_config.key_file: is missing"),
        (
            "tls_server_config: {cert_file: a, cert: b}",
            "tls_server_config.cert: and cert_file are both given",
        ),
        (
            "tls_server_config: {client_ca_file: a}",
            "tls_server_config.client_auth_type: is missing or NoClientCert",
        ),
        ("tls_server_config: {client_auth_type: RequireAndVerifyClientCert}", "needs client_ca_file"),
        ("tls_server_config: {client_auth_type: Please}", "\"Please\" is none of NoClientCert"),
        ("tls_server_config: {min_version: TLS13, max_version: TLS12}", "TLS 1.3 is newer than max_version"),
        ("tls_server_config: {max_version: TLS11}", "TLS before 1.2 is not supported"),
        (
            "tls_server_config: {cipher_suites: [TLS_RSA_WITH_AES_128_CBC_SHA]}",
            "is not supported, expected one of",
        ),
        (
            "tls_server_config: {cert_file: /no/such, key_file: b}",
            "tls_server_config: /no/such: cannot be read",
        ),
        ("http_server_config: {headers: {X-Frame-Options: maybe}}", "expected deny or sameorigin"),
        ("http_server_config: {headers: {Server: x}}", "http_server_config.headers.Server: unknown field"),
        ("basic_auth_users:\n  alice: secret", "line 2: basic_auth_users.alice: is not a bcrypt hash"),
        ("basic_auth_users: [a]", "expected users and hashes of passwords, found a list"),
        ("rate_limit: {interval: 1s}", "rate_limit.burst: is 0"),
        ("{", "web.yml: "),
    ] {
        let error = load(text).unwrap_err();
        assert!(error.contains(expected), "{text}: {error}");
        assert!(!error.contains("secret"), "{error}");
    }
    let both = load("a: 1\nb: 2").unwrap_err();
    assert_eq!(both.lines().count(), 2, "{both}");
}
