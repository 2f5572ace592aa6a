//! Compares the parser with Go's answers, and the string comparisons with the automaton.

use super::threads::CharProgram;
use super::threads::NOWHERE;
use super::{MAX_STATES, Machine, Regex, automaton, parse};

/// Go's answers: `pattern  match("text")=true` or `pattern  ERR message`.
fn go_cases() -> Vec<(String, String)> {
    let root = std::env::var_os("ISTHMUS_CONFORMANCE").map_or_else(
        || std::path::PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/conformance")),
        std::path::PathBuf::from,
    );
    let path = root.join("regex/re2-go.txt");
    let Ok(text) = std::fs::read_to_string(&path) else {
        println!("skipped: {} is absent", path.display());
        return Vec::new();
    };
    let split = |line: &str| {
        let at = line.rfind(" match(").or_else(|| line.find(" ERR ")).expect("a line has an answer");
        let pattern = &line[..at];
        // Only one pattern ends with a space: a backslash followed by a space.
        let trimmed = pattern.trim_end();
        let pattern = if trimmed == "\\" { "\\ " } else { trimmed };
        (pattern.to_owned(), line[at + 1..].to_owned())
    };
    text.lines().filter(|line| !line.is_empty()).map(split).collect()
}

/// The text of a Go string literal.
fn unquote(literal: &str) -> String {
    let mut text = String::new();
    let mut chars = literal.chars();
    while let Some(c) = chars.next() {
        let escaped = if c == '\\' { chars.next() } else { None };
        let digits = match escaped {
            None => {
                text.push(c);
                continue;
            }
            Some('x') => 2,
            Some('u') => 4,
            Some('U') => 8,
            Some(plain) => {
                text.push(match plain {
                    'a' => '\x07',
                    'f' => '\x0c',
                    'n' => '\n',
                    't' => '\t',
                    'v' => '\x0b',
                    plain => plain,
                });
                continue;
            }
        };
        let code: String = chars.by_ref().take(digits).collect();
        text.push(char::from_u32(u32::from_str_radix(&code, 16).unwrap()).unwrap());
    }
    text
}

