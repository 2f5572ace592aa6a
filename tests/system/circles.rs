//! Checks that the modules of a crate do not depend on each other in a circle, and how they name each other.
//!
//! The imports are parsed as text. A path that begins with `crate::` is followed through re-exports to the
//! module that defines its last name, because `use crate::Budget` does not show where `Budget` is defined.
//! Paths without `use` count as well. Tests and test helpers may import everything and are ignored.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use crate::workspace::{members, root};

/// A path of modules within a crate; empty for `lib.rs`.
type ModulePath = Vec<String>;

/// The modules of one crate and what they import.
#[derive(Default)]
struct Modules {
    /// Text of each module without comments, strings and tests.
    texts: BTreeMap<ModulePath, String>,
    /// Names that a module imports, with the full path of each.
    aliases: BTreeMap<ModulePath, BTreeMap<String, ModulePath>>,
}

impl Modules {
    fn load(src: &Path) -> Self {
        let mut modules = Self::default();
        modules.load_folder(src, &Vec::new());
        modules.drop_undeclared();
        modules.resolve();
        modules
    }

    /// Removes modules that exist only in tests, which no other module declares.
    fn drop_undeclared(&mut self) {
        let is_declared = |path: &ModulePath| match path.split_last() {
            Some((name, parent)) => {
                self.texts.get(parent).is_some_and(|text| text.contains(&format!("mod {name};")))
            }
            None => true,
        };
        let gone: Vec<_> = self.texts.keys().filter(|path| !is_declared(path)).cloned().collect();
        self.texts.retain(|path, _| !gone.iter().any(|gone| path.starts_with(gone)));
    }

    /// Records the full path of each imported name, for each module.
    fn resolve(&mut self) {
        let names = |path: &ModulePath| {
            self.imports(path).into_iter().filter_map(|(name, target)| Some((name?, target))).collect()
        };
        self.aliases = self.texts.keys().map(|path| (path.clone(), names(path))).collect();
    }

    fn load_folder(&mut self, folder: &Path, at: &ModulePath) {
        for entry in fs::read_dir(folder).expect("a folder of sources") {
            let path = entry.expect("an entry").path();
            let name = path.file_stem().and_then(|stem| stem.to_str()).expect("a UTF-8 name").to_owned();
            if matches!(name.as_str(), "tests" | "testing" | "bin" | "gen") {
                continue;
            }
            let below: ModulePath = at.iter().cloned().chain([name.clone()]).collect();
            if path.is_dir() {
                self.load_folder(&path, &below);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let module =
                    if at.is_empty() && (name == "lib" || name == "main") { Vec::new() } else { below };
                let text = fs::read_to_string(&path).expect("a source file");
                self.texts.insert(module, without_tests(&without_comments(&text)));
            }
        }
    }

    /// The module that defines the last name of `path`, or as much of it as can be found.
    fn definer(&self, path: &[String]) -> ModulePath {
        let mut path = path.to_vec();
        // A chain of re-exports is never longer than this; a longer one is a loop.
        for _ in 0..16 {
            let known = (0..=path.len()).rev().find(|n| self.texts.contains_key(&path[..*n])).unwrap_or(0);
            let (module, rest) = path.split_at(known);
            let Some(name) = rest.first() else { return path };
            match self.aliases.get(module).and_then(|aliases| aliases.get(name)) {
                Some(target) if *target != path[..=known] => {
                    path = target.iter().chain(&rest[1..]).cloned().collect();
                }
                _ => return module.to_vec(),
            }
        }
        panic!("re-exports of {} lead in a circle", path.join("::"));
    }

