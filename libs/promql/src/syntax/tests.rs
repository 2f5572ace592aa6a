//! Tests the parser with all expressions of Prometheus' own tests, and with mutated text.

use std::path::PathBuf;
use std::time::Instant;

use super::ast::{DurationArg, DurationExpr, DurationNode, Expr, MAX_HEIGHT, MAX_OPERANDS, Span};
use super::{MAX_LENGTH_BYTES, ParseOptions, parse, parse_selector};

/// The folder of conformance data. Prints a line and returns `None` if it is absent.
fn conformance(path: &str) -> Option<PathBuf> {
    let root = std::env::var_os("ISTHMUS_CONFORMANCE").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/conformance")),
        PathBuf::from,
    );
    let path = root.join(path);
    if path.exists() {
        return Some(path);
    }
    println!("skipped: {} is absent", path.display());
    None
}

#[derive(serde::Deserialize)]
struct SyntaxCase {
    expr: String,
    /// Whether Prometheus accepts it; `None` if unknown.
    ok: Option<bool>,
    src: String,
}

fn corpus() -> Vec<SyntaxCase> {
    let Some(path) = conformance("promql-syntax/corpus.json") else {
        return Vec::new();
    };
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// The tree without positions, in a form in which NaN equals itself.
fn shape(expr: &Expr) -> String {
    format!("{:?}", without_spans(expr))
}

fn without_spans(expr: &Expr) -> Expr {
    let mut expr = expr.clone();
    clear_spans(&mut expr);
    expr
}

fn clear_spans(expr: &mut Expr) {
    let Ok(()) = expr.change_chain::<std::convert::Infallible>(|expr| {
        clear_span(expr);
        match expr {
            Expr::Binary(binary) => clear_spans(&mut binary.rhs),
            _ => expr.for_each_child_mut(clear_spans),
        }
        Ok(())
    });
}

fn clear_span(expr: &mut Expr) {
    let none = Span::default();
    match expr {
        Expr::Number(e) => e.span = none,
        Expr::String(e) => e.span = none,
        Expr::Vector(e) => {
            e.span = none;
            clear_length(&mut e.offset);
            e.matchers.sort_by_key(ToString::to_string);
        }
        Expr::Matrix(e) => {
            (e.span, e.selector.span) = (none, none);
            clear_length(&mut e.range);
            clear_length(&mut e.selector.offset);
            e.selector.matchers.sort_by_key(ToString::to_string);
        }
        Expr::Subquery(e) => {
            e.span = none;
            clear_length(&mut e.range);
            clear_length(&mut e.offset);
            e.step.iter_mut().for_each(clear_length);
        }
        Expr::Paren(e) => e.span = none,
        Expr::Unary(e) => e.span = none,
        Expr::Binary(e) => e.span = none,
        Expr::Aggregate(e) => e.span = none,
        Expr::Call(e) => e.span = none,
    }
}

fn clear_length(length: &mut DurationArg) {
    fn clear(expr: &mut DurationExpr) {
        expr.span = Span::default();
        match &mut expr.node {
            DurationNode::Number { .. } | DurationNode::Step | DurationNode::Range => {}
            DurationNode::Negate(a) => clear(a),
            DurationNode::MinOf(a, b) | DurationNode::MaxOf(a, b) | DurationNode::Binary(_, a, b) => {
                clear(a);
                clear(b);
            }
        }
    }
    if let DurationArg::Expr(expr) = length {
        clear(expr);
    }
}

#[test]
fn prometheus_corpus_is_accepted_and_rejected_alike() {
    let (mut accepted, mut rejected, mut wrong) = (0, 0, Vec::new());
    for case in corpus() {
        let parsed = parse(&case.expr, &ParseOptions::ALL);
        match (parsed, case.ok) {
            (Ok(_), Some(true)) => accepted += 1,
            (Err(_), Some(false)) => rejected += 1,
            (_, None) => {}
            (Ok(expr), Some(false)) => {
                wrong.push(format!("{}: accepted {:?} as {expr}", case.src, case.expr))
            }
            (Err(error), Some(true)) => {
                wrong.push(format!("{}: rejected {:?}: {error}", case.src, case.expr))
            }
        }
    }
    println!("corpus: {accepted} accepted, {rejected} rejected");
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn printing_and_parsing_again_gives_the_same_tree() {
    for case in corpus() {
        let Ok(expr) = parse(&case.expr, &ParseOptions::ALL) else { continue };
        let printed = expr.to_string();
        let again = parse(&printed, &ParseOptions::ALL)
            .unwrap_or_else(|error| panic!("{:?} was printed as {printed:?}: {error}", case.expr));
        assert_eq!(shape(&expr), shape(&again), "{:?} was printed as {printed:?}", case.expr);
        assert_eq!(printed, again.to_string());
    }
}

#[test]
fn errors_have_the_text_and_position_of_prometheus() {
    let check = |text: &str, expected: &str| {
        let error = parse(text, &ParseOptions::ALL).unwrap_err();
        assert_eq!(error.to_string(), expected, "{text}");
    };
    check(r#"x{a=~"b\xffc"}"#, "1:3: parse error: error parsing regexp: invalid UTF-8: `\u{fffd}c`");
    check("", "unknown position: parse error: no expression found in input");
    check("# nothing\n", "1:1: parse error: no expression found in input");
    check("1 +\n", "2:1: parse error: unexpected end of input");
    check("a\n  + on(b) ignoring(c) d", "2:11: parse error: unexpected <ignoring>");
    check("sum(a b)", "1:7: parse error: unexpected identifier \"b\" in aggregation");
    check("sum(a) by b", "1:11: parse error: unexpected identifier \"b\" in grouping opts, expected \"(\"");
    check(
        "sum by (a b) (c)",
        "1:11: parse error: unexpected identifier \"b\" in grouping opts, expected \",\" or \")\"",
    );
    check(
        "a + on (b) group_left == c",
        "1:23: parse error: unexpected <op:==> in grouping opts, expected \"(\"",
    );
    check("\"\\\n\"", "1:1: parse error: unknown escape sequence U+000A");
    check("(a + on (b) group_left)", "1:23: parse error: unexpected \")\" in grouping opts, expected \"(\"");
    check("sum by (+) (c)", "1:9: parse error: unexpected <op:+> in grouping opts, expected label");
    check("sum by ('') (c)", "1:9: parse error: invalid label name for grouping: \"\"");
    check(
        "foo{a b}",
        "1:7: parse error: unexpected identifier \"b\" in label matching, expected label matching operator",
    );
    check("foo{a=~'('}", "1:5: parse error: error parsing regexp: missing closing ): `(`");
    check("foo[5m", "1:7: parse error: unclosed left bracket");
    check("foo[5m:1m", "1:10: parse error: unclosed left bracket");
    check("foo[0]", "1:5: parse error: duration must be greater than 0");
    check("foo[5m] foo", "1:9: parse error: unexpected identifier \"foo\"");
    check(
        "foo offset bar",
        "1:12: parse error: unexpected identifier \"bar\" in offset, expected number, duration, step(), or range()",
    );
    check("foo @ bar", "1:7: parse error: unexpected identifier \"bar\" in @, expected timestamp");
    check(
        "rate(foo)",
        "1:6: parse error: expected type range vector in call to function \"rate\", got instant vector",
    );
    check("rat(foo[5m])", "1:1: parse error: unknown function with name \"rat\"");
    check("'abcdefghijklmn' 1", "1:18: parse error: unexpected number \"1\"");
    check("1 'abcdefghijklmn'", "1:3: parse error: unexpected string \"'abcdefghi\"...");
    check("1 5m", "1:3: parse error: unexpected duration \"5m\"");
    check("f\u{e9}o", "1:2: parse error: unexpected character: 'é'");
    check("{}", "1:1: parse error: vector selector must contain at least one non-empty matcher");
    check("1 == 1", "1:3: parse error: comparisons between scalars must use BOOL modifier");
}

#[test]
fn optional_parts_of_the_language_are_disabled_by_default() {
    let off = ParseOptions { duration_expressions: false, ..ParseOptions::default() };
    let check = |text: &str, expected: &str| {
        let error = parse(text, &off).unwrap_err();
        assert_eq!(error.message(), expected, "{text}");
        assert!(parse(text, &ParseOptions::ALL).is_ok(), "{text}");
    };
    check("info(foo)", "function \"info\" is not enabled");
    check("start()", "function \"start\" is not enabled");
    check("xrate(foo[5m])", "unknown function with name \"xrate\"");
    check(
        "limitk(1, foo)",
        "limitk() is experimental and must be enabled with --enable-feature=promql-experimental-functions",
    );
    check("foo[5m+1m]", "experimental duration expression is not enabled");
    check("foo offset (5m)", "experimental duration expression is not enabled");
    check("foo anchored", "anchored modifier is experimental and not enabled");
    check("foo[5m] smoothed", "smoothed modifier is experimental and not enabled");
    check("foo + fill(0) bar", "binop fill modifiers are experimental and not enabled");
    for stable in ["foo offset -5m", "foo[300]", "foo @ start()", "fill + fill_left", "foo offset -(5)"] {
        assert!(parse(stable, &off).is_ok(), "{stable}");
    }
    assert!(parse("foo[5m+1m]", &ParseOptions::default()).is_ok());
}

#[test]
fn operators_bind_as_in_prometheus() {
    /// The expression with parentheses around each operator.
    fn grouped(expr: &Expr) -> String {
        match expr {
            Expr::Binary(e) => format!("({} {} {})", grouped(&e.lhs), e.op, grouped(&e.rhs)),
            Expr::Unary(e) => format!("({}{})", e.op.as_str(), grouped(&e.expr)),
            other => other.to_string(),
        }
    }
    let check = |text: &str, expected: &str| {
        assert_eq!(grouped(&parse(text, &ParseOptions::ALL).unwrap()), expected, "{text}");
    };
    check("1 + 2 * 3 ^ 4 ^ 5 - 6", "((1 + (2 * (3 ^ (4 ^ 5)))) - 6)");
    check("a or b and c unless d == e", "(a or ((b and c) unless (d == e)))");
    check("-1 ^ 2", "(-(1 ^ 2))");
    check("-a * b", "((-a) * b)");
    check("2 ^ -3 * 4", "((2 ^ -3) * 4)");
    check("a - -b ^ c", "(a - (-(b ^ c)))");
    check("-+-1", "1");
    check("--a", "(-(-a))");
    check("a atan2 b % c", "((a atan2 b) % c)");
    check("foo offset 5m - 3", "(foo offset 5m - 3)");
    check("foo offset -1 ^ 2", "(foo offset -1s ^ 2)");
    check("foo offset (5m) + 3", "foo offset (5m) + 3");
    check("-foo offset 5m", "(-foo offset 5m)");
}

#[test]
fn nodes_have_their_position_in_the_text() {
    fn places<'a>(expr: &Expr, text: &'a str, out: &mut Vec<&'a str>) {
        let span = expr.span();
        out.push(&text[span.start as usize..span.end as usize]);
        expr.for_each_child(|child| places(child, text, out));
    }
    let check = |text: &str, expected: &[&str]| {
        let mut found = Vec::new();
        places(&parse(text, &ParseOptions::ALL).unwrap(), text, &mut found);
        assert_eq!(found, expected);
    };
    check(" sum by (a) (b{c='é'} offset 5m) ", &["sum by (a) (b{c='é'} offset 5m)", "b{c='é'} offset 5m"]);
    check(
        "(a) +  -rate(b[5m:1m] @ 5)",
        &[
            "(a) +  -rate(b[5m:1m] @ 5)",
            "(a)",
            "a",
            "-rate(b[5m:1m] @ 5)",
            "rate(b[5m:1m] @ 5)",
            "b[5m:1m] @ 5",
            "b",
        ],
    );
    check(
        "rate( a[5m] anchored ) * - 5",
        &["rate( a[5m] anchored ) * - 5", "rate( a[5m] anchored )", "a[5m] anchored", "- 5"],
    );
}

#[test]
fn parse_selector_accepts_a_selector_of_all_series() {
    let shown =
        |text: &str| parse_selector(text).map(|m| m.iter().map(ToString::to_string).collect::<Vec<_>>());
    assert_eq!(shown("up{job=~'a|b'}").unwrap(), ["job=~\"a|b\"", "__name__=\"up\""]);
    assert_eq!(shown("{}").unwrap(), [""; 0]);
    assert_eq!(shown("up[5m]").unwrap_err().to_string(), "1:3: parse error: unexpected \"[\"");
    assert_eq!(shown("1").unwrap_err().to_string(), "1:1: parse error: unexpected number \"1\"");
}

/// Fails if `text` is accepted, or is rejected with a message that does not contain `why`.
fn check_rejected(text: &str, why: &str) {
    let error = parse(text, &ParseOptions::ALL).unwrap_err();
    assert!(error.message().contains(why), "{}", &error.message()[..200.min(error.message().len())]);
}

#[test]
fn long_and_deeply_nested_texts_are_rejected_quickly() {
    let deep = format!("nested deeper than the limit of {MAX_HEIGHT} levels");
    for (open, inner, close) in [
        ("(", "1", ")"),
        ("abs(", "a", ")"),
        ("sum(", "a", ")"),
        ("-", "a", ""),
        ("a^", "a", ""),
        ("", "a", "[1m:]"),
        ("a[", "1", ""),
        ("a or on(b) (", "c", ")"),
    ] {
        let nested = |times: usize| open.repeat(times) + inner + &close.repeat(times);
        let times = (MAX_LENGTH_BYTES - inner.len()) / (open.len() + close.len());
        match open {
            // A bracket inside another is an error for a different reason.
            "a[" => check_rejected(&nested(times), ""),
            _ => check_rejected(&nested(times), &deep),
        }
    }
    for open in ["a[(", "a[-(", "a offset (", "a offset max_of(1,"] {
        check_rejected(&(open.to_owned() + &"(".repeat(100_000) + "1"), &deep);
    }
    check_rejected(&"a".repeat(MAX_LENGTH_BYTES + 1), "longer than the limit of 524288 bytes");
    // The deepest tree that is allowed fits the stack of an ordinary thread in all code that walks it.
    let deepest = "(".repeat(MAX_HEIGHT - 1) + "1" + &")".repeat(MAX_HEIGHT - 1);
    let expr = parse(&deepest, &ParseOptions::ALL).unwrap();
    assert_eq!(expr.clone().to_string(), deepest);
}

#[test]
fn long_chains_of_operators_are_accepted() {
    for (operand, operator) in [
        ("a", " + "),
        ("1", " - "),
        ("a", " or on (b) "),
        ("a{b=\"c\"}", " / "),
        ("a offset (1m)", " == bool "),
        ("a offset +(1m)", " * "),
        ("sum(a)", " </ "),
    ] {
        let longest = vec![operand; MAX_OPERANDS / if operand == "sum(a)" { 2 } else { 1 }].join(operator);
        let expr = parse(&longest, &ParseOptions::ALL).unwrap();
        let again = parse(&expr.to_string(), &ParseOptions::ALL).unwrap();
        assert!(without_spans(&expr) == without_spans(&again), "{operand}{operator}");
        assert!(expr.clone() == expr);
        let longer = longest + operator + operand;
        check_rejected(&longer, &format!("more than the limit of {MAX_OPERANDS} operands"));
    }
    // `^` is right-associative, so its chains are limited like any other nesting.
    let power = vec!["a"; MAX_HEIGHT - 1].join(" ^ ");
    assert_eq!(parse(&power, &ParseOptions::ALL).unwrap().to_string(), power);
}

#[test]
fn regular_expressions_share_one_memory_limit() {
    let large = |count: usize| -> String {
        let matchers: Vec<String> = (0..count).map(|i| format!("a{i}=~'[a-z_]{{900}}'")).collect();
        format!("x{{{}}}", matchers.join(","))
    };
    parse(&large(10), &ParseOptions::ALL).unwrap();
    let error = parse(&large(5000), &ParseOptions::ALL).unwrap_err().to_string();
    assert!(error.contains("regular expressions need more than 64 MiB together"), "{error}");
    // The position is that of the first expression that exceeds the limit.
    let place: usize = error.split(':').nth(1).and_then(|column| column.parse().ok()).unwrap();
    assert!((100..50_000).contains(&place), "{error}");
    // Lists of literals need no memory in addition to their own text.
    let lists: Vec<String> = (0..2000).map(|i| format!("a{i}=~'x{i}|y{i}'")).collect();
    parse(&format!("x{{{}}}", lists.join(",")), &ParseOptions::ALL).unwrap();
}

#[test]
#[allow(clippy::disallowed_methods, reason = "the crate has no clock; this test measures it from outside")]
fn parsing_takes_time_linear_in_the_length() {
    let per_byte = |text: &str| {
        let start = Instant::now();
        let _ = std::hint::black_box(parse(text, &ParseOptions::ALL));
        start.elapsed().as_secs_f64() / text.len() as f64
    };
    // The items differ, so that a linear search for each item would show in the time.
    let wide = |open: &str, item: &str, close: &str, items: usize| {
        let items: Vec<String> = (0..items).map(|i| item.replace('#', &i.to_string())).collect();
        let others = items.join(",").replace('a', "c");
        open.replace('@', &others) + &items.join(",") + close
    };
    for (open, item, close) in [
        ("label_join(a, 'b', ", "'c#'", ")"),
        ("sum by (", "a#", ") (b)"),
        ("a{", "b#='c'", "}"),
        ("a{b='", "\\\\", "'}"),
        ("a * on (@) group_left (x, ", "a#", ") b"),
        ("a + ignoring (@) group_left (", "a#", ") b"),
    ] {
        // The best of several runs, so that other load on the machine does not matter.
        let best = |items| {
            let text = wide(open, item, close, items);
            (0..5).map(|_| per_byte(&text)).fold(f64::INFINITY, f64::min)
        };
        let (short, long) = (best(500), best(25_000));
        assert!(
            long < short * 20.0 + 1e-7,
            "{open}: {short:e} seconds per byte for short texts, {long:e} for long ones"
        );
    }
}

/// A linear congruential generator: the same numbers in each run.
struct Lcg(u64);

impl Lcg {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }
}

/// Removes, duplicates, swaps or replaces parts of `text`, or joins it with a part of `other`.
fn mutate(text: &str, other: &str, random: &mut Lcg) -> String {
    const INSERTS: [&str; 24] = [
        "(", ")", "[", "]", "{", "}", "\"", "'", "`", "\\", ",", ":", "-", "@", " offset ", "5m", "\u{e9}",
        "\0", "#", " by ", "^", "0x", "=~", "\u{fffd}",
    ];
    let mut chars: Vec<char> = text.chars().collect();
    for _ in 0..=random.below(3) {
        let at = random.below(chars.len() + 1);
        let end = (at + random.below(8)).min(chars.len());
        match random.below(5) {
            0 => drop(chars.drain(at..end)),
            1 => {
                let part: Vec<char> = chars[at..end].to_vec();
                chars.splice(at..at, part);
            }
            2 => drop(chars.splice(at..at, INSERTS[random.below(INSERTS.len())].chars())),
            3 => {
                let tail = other.chars().skip(random.below(other.len() + 1));
                chars.splice(at.., tail);
            }
            _ if at < chars.len() => {
                let with = random.below(chars.len());
                chars.swap(at, with);
            }
            _ => {}
        }
    }
    chars.into_iter().collect()
}

#[test]
fn mutated_text_never_panics_and_accepted_text_can_be_printed() {
    let seed = 2;
    println!("seed {seed}");
    let mut random = Lcg(seed);
    let cases = corpus();
    if cases.is_empty() {
        return;
    }
    let mut accepted = 0;
    for _ in 0..200_000 {
        let text = mutate(
            &cases[random.below(cases.len())].expr,
            &cases[random.below(cases.len())].expr,
            &mut random,
        );
        match parse(&text, &ParseOptions::ALL) {
            Ok(expr) => {
                accepted += 1;
                let printed = expr.to_string();
                let again = parse(&printed, &ParseOptions::ALL)
                    .unwrap_or_else(|error| panic!("{text:?} was printed as {printed:?}: {error}"));
                assert_eq!(shape(&expr), shape(&again), "{text:?} was printed as {printed:?}");
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
    println!("{accepted} of 200000 mutated expressions are accepted");
}
