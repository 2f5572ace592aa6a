//! What is read, and what is refused.

use super::*;

fn read(text: &str) -> Result<HttpEndpointsConfig, Vec<String>> {
    let (node, mistakes) = (YamlNode::parse(text).unwrap(), Mistakes::default());
    let mut fields = YamlFields::new("", &node, &mistakes);
    let config = HttpEndpointsConfig::read(&mut fields, Path::new("/etc"), 9093, &mistakes);
    fields.finish();
    let mistakes = mistakes.into_sorted();
    if mistakes.is_empty() { Ok(config) } else { Err(mistakes.iter().map(ToString::to_string).collect()) }
}

fn basic(username: &str, password: &str) -> Option<AuthorizationConfig> {
    let text = |text: &str| Secret::Text(text.to_owned());
    Some(AuthorizationConfig::Basic { username: text(username), password: text(password) })
}

#[test]
fn the_fields_of_thanos_are_read() {
    let config = read(
        "http_config:\n  basic_auth: {username: me, password: pw}\n  transport_config: {max_idle_conns: 5, disable_compression: true}\n\
         static_configs: [am:9093, 'dns+am.svc']\n\
         file_sd_configs: [{files: [sd/*.json], refresh_interval: 1m}, {files: ['/x.yml']}]\n\
         scheme: https\npath_prefix: am/\n",
    )
    .unwrap();
    assert_eq!(config.http.authorization, basic("me", "pw"));
    let addresses: Vec<String> = config.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["am:9093", "dns+am.svc"]);
    assert_eq!(config.files[0].patterns, [PathBuf::from("/etc/sd/*.json")]);
    assert_eq!(config.files[0].refresh_interval, Duration::from_secs(60));
    assert_eq!(config.files[1].refresh_interval, REFRESH_INTERVAL);
    assert_eq!((config.is_https, config.path_prefix.as_str()), (true, "/am"));
    let empty = read("{}").unwrap();
    assert!(empty.addresses.is_empty() && !empty.is_https && empty.path_prefix.is_empty());
}

#[test]
fn every_mistake_is_reported_with_its_line() {
    let mistakes = read(
        "static_configs: ['http://am:9093']\nscheme: ftp\npath_prefix: '/a b'\n\
         file_sd_configs:\n- {files: [a.txt], refresh_interval: soon}\n- {}\n\
         http_config: {transport_config: {max_conns: 1}}\nlabels: {}\n",
    )
    .unwrap_err();
    let expected = [
        "line 1: static_configs[0]: address \"http://am:9093\" is not of the form HOST:PORT",
        "line 2: scheme: is \"ftp\", expected http or https",
        "line 3: path_prefix: path prefix \"/a b\" is not the path of a URL",
        "line 5: file_sd_configs[0].files[0]: path \"a.txt\" must end in .json, .yml or .yaml",
        "line 5: file_sd_configs[0].refresh_interval: \"soon\" is not a duration",
        "line 6: file_sd_configs[1].files: is missing",
        "line 7: http_config.transport_config.max_conns: unknown field",
        "line 8: labels: unknown field; known fields: http_config, static_configs",
    ];
    assert_eq!(mistakes.len(), expected.len(), "{mistakes:?}");
    for (mistake, expected) in mistakes.iter().zip(expected) {
        assert!(mistake.starts_with(expected), "{mistake}\nexpected {expected}");
    }
}

#[test]
fn urls_have_lookups_users_and_prefixes() {
    let check = |url: &str, address: &str, is_https: bool, prefix: &str| {
        let config = HttpEndpointsConfig::from_url(url, 9093).unwrap();
        assert_eq!(config.addresses[0].to_string(), address, "{url}");
        assert_eq!((config.is_https, config.path_prefix.as_str()), (is_https, prefix), "{url}");
    };
    check("http://localhost:9093", "localhost:9093", false, "");
    check("https://am.example.com/", "am.example.com", true, "");
    check("dns+http://am:9093/a/", "dns+am:9093", false, "/a");
    check("dnssrv+https://_web._tcp.am/a//b", "dnssrv+_web._tcp.am", true, "/a/b");
    check("http://dns+am:10902", "dns+am:10902", false, "");
    check("dns+am:10902", "dns+am:10902", false, "");
    check("[::1]:9093", "[::1]:9093", false, "");
    let of = |url: &str| HttpEndpointsConfig::from_url(url, 9093).unwrap().http.authorization;
    assert_eq!(of("http://user:p%40ss+@am:1/x"), basic("user", "p@ss+"));
    assert_eq!(of("dns+http://user@am:1"), basic("user", ""));
    assert_eq!(of("http://am:1"), None);
}

#[test]
fn wrong_urls_are_refused_without_their_password() {
    let check = |url: &str, expected: &str| {
        let error = HttpEndpointsConfig::from_url(url, 9093).unwrap_err();
        assert!(error.contains(expected) && !error.contains("secret"), "{url}: {error}");
    };
    check("ssh+http://am", "scheme \"ssh+http\" is not known, expected http, https or dns+http");
    check("ftp://am", "scheme \"ftp\" is not known");
    check("http://", "address \"\" is not of the form HOST:PORT");
    check("", "address \"\" is not of the form HOST:PORT");
    check("http://u:secret@a:b", "address \"a:b\" is not of the form");
    check("http://a?x=y", "path prefix \"?x=y\" is not the path of a URL");
    check("http://a/b?x", "path prefix \"/b?x\" is not the path of a URL");
    check("dns+http://dns+a", "has two prefixes of lookups in DNS");
}

#[test]
fn files_list_addresses_and_damaged_ones_never_panic() {
    let text = "[{\"targets\": [\"a:1\", \"dns+b\"], \"labels\": {\"x\": \"y\"}}, {\"targets\": []}]";
    let listed: Vec<String> = parse_targets(text).unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(listed, ["a:1", "dns+b"]);
    assert_eq!(parse_targets("").unwrap(), []);
    let check = |text: &str, expected: &str| {
        let error = parse_targets(text).unwrap_err();
        assert!(error.contains(expected), "{text}: {error}");
    };
    check("targets: []", "expected a list of groups with targets, found a mapping");
    check("- targets:\n  - http://a", "line 2: [0].targets[0]: address \"http://a\" is not of the form");
    check("- target: [a]", "line 1: [0].target: unknown field; known fields: targets, labels");
    for at in 0..text.len() {
        let _ = parse_targets(&text[..at]);
        for replacement in ["[", "{", "\"", ":", "\u{0}", "\n"] {
            let damaged = format!("{}{replacement}{}", &text[..at], &text[at + 1..]);
            let _ = (parse_targets(&damaged), HttpEndpointsConfig::from_url(&damaged, 1));
        }
    }
}
