//! Checks that the committed code in `src/gen` is what the `.proto` files generate. It needs no `protoc`.
//!
//! To regenerate the code after a change: `ISTHMUS_REGENERATE=1 cargo test -p proto`.

use std::fs;
use std::path::Path;

use protox::prost::Message;

const FILES: [&str; 14] = [
    "thanos/store.proto",
    "thanos/hints.proto",
    "thanos/info.proto",
    "thanos/metadata.proto",
    "thanos/rules.proto",
    "thanos/targets.proto",
    "thanos/exemplars.proto",
    "thanos/status.proto",
    "thanos/prompb.proto",
    "thanos/query.proto",
    "prometheus/remote.proto",
    "prometheus/write_v2.proto",
    "isthmus/mesh.proto",
    "isthmus/pki.proto",
];

#[test]
fn committed_code_is_what_the_proto_files_generate() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let committed = root.join("src/gen");
    let fresh = tempdir();
    let descriptors = protox::compile(FILES, [root.join("proto")]).expect("the .proto files compile");
    fs::write(fresh.join("descriptors.bin"), descriptors.encode_to_vec()).unwrap();
    tonic_prost_build::configure()
        .bytes(".")
        .out_dir(&fresh)
        .emit_rerun_if_changed(false)
        .compile_fds(descriptors)
        .expect("the descriptors generate code");

    let names = |dir: &Path| -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(dir)
            .map(|entries| entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect())
            .unwrap_or_default();
        names.sort();
        names
    };
    if std::env::var_os("ISTHMUS_REGENERATE").is_some() {
        fs::create_dir_all(&committed).unwrap();
        for name in names(&committed) {
            fs::remove_file(committed.join(name)).unwrap();
        }
        for name in names(&fresh) {
            fs::copy(fresh.join(&name), committed.join(&name)).unwrap();
        }
    }
    assert_eq!(names(&committed), names(&fresh), "run ISTHMUS_REGENERATE=1 cargo test -p proto");
    for name in names(&fresh) {
        let same = fs::read(committed.join(&name)).unwrap() == fs::read(fresh.join(&name)).unwrap();
        assert!(same, "src/gen/{name} is stale: run ISTHMUS_REGENERATE=1 cargo test -p proto");
    }
    fs::remove_dir_all(fresh).unwrap();
}

fn tempdir() -> std::path::PathBuf {
    let dir = std::env::temp_dir().join(format!("isthmus-proto-{}", std::process::id()));
    fs::create_dir_all(&dir).expect("a temporary folder");
    dir
}