#[test]
fn all_patterns_give_the_answers_of_go() {
    let cases = go_cases();
    let mut wrong = Vec::new();
    for (pattern, answer) in &cases {
        let ours = match Regex::new(pattern) {
            Err(error) => format!("ERR {error}"),
            Ok(regex) => {
                let text =
                    answer.strip_prefix("match(\"").and_then(|a| a.rsplit_once("\")=")).map(|(text, _)| text);
                match text {
                    None => "accepted".to_owned(),
                    Some(text) => format!("match(\"{text}\")={}", regex.is_match(&unquote(text))),
                }
            }
        };
        // Go compiled the expression with anchors; Prometheus parses it without them.
        let theirs = answer.replace(&format!("`^(?s:{pattern})$`"), &format!("`{pattern}`"));
        if ours != theirs {
            wrong.push(format!("{pattern}: {theirs}, we say {ours}"));
        }
    }
    println!("{} patterns", cases.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn errors_name_the_part_that_is_wrong() {
    let check = |pattern: &str, expected: &str| {
        assert_eq!(Regex::new(pattern).unwrap_err().to_string(), format!("error parsing regexp: {expected}"));
    };
    check("a**", "invalid nested repetition operator: `**`");
    check("a{2}{3}", "invalid nested repetition operator: `{2}{3}`");
    check("x(*)", "missing argument to repetition operator: `*`");
    check("*?", "missing argument to repetition operator: `*?`");
    check("a{5,2}", "invalid repeat count: `{5,2}`");
    check("(a{10}){101}?", "invalid repeat count: `{101}?`");
    check("[b-a]", "invalid character class range: `b-a`");
    check("[[:foo:]]", "invalid character class range: `[:foo:]`");
    check("[abc", "missing closing ]: `[abc`");
    check("x\\", "trailing backslash at end of expression: ``");
    check("(?P<a-b>x)", "invalid named capture: `(?P<a-b>`");
    check("(?P<a", "invalid named capture: `(?P<a`");
    check("(?i-)", "invalid or unsupported Perl syntax: `(?i-)`");
    check("\\x{110000}", "invalid escape sequence: `\\x{110000`");
    check(r"\p{IsGreek}", r"invalid character class range: `\p{IsGreek}`");
}

#[test]
fn expressions_beyond_the_limits_are_rejected() {
    for (pattern, why) in [
        ("(".repeat(300) + &")".repeat(300), "nests too deeply"),
        ("a".to_owned() + &"*(?i)".repeat(100_000), "nests too deeply"),
        ("(?:".repeat(100_000), "nests too deeply"),
        ("(a{0,1000}){0,1000}".to_owned(), "invalid repeat count"),
        ("(x{1000}){1000}".to_owned(), "invalid repeat count"),
        ("(.{0,1000}){50}".to_owned(), "invalid repeat count"),
        ("((((x{30}){30}){30}){30}){30}".to_owned(), "invalid repeat count"),
        (".{0,1000}".repeat(20_000), "expression too large"),
        ("(?:a{1000}b{1000}){2}".repeat(2000), "invalid repeat count"),
        (r"\pL".repeat(30_000), "expression too large"),
    ] {
        let error = Regex::new(&pattern).unwrap_err().to_string();
        assert!(error.contains(why), "{}...: {}", &pattern[..9], &error[..80.min(error.len())]);
    }
    assert!(Regex::new(&"(".repeat(200)).is_err());
    assert!(Regex::new(&("(".repeat(200) + &")".repeat(200))).is_ok());
}

#[test]
fn large_expressions_that_go_accepts_are_accepted() {
    let branches: Vec<String> = (0..8000).map(|at| format!("svc-{at}.*prod")).collect();
    let regex = Regex::new(&branches.join("|")).unwrap();
    assert!(regex.is_match("svc-7999-eu-prod") && !regex.is_match("svc-x-prod"));
    assert!(Regex::new(r"\pL{500}").is_ok_and(|regex| !regex.is_match("é")));
    let words: Vec<String> = (0..100_000).map(|at| format!("word{at}")).collect();
    assert!(Regex::new(&words.join("|")).unwrap().is_match("word99999"));
}

#[test]
fn expressions_with_huge_automata_are_matched_in_linear_time() {
    let (word, text) = ("é".repeat(1000), "x".repeat(4999));
    for (pattern, matching, other) in [
        (r"\pL{1000}".to_owned(), word.as_str(), text.as_str()),
        (r"(\pL{1000}|\d)".repeat(5), &*format!("1{word}234"), &*text),
        (r"[\pL\pN]{0,1000}\PL".repeat(50), &*"é!".repeat(50), &*text),
        ("(a*)*b".to_owned(), &*("a".repeat(5000) + "b"), &*"a".repeat(5000)),
        ("(a|aa)+".to_owned(), &*"a".repeat(5000), &*("a".repeat(5000) + "b")),
        ("(x+x+)+y".to_owned(), &*(text.clone() + "y"), &*text),
        ("(.*)*=.*".to_owned(), "==", &*text),
    ] {
        let regex = Regex::new(&pattern).unwrap();
        assert!(regex.is_match(matching), "{pattern}");
        assert!(!regex.is_match(other), "{pattern}");
        let (_, size) = parse::parse(&pattern).unwrap();
        assert_eq!(matches!(regex.machine, Some(Machine::Threads(_))), size.states > MAX_STATES, "{pattern}");
    }
    let regex = Regex::new(r"(?P<head>\pL{500})(\pL{500})").unwrap();
    let groups = regex.groups(&word).unwrap();
    assert_eq!((groups.get(0).map(str::len), groups.name("head").map(str::len)), (Some(2000), Some(1000)));
    assert_eq!((groups.get(2), groups.get(3), groups.name("tail")), (Some(&word[1000..]), None, None));
}

#[test]
fn expressions_with_few_matches_list_their_literals() {
    let check = |pattern: &str, expected: Option<&[&str]>| {
        let regex = Regex::new(pattern).unwrap();
        let literals = regex.literals().map(|l| l.iter().map(AsRef::as_ref).collect::<Vec<&str>>());
        assert_eq!(literals.as_deref(), expected, "{pattern}");
    };
    check("", Some(&[""]));
    check("foo", Some(&["foo"]));
    check("^foo$", Some(&["foo"]));
    check("b|a|b", Some(&["a", "b"]));
    check("(api|web)-[1-3]", Some(&["api-1", "api-2", "api-3", "web-1", "web-2", "web-3"]));
    check("(?i:ab)", Some(&["AB", "Ab", "aB", "ab"]));
    check("https?", Some(&["http", "https"]));
    check("(a|b){2}", Some(&["aa", "ab", "ba", "bb"]));
    check(r"a\.b|\Qc.d\E", Some(&["a.b", "c.d"]));
    check("a*", None);
    check("a.c", None);
    check(".*", None);
    check("[a-z]{4}", None);
    let many: Vec<String> = (0..5000).map(|i| format!("pod-{i:05}")).collect();
    let regex = Regex::new(&many.join("|")).unwrap();
    assert_eq!(regex.literals().map(<[_]>::len), Some(5000));
    assert!(regex.is_match("pod-04999") && !regex.is_match("pod-05000"));
    assert_eq!(regex.prefix(), "pod-0");
}

#[test]
fn common_prefixes_are_found() {
    for (pattern, expected) in [
        ("foo.*", "foo"),
        ("foo[0-9]+", "foo"),
        ("fo(o|x).*", "fo"),
        ("(foo).+", "foo"),
        (".*", ""),
        ("foo|fox", "fo"),
    ] {
        assert_eq!(Regex::new(pattern).unwrap().prefix(), expected, "{pattern}");
    }
}

/// A linear congruential generator: the same numbers in each run.
struct Lcg(u64);

impl Lcg {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len())]
    }
}

