//! The image: what is in it, and that the program works in it.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;
use std::process::Command;

use tests::container::{Container, Image, process_one, stop};
use tests::{free_port, get, isthmus, wait_for};

use crate::cluster_bundles::commands_of_compose;

/// A user that has no name in the image.
const ANY_USER: u32 = 1_000_650_000;

fn container_file() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/container/Containerfile");
    fs::read_to_string(path).expect("the Containerfile")
}

#[test]
fn the_program_works_in_the_image_as_process_1_of_any_user() {
    let dir = tempfile::tempdir().expect("a folder");
    let Some(image) = Image::build(dir.path(), "the program in its image") else { return };

    println!("nothing is in the image but the program, its libraries and six files");
    let files = Command::new("find").arg(image.root()).args(["-type", "f", "-printf", "/%P\\n"]).output();
    let files = String::from_utf8(files.expect("find runs").stdout).expect("UTF-8");
    for file in files.lines() {
        let known = ["/bin/isthmus", "/etc/ssl/certs/ca-certificates.crt", "/etc/passwd", "/etc/group"];
        let known = known.contains(&file)
            || ["/etc/hosts", "/etc/nsswitch.conf", "/usr/share/sbom/isthmus.cdx.json"].contains(&file);
        assert!(known || file.starts_with("/lib"), "{file}");
    }
    assert!(!image.root().join("tmp").exists());

    println!("folders for volumes suit the user of the image, and any user of group 0, as on OpenShift");
    for folder in ["var/lib/isthmus", "run/isthmus", "srv/isthmus"] {
        let folder = fs::metadata(image.root().join(folder)).expect("the folder");
        assert_eq!((folder.uid(), folder.gid(), folder.mode() & 0o777), (65534, 0, 0o775));
    }

    println!("the list of components names the program and what is linked into it");
    let bom = fs::read(image.root().join("usr/share/sbom/isthmus.cdx.json")).expect("the list");
    let bom: serde_json::Value = serde_json::from_slice(&bom).expect("JSON");
    assert_eq!((&bom["bomFormat"], &bom["specVersion"]), (&"CycloneDX".into(), &"1.5".into()));
    assert_eq!(bom["metadata"]["component"]["name"], "isthmus");
    let components = bom["components"].as_array().expect("a list");
    let names: Vec<&str> = components.iter().filter_map(|c| c["name"].as_str()).collect();
    assert!(
        names.contains(&"rustls") && names.contains(&"gateway") && !names.contains(&"tempfile"),
        "{names:?}"
    );
    for component in components {
        assert!(component["licenses"][0]["expression"].is_string(), "{component}");
        let of_registry = component["hashes"][0]["content"].as_str().is_some_and(|sum| sum.len() == 64);
        assert!(of_registry || component["version"] == env!("CARGO_PKG_VERSION"), "{component}");
    }

    println!("commands run");
    let output = Container::new(&image, ANY_USER, 0).run(&["query", "--help"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && text.contains("--http-address"), "{output:?}");

    println!("a role that writes only to its volume starts, serves, and stops on SIGTERM");
    let (data, config) = (dir.path().join("data"), dir.path().join("config"));
    fs::create_dir_all(&data).expect("a folder");
    fs::create_dir_all(&config).expect("a folder");
    chown(&data, Some(ANY_USER), Some(0)).expect("the owner of a volume");
    let http = free_port();
    fs::write(
        config.join("prometheus.yml"),
        format!("global: {{scrape_interval: 200ms}}\nscrape_configs: [{{job_name: self, static_configs: [{{targets: ['{http}']}}]}}]\n"),
    )
    .expect("a file");
    let container = Container::new(&image, ANY_USER, 0)
        .with(&config, "/etc/isthmus")
        .with_writable(&data, "/var/lib/isthmus");
    let args = [
        "scrape".to_owned(),
        "--config.file=/etc/isthmus/prometheus.yml".to_owned(),
        "--data-dir=/var/lib/isthmus/scrape".to_owned(),
        format!("--http-address={http}"),
        "--grpc-address=127.0.0.1:0".to_owned(),
    ];
    let mut role = container.start(&args, &dir.path().join("log"));
    role.wait_ready("the role in its image", http);
    wait_for("a sample", std::time::Duration::from_secs(30), || {
        let (_, body) = get(http, "/api/v1/query?query=up")?;
        if body.contains("\"1\"") { Ok(()) } else { Err(body) }
    });
    let one = process_one(&role);
    let status = fs::read_to_string(format!("/proc/{one}/status")).expect("the status of the process");
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).expect("a field").trim();
    assert_eq!(field("NSpid:").split_whitespace().last(), Some("1"), "{status}");
    assert!(field("Uid:").starts_with(&ANY_USER.to_string()), "{status}");
    assert_eq!(stop(&mut role), Some(0), "{}", role.output());
    assert!(data.join("scrape").is_dir() && !role.output().contains("panicked"), "{}", role.output());

    println!("without the volume, the error names the folder");
    let output = Container::new(&image, ANY_USER, 0).with(&config, "/etc/isthmus").run(&[
        "scrape",
        "--config.file=/etc/isthmus/prometheus.yml",
        "--data-dir=/var/lib/other",
        "--http-address=127.0.0.1:0",
        "--grpc-address=127.0.0.1:0",
    ]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && text.contains("--data-dir") && text.contains("Read-only"), "{text}");
}

