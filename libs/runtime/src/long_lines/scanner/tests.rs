//! Tests of the scanner, with requests in one piece and byte by byte.

use super::*;

/// What hyper reads, and what each request line lacks then.
fn scan(input: &[u8], piece: usize) -> (Vec<u8>, Vec<LineNote>) {
    let notes = LineNotes::default();
    let (mut scanner, mut out) = (LineScanner::new(notes.clone()), BytesMut::new());
    for bytes in input.chunks(piece) {
        scanner.offer(bytes, &mut out);
    }
    let notes = std::mem::take(&mut *notes.0.lock().unwrap()).into();
    (out.to_vec(), notes)
}

fn check(input: &[u8], expected: &[u8], notes: &[LineNote]) {
    for piece in [1, 2, 3, 7, 1000, usize::MAX] {
        let (out, found) = scan(input, piece);
        assert!(
            out == expected,
            "pieces of {piece}: {:?}",
            String::from_utf8_lossy(&out[..out.len().min(300)])
        );
        assert_eq!(found, notes, "pieces of {piece}");
    }
}

fn long_query() -> String {
    format!("query={}", "x".repeat(100_000))
}

#[test]
fn requests_with_short_lines_are_unchanged() {
    use LineNote::Nothing;
    let get = b"GET /a?b=c HTTP/1.1\r\nhost: x\r\n\r\n";
    check(get, get, &[Nothing]);
    let many = [
        &b"\r\nGET /a HTTP/1.1\nhost: x\n\n"[..],
        b"POST /b HTTP/1.1\r\nContent-Length: 20\r\n\r\nGET /?x HTTP/1.1\r\n\r\n",
        b"POST /c HTTP/1.1\r\ntransfer-encoding: Chunked\r\n\r\n5\r\nGET /\r\n1;x=y\r\n\n\r\n0\r\ntrailer: x\r\n\r\n",
        b"GET /d HTTP/1.0\r\ncontent-length: 0\r\n\r\n",
    ]
    .concat();
    check(&many, &many, &[Nothing, Nothing, Nothing, Nothing]);
}

#[test]
fn query_of_a_long_line_is_noted_and_removed_in_each_request_of_a_connection() {
    let query = long_query();
    let long = format!("GET /api/v1/query?{query} HTTP/1.1\r\nhost: x\r\n\r\n");
    let short = "GET /api/v1/query HTTP/1.1\r\nhost: x\r\n\r\n";
    let noted = || LineNote::Query(query.clone().into());
    check(long.as_bytes(), short.as_bytes(), &[noted()]);
    let bodies = "POST /a HTTP/1.1\r\ncontent-length: 3\r\n\r\nabc\
                  POST /a HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    check(
        format!("{bodies}{long}{bodies}{long}").as_bytes(),
        format!("{bodies}{short}{bodies}{short}").as_bytes(),
        &[LineNote::Nothing, LineNote::Nothing, noted(), LineNote::Nothing, LineNote::Nothing, noted()],
    );
}

#[test]
fn request_with_a_line_that_is_too_long_is_replaced() {
    let replacement: &[u8] = REPLACEMENT;
    let line = format!("GET /?{} HTTP/1.1\r\n", "x".repeat(MAX_LINE_BYTES));
    for (rest, is_end) in
        [("\r\n", true), ("host: x\r\nb: \r\n\r\n", true), ("host: x\n\n", true), ("host: x\r\n", false)]
    {
        let (out, notes) = scan(format!("{line}{rest}").as_bytes(), 4096);
        assert_eq!(out, if is_end { replacement } else { &[] }, "{rest:?}");
        assert_eq!(notes.len(), usize::from(is_end), "{rest:?}");
    }
    println!("a line without an end");
    let (out, notes) = scan(&vec![b'x'; MAX_DISCARDED_BYTES + 10_000], 10_000);
    assert_eq!((out.as_slice(), notes.as_slice()), (replacement, &[LineNote::TooLong][..]));
    println!("a path without a query");
    let path = format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\nGET / HTTP/1.1\r\n\r\n", "x".repeat(100_000));
    let (out, notes) = scan(path.as_bytes(), 4096);
    assert_eq!((out.as_slice(), notes.as_slice()), (replacement, &[LineNote::TooLong][..]));
    println!("the longest line");
    let query = "x".repeat(MAX_LINE_BYTES - "GET /? HTTP/1.1\r\n".len());
    let (_, notes) = scan(format!("GET /?{query} HTTP/1.1\r\n").as_bytes(), 4096);
    assert_eq!(notes, [LineNote::Query(query.into())]);
}

#[test]
fn ambiguous_framing_and_http2_are_left_to_hyper() {
    let long = format!("GET /?{} HTTP/1.1\r\n\r\n", long_query());
    for head in [
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "POST / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        "POST / HTTP/1.1\r\ncontent-length: +1\r\n\r\n",
        "POST / HTTP/1.1\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
        "POST / HTTP/1.1\r\ntransfer-encoding: gzip, chunked\r\n\r\n",
        "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        "GET / HTTP/1.1\r\nupgrade: h2c\r\n\r\n",
        "GET / HTTP/1.1\r\nno colon\r\n\r\n",
    ] {
        let input = format!("{head}{long}");
        let (out, notes) = scan(input.as_bytes(), 100);
        assert!(out == input.as_bytes(), "{head:?}");
        assert!(notes.iter().all(|note| *note == LineNote::Nothing), "{head:?}");
    }
}

/// Any bytes, in any pieces: short input is never changed, and no state panics.
#[test]
fn arbitrary_short_input_passes_unchanged_and_pieces_do_not_matter() {
    use rand::{Rng, SeedableRng};
    let words: [&[u8]; 14] = [
        b"GET ",
        b"/?a",
        b" HTTP/1.1",
        b"\r\n",
        b"\n",
        b"content-length:",
        b" 5",
        b"transfer-encoding:",
        b" chunked",
        b"0",
        b"a",
        b";",
        b"PRI * HTTP/2.0\r\n",
        b"\xff",
    ];
    for seed in 0..2000 {
        let mut random = rand::rngs::StdRng::seed_from_u64(seed);
        let input: Vec<u8> = (0..random.random_range(0..60))
            .flat_map(|_| words[random.random_range(0..words.len())].to_vec())
            .collect();
        let (whole, notes) = scan(&input, usize::MAX);
        let (pieces, same_notes) = scan(&input, random.random_range(1..9));
        assert_eq!((&pieces, &same_notes), (&whole, &notes), "seed {seed}");
        // Only the last line may be held back.
        assert!(input.starts_with(&whole) && !input[whole.len()..].contains(&b'\n'), "seed {seed}");
    }
}