#[test]
fn string_comparisons_agree_with_the_automaton() {
    const PARTS: [&str; 18] = [
        "a", "b", "ab", "é", ".*", ".+", ".", "|", "(a|b)", "(", ")", "[ab]", "a?", "(?i)", "^", "$",
        "b{0,2}", "(?-s:.)*",
    ];
    const TEXT: [&str; 6] = ["a", "b", "é", "A", "\n", "ab"];
    let seed = 7;
    println!("seed {seed}");
    let mut random = Lcg(seed);
    let (mut decided, mut compared) = (0, 0);
    for _ in 0..6000 {
        let pattern: String = (0..random.below(6)).map(|_| random.pick(&PARTS)).collect();
        let Ok(regex) = Regex::new(&pattern) else { continue };
        let (hir, _) = parse::parse(&pattern).unwrap();
        let (program, oracle) = (CharProgram::new(&hir), automaton(hir).unwrap());
        decided += usize::from(regex.machine.is_none());
        for _ in 0..20 {
            let text: String = (0..random.below(6)).map(|_| random.pick(&TEXT)).collect();
            assert_eq!(regex.is_match(&text), oracle.is_match(&text), "{pattern:?} on {text:?}");
            assert_eq!(regex.groups(&text).is_some(), oracle.is_match(&text), "{pattern:?} on {text:?}");
            assert_eq!(program.is_match(&text), oracle.is_match(&text), "{pattern:?} on {text:?}");
            let groups = program.groups(&text);
            let mut captures = oracle.create_captures();
            oracle.captures(&*text, &mut captures);
            let expected = captures.is_match().then(|| {
                let spans = (0..captures.group_len()).map(|group| captures.get_group(group));
                spans.flat_map(|span| span.map_or([NOWHERE; 2], |s| [s.start, s.end])).collect::<Vec<_>>()
            });
            assert_eq!(groups, expected, "{pattern:?} on {text:?}");
            assert!(!regex.is_match(&text) || text.starts_with(regex.prefix()), "{pattern:?} on {text:?}");
            compared += 1;
        }
    }
    println!("{compared} comparisons, {decided} patterns decided by string comparisons");
    assert!(decided > 500);
}

#[test]
fn malformed_expressions_never_panic() {
    const BYTES: &[u8] = b"ab(){}[]|*+?.^$\\-:<>P=i0129,QEpNdwsxz";
    let seed = 11;
    println!("seed {seed}");
    let mut random = Lcg(seed);
    for _ in 0..100_000 {
        let pattern: String =
            (0..random.below(12)).map(|_| char::from(BYTES[random.below(BYTES.len())])).collect();
        if let Ok(regex) = Regex::new(&pattern) {
            regex.is_match("ab");
        }
    }
}

