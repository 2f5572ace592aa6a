//! Regular expressions: any pattern is compiled or rejected. All functions that match it give the same
//! result.

#![no_main]

use libfuzzer_sys::fuzz_target;
use model::{MatchOp, Matcher, Regex};

fuzz_target!(|input: (&str, &str)| {
    let (pattern, text) = input;
    let Ok(regex) = Regex::new(pattern) else {
        assert!(Matcher::new(MatchOp::Regex, "a", pattern).is_err());
        return;
    };
    let matcher = Matcher::new(MatchOp::Regex, "a", pattern).expect("it was compiled above");
    let not = Matcher::new(MatchOp::NotRegex, "a", pattern).expect("it was compiled above");
    for text in [text, "", pattern] {
        let groups = regex.groups(text).is_some();
        assert_eq!(matcher.matches(text), groups, "{pattern:?} on {text:?}");
        assert_eq!(not.matches(text), !groups, "{pattern:?} on {text:?}");
    }
});
