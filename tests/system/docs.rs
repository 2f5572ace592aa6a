//! Checks the documentation against the program: flags, links, commands.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tests::isthmus;

const MARK: &str = "<!-- help: ";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace is above this crate").to_owned()
}

/// All Markdown files that users read.
fn pages() -> Vec<PathBuf> {
    let docs = fs::read_dir(root().join("docs")).expect("docs/");
    let mut pages: Vec<PathBuf> = docs.map(|entry| entry.expect("an entry").path()).collect();
    pages.retain(|path| path.extension().is_some_and(|e| e == "md"));
    pages.extend([root().join("README.md"), root().join("ARCHITECTURE.md")]);
    pages.sort();
    pages
}

/// The output of `isthmus COMMAND --help`, in lines of at most 100 columns.
fn help(command: &str) -> String {
    let output = Command::new(isthmus())
        .args(command.split_whitespace())
        .arg("--help")
        .env("COLUMNS", "100")
        .output()
        .expect("isthmus runs");
    assert!(output.status.success(), "isthmus {command} --help: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    text.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// The page with the current output of the program in every marked block.
fn regenerated(page: &str) -> (String, BTreeSet<String>) {
    let (mut fresh, mut commands) = (String::new(), BTreeSet::new());
    let mut rest = page;
    while let Some(at) = rest.find(MARK) {
        let (before, marked) = rest.split_at(at);
        let (mark, after) = marked.split_once('\n').expect("a line after the mark");
        let command = mark[MARK.len()..].trim_end_matches("-->").trim();
        let block = after.strip_prefix("```text\n").expect("a block of text after the mark");
        let end = block.find("```\n").expect("the end of the block");
        fresh.push_str(&format!("{before}{mark}\n```text\n{}", help(command)));
        commands.insert(command.to_owned());
        rest = &block[end..];
    }
    fresh.push_str(rest);
    (fresh, commands)
}

#[test]
fn help_texts_in_the_documentation_are_up_to_date() {
    let mut commands = BTreeSet::new();
    for path in pages() {
        let page = fs::read_to_string(&path).expect("a page");
        let (fresh, here) = regenerated(&page);
        commands.extend(here);
        if std::env::var_os("ISTHMUS_REGENERATE").is_some() {
            fs::write(&path, &fresh).expect("a page");
            continue;
        }
        assert!(
            page == fresh,
            "{}: a help text is outdated; run ISTHMUS_REGENERATE=1 ./tests/run",
            path.display()
        );
    }
    for role in [
        "sidecar",
        "scrape",
        "rule",
        "agent",
        "store",
        "compact",
        "query",
        "gateway",
        "quickstart",
        "pki init",
        "pki token create",
        "pki cluster bundle",
        "doctor",
    ] {
        assert!(commands.contains(role), "no page documents the flags of `isthmus {role}`");
    }
}

/// The command lines of `isthmus` in the blocks of a page for shells and consoles, without redirections and comments.
fn command_lines(page: &str) -> Vec<String> {
    let (mut lines, mut block) = (Vec::new(), None);
    let joined = page.replace("\\\n", " ");
    for line in joined.lines() {
        if let Some(language) = line.strip_prefix("```") {
            block = if block.is_none() { Some(language) } else { None };
            continue;
        }
        let is_shell = matches!(block, Some("" | "sh" | "console"));
        let line = line.strip_prefix("$ ").unwrap_or(line);
        if is_shell && line.starts_with("isthmus ") {
            let end = [" > ", " # ", "    #"].iter().filter_map(|mark| line.find(mark)).min();
            lines.push(line[..end.unwrap_or(line.len())].to_owned());
        }
    }
    lines
}

#[test]
fn documented_commands_have_flags_and_values_that_the_program_accepts() {
    let mut checked = 0;
    for path in pages() {
        let page = fs::read_to_string(&path).expect("a page");
        for line in command_lines(&page) {
            // Words are what a shell makes of them. With --help, the program checks the flags and does nothing.
            let script = format!("{} --help", line.replacen("isthmus ", "\"$ISTHMUS\" ", 1));
            let output = Command::new("sh").args(["-c", &script]).env("ISTHMUS", isthmus()).output();
            let output = output.expect("a shell runs");
            let error = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{}: {line}: {error}", path.display());
            let needs_bucket = line.starts_with("isthmus tools bucket ");
            assert!(
                !needs_bucket || line.contains(" --objstore.config"),
                "{}: {line}: no bucket",
                path.display()
            );
            checked += 1;
        }
    }
    assert!(checked > 30, "only {checked} commands were found");
}

#[test]
fn links_between_pages_lead_to_existing_files() {
    for path in pages() {
        let page = fs::read_to_string(&path).expect("a page");
        for link in page.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = link.split('#').next().unwrap_or("");
            if file.is_empty() || file.contains("://") {
                continue;
            }
            let to = path.parent().expect("a folder").join(file);
            assert!(to.exists(), "{} links to {link}, which does not exist", path.display());
        }
    }
}