#[test]
fn groups_return_the_text_they_matched() {
    let check = |pattern: &str, text: &str, expected: &[Option<&str>]| {
        let regex = Regex::new(pattern).unwrap();
        let groups = regex.groups(text).unwrap();
        let found: Vec<_> = (0..expected.len()).map(|i| groups.get(i)).collect();
        assert_eq!(found, expected, "{pattern}");
    };
    check("(a|b)c", "bc", &[Some("bc"), Some("b"), None]);
    check("x(.*)-(.*)", "x1-2-3", &[Some("x1-2-3"), Some("1-2"), Some("3")]);
    check("(?U)x(.*)-(.*)", "x1-2-3", &[Some("x1-2-3"), Some("1"), Some("2-3")]);
    check("(a)|(b)", "b", &[Some("b"), None, Some("b")]);
    check("(?P<n>.)(?P<n>.)", "ab", &[Some("ab"), Some("a"), Some("b")]);
    let regex = Regex::new("(?P<first>a+)(?<second>b*)").unwrap();
    let groups = regex.groups("aab").unwrap();
    assert_eq!(
        (groups.name("first"), groups.name("second"), groups.name("third")),
        (Some("aa"), Some("b"), None)
    );
}

#[test]
fn expanded_bytes_is_the_length_of_the_expansion() {
    let regex = Regex::new("(?P<n>.*)-(.*)").unwrap();
    let groups = regex.groups("abc-é").unwrap();
    for template in ["", "x", "$1$2$n$$", "${n}-$", "$9${", "$1".repeat(50).as_str()] {
        assert_eq!(groups.expanded_bytes(template), groups.expand(template).len(), "{template}");
    }
}

#[test]
fn size_includes_the_memory_for_groups() {
    let plain = Regex::with_groups("(.*)-(.*)").unwrap();
    assert!((1..1 << 16).contains(&plain.size_bytes()), "{}", plain.size_bytes());
    let words: Vec<String> = (0..1000).map(|at| format!("word{at}")).collect();
    let listed = format!("({})", words.join("|"));
    assert_eq!(Regex::new(&listed).unwrap().size_bytes(), 0, "string comparisons decide");
    let regex = Regex::with_groups(&listed).unwrap();
    let counted = regex.size_bytes();
    assert!(counted > 1000 * 4 * 2 * 8);
    assert_eq!(regex.groups("word7").unwrap().get(1), Some("word7"));
    assert_eq!(regex.size_bytes(), counted);
    // Thousands of threads have thousands of slots each.
    for part in [r"(\pL?)", "([a-z]?)"] {
        assert!(Regex::with_groups(&part.repeat(1500)).unwrap().size_bytes() > 64 << 20, "{part}");
    }
}

#[test]
fn thousands_of_groups_are_recorded() {
    let regex = Regex::new(&(r"(\pL?)".repeat(400) + "(x|(y))*")).unwrap();
    assert!(matches!(regex.machine, Some(Machine::Threads(_))));
    let groups = regex.groups("abcyx").unwrap();
    let found: Vec<_> = [1, 2, 3, 4, 5, 6, 400, 401, 402].map(|at| groups.get(at)).into();
    let [a, b, c, y, x, none] = [Some("a"), Some("b"), Some("c"), Some("y"), Some("x"), Some("")];
    assert_eq!(found, [a, b, c, y, x, none, none, None, None]);
    let groups = regex.groups("1").map(|groups| groups.get(0).map(str::to_owned));
    assert_eq!(groups, None);
}

#[test]
fn a_run_costs_only_what_its_threads_do() {
    let regex = Regex::new(&r"\pL".repeat(500)).unwrap();
    let Some(Machine::Threads(program)) = &regex.machine else {
        panic!("expected a program over characters")
    };
    for text in ["1", "abc", "é1", ""] {
        assert!(!regex.is_match(text));
    }
    // One round for the start of each text, and one for each character that a thread waits for.
    assert_eq!(program.rounds(), [10]);
    let word = "é".repeat(500);
    assert!(regex.is_match(&word) && !regex.is_match(&word[2..]) && !regex.is_match(&(word.clone() + "é")));
}
