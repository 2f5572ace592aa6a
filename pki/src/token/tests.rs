use proptest::prelude::*;

use super::*;

fn token() -> JoinToken {
    let issuer = "spiffe://test.example/cluster/observability/gateway".parse().unwrap();
    let pins = vec![SpkiPin::of_spki(b"active"), SpkiPin::of_spki(b"standby")];
    let addresses = vec!["gw.example.org:10943".to_owned(), "[2001:db8::1]:443".to_owned()];
    JoinToken::new(issuer, "eu-1".parse().unwrap(), addresses, pins, Secret::new(vec![0xa7; 32])).unwrap()
}

/// Encodes bytes as the content of a token, with the right length and checksum.
fn encode(version: u8, content: &[u8]) -> String {
    let mut bytes = vec![version];
    bytes.extend(((3 + content.len() + CHECKSUM_LEN) as u16).to_be_bytes());
    bytes.extend(content);
    bytes.extend(checksum(&bytes));
    format!("{TOKEN_PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))
}

#[test]
fn text_round_trips() {
    let token = token();
    let text = token.to_text();
    let again = JoinToken::parse(&format!("  {}\n", text.expose())).unwrap();
    assert_eq!(again.trust_domain().as_str(), "test.example");
    assert_eq!(again.issuer(), token.issuer());
    assert_eq!(again.subject().to_string(), "spiffe://test.example/cluster/eu-1/gateway");
    assert_eq!((again.addresses(), again.pins()), (token.addresses(), token.pins()));
    assert_eq!(again.secret(), [0xa7; 32]);
    assert_eq!(again.to_text().expose(), text.expose());
}

#[test]
fn each_kind_of_malformed_token_has_its_error() {
    let good = token().to_text().expose().clone();
    let check = |text: &str, expected: TokenError| {
        assert_eq!(JoinToken::parse(text).unwrap_err(), expected, "{text}")
    };
    check("", TokenError::NotAToken);
    check("hello", TokenError::NotAToken);
    check("ISTHMUS_JOIN_AAAA", TokenError::NotAToken);
    check(TOKEN_PREFIX, TokenError::Truncated);
    check(&good[..TOKEN_PREFIX.len() + 2], TokenError::Truncated);
    check(&good[..good.len() - 8], TokenError::Truncated);
    check(&format!("{good}AAAA"), TokenError::TooLong);
    check(&format!("{good}{}", "A".repeat(5000)), TokenError::TooLong);
    check(&good.replacen("A", "*", 1), TokenError::Character(good.find('A').unwrap() + 1));
    check(&encode(2, b"whatever the future brings"), TokenError::Version(2));
    let at = good.len() - 20;
    let other = if &good[at..=at] == "A" { "B" } else { "A" };
    check(&format!("{}{other}{}", &good[..at], &good[at + 1..]), TokenError::Checksum);
    check(&encode(1, b""), TokenError::Truncated);

    let part = JoinToken::parse(&encode(1, b"\x03T_D\x01o\x01c")).unwrap_err().to_string();
    assert!(part.contains("trust domain is malformed") && !part.contains('\n'), "{part}");
    let part = JoinToken::parse(&encode(1, b"\x02td\x01o\x01c\x00")).unwrap_err().to_string();
    assert!(part.contains("addresses is malformed: expected 1 to 8"), "{part}");
    let part = JoinToken::parse(&encode(1, b"\x02\xff\xff\x01o\x01c\x00")).unwrap_err().to_string();
    assert!(part.contains("not valid UTF-8"), "{part}");
}

#[test]
fn every_prefix_of_a_token_is_incomplete() {
    let good = token().to_text().expose().clone();
    for len in TOKEN_PREFIX.len()..good.len() {
        assert_eq!(JoinToken::parse(&good[..len]).unwrap_err(), TokenError::Truncated, "{len}");
    }
}

#[test]
fn addresses_must_be_host_and_port() {
    for good in
        ["a:1", "gw.example.org:10943", "gw.example.org.:1", "10.0.0.1:65535", "[::1]:443", "my_host-1:80"]
    {
        check_address(good).unwrap();
    }
    let long = format!("{}:1", "a.".repeat(200));
    for bad in [
        "",
        "a",
        ":1",
        "a:",
        "a:0",
        "a:65536",
        "a:+1",
        "a:1x",
        "::1:443",
        "[::1",
        "[::1]",
        "[a]:1",
        "a b:1",
        "a/b:1",
        "a:1:2",
        "http://a:1",
        "-a:1",
        "a..b:1",
        "a..:1",
        ".:1",
        "a\n:1",
        &long,
    ] {
        let error = check_address(bad).unwrap_err().to_string();
        assert!(error.contains("address is malformed") && !error.contains('\n'), "{bad:?}: {error}");
    }
}

#[test]
fn neither_debug_nor_errors_contain_the_secret() {
    let token = token();
    let text = token.to_text();
    let secret_text = URL_SAFE_NO_PAD.encode([0xa7; 30]);
    assert!(text.expose().contains(&secret_text[4..30]), "the canary is not in the token's text");
    let mut shown = format!("{token:?} {text:?}");
    for cut in 0..text.expose().len() {
        shown += &format!("{:?}", JoinToken::parse(&text.expose()[..cut]).map_err(|e| (e.to_string(), e)));
        shown += &format!("{:?}", JoinToken::parse(&text.expose()[cut..]).map_err(|e| (e.to_string(), e)));
    }
    assert!(!shown.contains(&secret_text[4..30]) && !shown.contains("167, 167"), "{shown}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn any_text_is_parsed_or_rejected_without_panic(text in "(isthmus_join_)?[A-Za-z0-9_-]{0,200}|.{0,50}") {
        let _ = JoinToken::parse(&text);
    }

    #[test]
    fn any_content_is_parsed_or_rejected_without_panic(
        content in prop::collection::vec(any::<u8>(), 0..300),
        good_start in any::<bool>(),
    ) {
        let start: &[u8] = if good_start { b"\x02td\x01o\x01c\x01\x03a:1\x01" } else { b"" };
        if let Ok(token) = JoinToken::parse(&encode(1, &[start, &content].concat())) {
            let text = token.to_text();
            let again = JoinToken::parse(text.expose()).unwrap();
            prop_assert_eq!(again.pins(), token.pins());
        }
    }
}
