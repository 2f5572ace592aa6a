//! Runs the tools as a program: exit codes for each kind of failure, one line per failure, pipes that are closed early.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use tests::isthmus;

/// Returns exit code, standard output and standard error.
fn run(args: &[&str]) -> (i32, String, String) {
    let output = Command::new(isthmus()).args(args).output().expect("isthmus runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code().expect("an exit code"), text(output.stdout), text(output.stderr))
}

#[test]
fn failures_print_one_line_and_have_an_exit_code_for_their_kind() {
    let dir = tempfile::tempdir().expect("a folder");
    let data = dir.path().join("data").display().to_string();
    let (code, _, error) = run(&["tools", "block", "generate", "--output-dir", &data, "--series=100"]);
    assert_eq!(code, 0, "{error}");
    let block = std::fs::read_dir(&data).expect("blocks").next().expect("a block").expect("an entry").path();
    let block = block.display().to_string();

    let ls = |config: &str| run(&["tools", "bucket", "ls", "--objstore.config", config]);
    let unreachable = "{type: S3, config: {bucket: b, endpoint: '127.0.0.1:1', insecure: true, access_key: a, secret_key: b}}";
    for (what, (code, printed, error), expected) in [
        ("an unknown type", ls("{type: S4, config: {}}"), 2),
        ("a bucket that does not exist", ls("{type: FILESYSTEM, config: {directory: /nowhere}}"), 3),
        ("an object store that does not respond", ls(unreachable), 6),
        ("a folder that is not a block", run(&["tools", "block", "verify", &data]), 3),
    ] {
        assert_eq!(code, expected, "{what}: {error}");
        assert_eq!((printed.as_str(), error.lines().count()), ("", 1), "{what}: {error}");
        assert!(error.starts_with("error: "), "{what}: {error}");
    }

    assert_eq!(run(&["tools", "block", "verify", &block]).0, 0);
    let segment = std::path::Path::new(&block).join("chunks/000001");
    let mut bytes = std::fs::read(&segment).expect("a segment");
    bytes[2000] ^= 1;
    std::fs::write(&segment, bytes).expect("a segment");
    assert_eq!(run(&["tools", "block", "verify", &block]).0, 1, "a check that finds a problem");
    assert_eq!(run(&["tools", "block", "dump", &block]).0, 7, "damaged data");
}

#[test]
fn commands_exit_quietly_when_their_output_pipe_is_closed() {
    let dir = tempfile::tempdir().expect("a folder");
    let data = dir.path().join("data").display().to_string();
    let (code, _, error) = run(&["tools", "block", "generate", "--output-dir", &data, "--series=2000"]);
    assert_eq!(code, 0, "{error}");
    let block = std::fs::read_dir(&data).expect("blocks").next().expect("a block").expect("an entry").path();
    let block = block.display().to_string();
    for args in [&["tools", "block", "dump", &block][..], &["completions", "bash"], &["tools", "--help"]] {
        let mut child = Command::new(isthmus())
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("isthmus runs");
        let mut line = String::new();
        // The pipe is closed at the end of this statement, as `head -1` does.
        BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
        let output = child.wait_with_output().expect("the process exits");
        assert!(!line.is_empty() && output.status.success(), "{args:?}: {:?}", output.status);
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{args:?}");
    }
}