    /// For each folder, the dependencies between its modules: from, to, and a file that contains one.
    fn arrows(&self) -> BTreeMap<ModulePath, BTreeMap<(String, String), String>> {
        let mut arrows: BTreeMap<ModulePath, BTreeMap<(String, String), String>> = BTreeMap::new();
        for from in self.texts.keys() {
            for (_, target) in self.imports(from) {
                let to = self.definer(&target);
                let shared = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
                // One of the two lies within the other: a parent may name its children, and they may name it.
                let (Some(mine), Some(other)) = (from.get(shared), to.get(shared)) else { continue };
                arrows
                    .entry(from[..shared].to_vec())
                    .or_default()
                    .entry((mine.clone(), other.clone()))
                    .or_insert_with(|| format!("{} uses {}", from.join("/"), target.join("::")));
            }
        }
        arrows
    }

    /// All paths into this crate in a module, each with the name that an import brings into scope.
    fn imports(&self, module: &ModulePath) -> Vec<(Option<String>, ModulePath)> {
        let (text, mut found) = (&self.texts[module], Vec::new());
        for (at, _) in text.match_indices("use ") {
            let begins = text[..at].chars().next_back().is_none_or(|c| !(c.is_alphanumeric() || c == '_'));
            let Some(end) = text[at..].find(';').filter(|_| begins) else { continue };
            let tree: String = text[at + 4..at + end].split_whitespace().collect::<Vec<_>>().join(" ");
            expand(&tree, &[], &mut |path, name| {
                found.extend(self.local(&path, module).map(|path| (Some(name), path)));
            });
        }
        let bare: String = text.lines().filter(|line| !line.contains("use ")).collect::<Vec<_>>().join("\n");
        for (at, _) in bare.match_indices("crate::") {
            let path = bare[at..].split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')).next();
            let path: ModulePath = path.unwrap_or("").split("::").map(str::to_owned).collect();
            found.extend(self.local(&path, module).map(|path| (None, path)));
        }
        found
    }

    /// The path relative to the root of the crate. `None` if it leads to another crate.
    fn local(&self, path: &[String], module: &ModulePath) -> Option<ModulePath> {
        let (first, rest) = path.split_first()?;
        let below = |rest: &[String]| module.iter().chain(rest).cloned().collect::<ModulePath>();
        match first.as_str() {
            "crate" => Some(rest.to_vec()),
            "self" => Some(below(rest)),
            // A child, named from its parent: such paths matter as re-exports only.
            _ if self.texts.contains_key(&below(std::slice::from_ref(first))) => Some(below(path)),
            _ => None,
        }
    }
}

/// Lists all paths of an import tree, each with the name that it brings into scope.
fn expand(tree: &str, prefix: &[String], give: &mut impl FnMut(ModulePath, String)) {
    let tree = tree.trim().trim_start_matches("::");
    if let Some((head, list)) = tree.split_once('{') {
        let mut path = prefix.to_vec();
        path.extend(head.split("::").map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned));
        let list = list.strip_suffix('}').unwrap_or(list);
        split_list(list).for_each(|part| expand(part, &path, give));
    } else if !tree.is_empty() {
        let (path, alias) = tree.split_once(" as ").map_or((tree, None), |(path, alias)| (path, Some(alias)));
        let mut whole = prefix.to_vec();
        whole.extend(path.split("::").map(|part| part.trim().to_owned()).filter(|part| part != "self"));
        if let Some(last) = whole.last().cloned() {
            give(whole, alias.map_or(last, |alias| alias.trim().to_owned()));
        }
    }
}

/// Splits a list at the commas that are not inside nested braces.
fn split_list(list: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0;
    list.split(move |c| {
        depth += match c {
            '{' => 1,
            '}' => -1,
            _ => 0,
        };
        c == ',' && depth == 0
    })
}

/// Removes line comments and the content of strings, so that prose is not mistaken for a path.
fn without_comments(text: &str) -> String {
    let code = |line: &str| {
        let line = line.split("//").next().unwrap_or("").to_owned();
        line.split('"').step_by(2).collect::<Vec<_>>().join("\"\"")
    };
    text.lines().map(|line| code(line) + "\n").collect()
}

