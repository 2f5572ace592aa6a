use super::*;

fn mistakes(text: &str) -> Vec<String> {
    match Config::parse(text, Path::new("/etc/isthmus")) {
        Ok(config) => panic!("accepted as {config:?}"),
        Err(mistakes) => mistakes.iter().map(ToString::to_string).collect(),
    }
}

fn testdata(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(folder);
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    files.sort();
    assert!(!files.is_empty());
    files
}

#[test]
fn every_good_file_is_accepted() {
    for path in testdata("good") {
        if let Err(error) = Config::load(&path) {
            panic!("{error}");
        }
    }
}

/// A file with the extension `.expected` next to each bad file lists its mistakes, one per line.
#[test]
fn every_bad_file_is_rejected_with_all_of_its_mistakes() {
    for path in testdata("bad") {
        let Err(ConfigFileError::Wrong { mistakes, .. }) = Config::load(&path) else {
            panic!("{} was accepted", path.display());
        };
        let seen: String = mistakes.iter().map(|mistake| format!("{mistake}\n")).collect();
        let expected = path.with_extension("expected");
        if std::env::var_os("UPDATE_EXPECTED").is_some() {
            std::fs::write(&expected, &seen).unwrap();
        }
        assert_eq!(seen, std::fs::read_to_string(&expected).unwrap(), "{}", path.display());
    }
}

#[test]
fn defaults_are_those_of_the_documentation() {
    let config =
        Config::parse("role: observability\ndata_dir: data\npki: {state: ca}\n", Path::new("/etc/x"))
            .unwrap();
    assert_eq!(config.data_dir, Path::new("/etc/x/data"));
    assert_eq!(config.transport, TransportChoice::Auto);
    let GatewayRole::Observability(role) = config.role else { panic!("wrong role") };
    assert_eq!(
        (role.pki_state.as_path(), role.listen.to_string().as_str()),
        (Path::new("/etc/x/ca"), "0.0.0.0:10943")
    );

    let text = "role: cluster\ndata_dir: /d\ntargets: [{name: a, address: 'localhost:1'}]\n";
    let GatewayRole::Cluster(role) = Config::parse(text, Path::new("")).unwrap().role else {
        panic!("wrong role")
    };
    assert_eq!((role.policy, role.info_interval), (Policy::default(), Duration::from_secs(5)));
    assert!(role.dial.is_empty() && role.listen.is_none());
    // What `pki cluster bundle verify` says where a file does not name methods.
    let names: Vec<_> = Policy::default().methods.iter().map(|method| method.name()).collect();
    assert_eq!(names, pki::BUNDLE_METHODS);
}

#[test]
fn a_method_that_shows_more_than_the_policy_allows_is_a_mistake() {
    let policy = |methods: &str| {
        format!(
            "role: cluster\ndata_dir: /d\ntargets: [{{name: a, address: 'h:1'}}]\npolicy: {{{methods}max_age: 1d}}\n"
        )
    };
    let text = policy("methods: [Series, Rules], ");
    assert_eq!(
        mistakes(&text),
        ["line 4: policy.methods: Rules shows more than `select` and `max_age` allow: remove it, or them"]
    );
    let GatewayRole::Cluster(role) = Config::parse(&policy(""), Path::new("")).unwrap().role else {
        panic!("wrong role")
    };
    assert!(!role.policy.methods.contains(&crate::MeshMethod::MetricMetadata), "it is a default method");
}

#[test]
fn text_that_is_not_a_configuration_is_rejected() {
    assert_eq!(mistakes(""), ["line 1: role: is missing", "line 1: data_dir: is missing"]);
    assert_eq!(mistakes("[]"), ["line 1: expected a mapping of fields, found a list"]);
    for text in ["role: [", "\t", "a: &a [*a, *a]", "a: 1\na: 2", "a: !!binary x", "\u{0}"] {
        assert!(!mistakes(text).is_empty(), "{text:?}");
    }
}

#[test]
fn link_local_addresses_are_rejected_in_every_notation() {
    for address in [
        "169.254.169.254:80",
        "[fe80::1]:80",
        "[::ffff:169.254.169.254]:80",
        "0.0.0.0:80",
        "[::]:80",
        "[ff02::1]:80",
    ] {
        assert!(address.parse::<DialAddress>().is_err(), "{address}");
    }
    for address in ["127.0.0.1:10901", "scraper-0.monitoring.svc:10901", "[2001:db8::1]:1"] {
        assert!(address.parse::<DialAddress>().is_ok(), "{address}");
    }
}