/// Every instruction of the Containerfile is one that the test above does by hand.
#[test]
fn the_containerfile_copies_the_files_and_starts_the_program() {
    let text = container_file();
    let joined = text.replace("\\\n", " ");
    let lines = joined.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty());
    let words: Vec<(&str, &str)> = lines.filter_map(|line| line.split_once(' ')).collect();
    let of = |name: &str| {
        words.iter().filter(|(word, _)| *word == name).map(|(_, rest)| *rest).collect::<Vec<_>>()
    };
    assert_eq!(of("FROM"), ["scratch"]);
    assert_eq!(of("COPY"), [". /"]);
    assert_eq!(of("ENTRYPOINT"), ["[\"/bin/isthmus\"]"]);
    assert_eq!(of("USER"), ["65534:65534"]);
    assert!(of("RUN").is_empty() && of("ADD").is_empty());
    for label in ["title", "version", "revision", "licenses"] {
        assert!(of("LABEL")[0].contains(&format!("org.opencontainers.image.{label}=")), "{label}");
    }
}

/// The program accepts each command of the compose file, and the first two work with its configuration.
#[test]
fn the_commands_of_the_compose_file_are_accepted() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/compose");
    let services = commands_of_compose(&folder.join("compose.yaml"));
    assert!(services.len() >= 12, "{services:?}");
    let isthmus = |args: &[String]| {
        let output = Command::new(isthmus()).args(args).output().expect("isthmus runs");
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    for (name, words) in &services {
        println!("{name}");
        isthmus(&[words.clone(), vec!["--help".to_owned()]].concat());
        for file in words.iter().filter_map(|word| word.split_once("=/etc/isthmus/").map(|(_, file)| file)) {
            assert!(folder.join(file).exists() || file == "passphrase", "{name}: {file}");
        }
    }
    isthmus(&[
        "gateway".to_owned(),
        "check-config".to_owned(),
        folder.join("gateway.yaml").display().to_string(),
    ]);
    let dir = tempfile::tempdir().expect("a folder");
    fs::write(dir.path().join("passphrase"), "only a test\n").expect("a file");
    let here = |word: &String| {
        let dir = dir.path().display().to_string();
        ["/var/lib/isthmus", "/run/isthmus", "/etc/isthmus"]
            .iter()
            .fold(word.clone(), |word, place| word.replace(place, &dir))
    };
    for name in ["pki", "token-eu-1-a", "token-us-1-a"] {
        let (_, words) = services.iter().find(|(service, _)| service == name).expect("a service");
        isthmus(&words.iter().map(here).collect::<Vec<_>>());
    }
    assert!(dir.path().join("eu-1-a.token").exists() && dir.path().join("us-1-a.token").exists());
}

#[test]
fn buildah_builds_the_image() {
    if Command::new("buildah").arg("--version").output().is_err() {
        println!("skipped: the image is not built (buildah is not installed)");
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    let Some(image) = Image::build(dir.path(), "the build of the image") else { return };
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/container/Containerfile");
    let storage = ["storage", "run"].map(|name| dir.path().join(name).display().to_string());
    let buildah = |args: &[&str]| {
        let storage = ["--root", &storage[0], "--runroot", &storage[1], "--storage-driver=vfs"];
        Command::new("buildah").args(storage).args(args).output().expect("buildah runs")
    };
    let (file, root) = (file.display().to_string(), image.root().display().to_string());
    let version = ["--build-arg=VERSION=1.2.3", "--build-arg=REVISION=abc"];
    let build = [&["build", "--isolation=chroot", "--tag=isthmus:test"][..], &version, &["-f", &file, &root]]
        .concat();
    let output = buildah(&build);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if said.to_lowercase().contains("operation not permitted") {
        println!("skipped: the image is not built (buildah is not permitted here)");
        return;
    }
    assert!(output.status.success(), "{said}");
    let output = buildah(&["inspect", "--type=image", "isthmus:test"]);
    let image: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let config = &image["OCIv1"]["config"];
    assert_eq!(config["Entrypoint"], serde_json::json!(["/bin/isthmus"]));
    assert_eq!((&config["User"], &config["StopSignal"]), (&"65534:65534".into(), &"SIGTERM".into()));
    let labels = &config["Labels"];
    assert_eq!(labels["org.opencontainers.image.version"], "1.2.3");
    assert_eq!(labels["org.opencontainers.image.revision"], "abc");
    assert!(config["ExposedPorts"]["10943/udp"].is_object(), "{config}");
}