/// Removes modules and imports that exist only in tests.
fn without_tests(text: &str) -> String {
    let mut kept = String::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.trim_start().starts_with("#[cfg(") && line.contains("test") {
            let indent = line.len() - line.trim_start().len();
            let first = lines.find(|line| !line.trim_start().starts_with("#[")).unwrap_or("");
            if !first.trim_end().ends_with(';') {
                // rustfmt closes an item at the indentation at which it began.
                lines.find(|line| {
                    line.len() - line.trim_start().len() == indent && line.trim_start().starts_with('}')
                });
            }
        } else {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    kept
}

/// The sets of modules that depend on each other, as lists of the dependencies between them.
fn circles(arrows: &BTreeMap<(String, String), String>) -> Vec<Vec<String>> {
    let reach = |from: &String| {
        let (mut reached, mut left) = (BTreeSet::new(), vec![from]);
        while let Some(at) = left.pop() {
            for (_, to) in arrows.keys().filter(|(begin, _)| begin == at) {
                if reached.insert(to) {
                    left.push(to);
                }
            }
        }
        reached
    };
    let names: BTreeSet<&String> = arrows.keys().map(|(from, _)| from).collect();
    let reached: BTreeMap<&String, BTreeSet<&String>> =
        names.iter().map(|name| (*name, reach(name))).collect();
    let mutual = |a: &String, b: &String| {
        reached.get(a).is_some_and(|set| set.contains(b)) && reached.get(b).is_some_and(|set| set.contains(a))
    };
    let mut seen = BTreeSet::new();
    let mut circles = Vec::new();
    for name in names.iter().filter(|name| mutual(name, name)) {
        if seen.contains(name) {
            continue;
        }
        let members: BTreeSet<&String> = names.iter().copied().filter(|other| mutual(name, other)).collect();
        let inside = arrows.iter().filter(|((a, b), _)| members.contains(a) && members.contains(b));
        circles.push(inside.map(|((a, b), shown)| format!("{a} -> {b}: {shown}")).collect());
        seen.extend(members);
    }
    circles
}

#[test]
fn no_circle_between_modules_of_a_crate() {
    let mut found = Vec::new();
    for member in members() {
        let src = root().join(&member).join("src");
        for (folder, arrows) in Modules::load(&src).arrows() {
            for circle in circles(&arrows) {
                let place = [vec![member.clone(), "src".to_owned()], folder.clone()].concat().join("/");
                found.push(format!("{place}:\n  {}", circle.join("\n  ")));
            }
        }
    }
    assert!(found.is_empty(), "{} circles of modules:\n{}", found.len(), found.join("\n"));
}

#[test]
fn paths_within_a_crate_begin_with_crate() {
    for member in members() {
        for (module, text) in Modules::load(&root().join(&member).join("src")).texts {
            let found = text.lines().find(|line| line.contains("super::"));
            assert_eq!(found, None, "{member}: {}: write crate:: instead of super::", module.join("/"));
        }
    }
}

#[test]
fn a_circle_through_a_re_export_is_found() {
    let mut modules = Modules::default();
    let module =
        |path: &str| path.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect::<Vec<_>>();
    for (path, text) in [
        ("", "mod plan;\nmod eval;\npub use eval::budget::{Budget, Hold as Held};\n"),
        ("plan", "use std::{fmt, io};\nuse crate::{Held};\n"),
        ("eval", "pub mod budget;\n"),
        ("eval/budget", "// crate::value::Column\nfn f() -> crate::plan::Node {}\n"),
        ("value", "use crate::eval::budget;\n#[cfg(test)]\nmod tests {\n    use crate::plan;\n}\n"),
    ] {
        modules.texts.insert(module(path), without_tests(&without_comments(text)));
    }
    modules.resolve();
    let arrows = modules.arrows();
    let between: Vec<String> = arrows[&Vec::new()].keys().map(|(from, to)| format!("{from}>{to}")).collect();
    assert_eq!(between, ["eval>plan", "plan>eval", "value>eval"]);
    assert_eq!(circles(&arrows[&Vec::new()]).len(), 1);
}
