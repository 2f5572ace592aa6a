//! Forms with the content type `multipart/form-data` (RFC 7578).

/// The fields of a form in their order, without files.
///
/// # Errors
/// The content type has no boundary, or the body is not complete.
pub(crate) fn fields(content_type: &str, body: &[u8]) -> Result<Vec<(String, String)>, String> {
    let broken = |cause: &str| format!("multipart form: {cause}");
    let boundary = parameter(content_type, "boundary").filter(|boundary| !boundary.is_empty());
    let boundary = boundary.ok_or_else(|| broken("the content type has no boundary"))?;
    let opening = format!("--{boundary}");
    let delimiter = format!("\r\n{opening}");
    let start = match body.starts_with(opening.as_bytes()) {
        true => opening.len(),
        false => find(body, delimiter.as_bytes()).ok_or_else(|| broken("no part begins"))? + delimiter.len(),
    };
    let mut rest = &body[start..];
    let mut fields = Vec::new();
    loop {
        if rest.starts_with(b"--") {
            return Ok(fields);
        }
        // Spaces may follow a boundary.
        let line = find(rest, b"\r\n").ok_or_else(|| broken("it has no final boundary"))?;
        // An empty head ends with the line of the boundary.
        let head_end =
            find(&rest[line..], b"\r\n\r\n").ok_or_else(|| broken("the head of a part has no end"))?;
        let head = &rest[line..line + head_end];
        let content = &rest[line + head_end + 4..];
        let end = find(content, delimiter.as_bytes()).ok_or_else(|| broken("it has no final boundary"))?;
        if let Some(name) = field_name(head) {
            let value = std::str::from_utf8(&content[..end]);
            let value = value.map_err(|_| broken(&format!("field {name:?} is not valid UTF-8")))?;
            fields.push((name, value.to_owned()));
        }
        rest = &content[end + delimiter.len()..];
    }
}

/// The name of a field from the head of its part; `None` for files and parts without a name.
fn field_name(head: &[u8]) -> Option<String> {
    let head = std::str::from_utf8(head).ok()?;
    let mut lines = head.split("\r\n").filter_map(|line| line.split_once(':'));
    let (_, disposition) = lines.find(|(name, _)| name.trim().eq_ignore_ascii_case("content-disposition"))?;
    match parameter(disposition, "filename") {
        None => parameter(disposition, "name"),
        Some(_) => None,
    }
}

/// The value of a parameter of a header, such as `boundary` in `multipart/form-data; boundary="x"`.
fn parameter(header: &str, name: &str) -> Option<String> {
    let (_, mut rest) = header.split_once(';')?;
    loop {
        let (key, after) = rest.split_once('=')?;
        let (value, after) = value(after.trim_start());
        if key.trim().eq_ignore_ascii_case(name) {
            return Some(value);
        }
        rest = after.split_once(';')?.1;
    }
}

/// A quoted string or a token at the start of `text`, and the text after it.
fn value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(';').unwrap_or(text.len());
        return (text[..end].trim_end().to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &quoted[at + 1..]),
            // Browsers do not escape backslashes, so only quotes and backslashes can be escaped.
            '\\' if quoted[at + 1..].starts_with(['"', '\\']) => {
                value.extend(chars.next().map(|(_, escaped)| escaped));
            }
            c => value.push(c),
        }
    }
    (value, "")
}

fn find(text: &[u8], pattern: &[u8]) -> Option<usize> {
    let first = *pattern.first()?;
    let mut from = 0;
    while let Some(at) = text[from..].iter().position(|byte| *byte == first) {
        if text[from + at..].starts_with(pattern) {
            return Some(from + at);
        }
        from += at + 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(content_type: &str, body: &str) -> Result<Vec<(String, String)>, String> {
        fields(content_type, body.as_bytes())
    }

    #[test]
    fn fields_are_read_and_files_are_skipped() {
        let body = "a preamble\r\n--x\r\nContent-Disposition: form-data; name=\"query\"\r\n\r\nup{a=\"b\"}\r\n--not\r\n\
                    --x \r\ncontent-type: text/plain\r\ncontent-disposition: form-data; name=\"match[]\"\r\n\r\n\r\n\
                    --x\r\nContent-Disposition: form-data; name=file; filename=\"f;name=g\"\r\n\r\n1\r\n\
                    --x\r\nContent-Disposition: form-data; name=\"a \\\"b\\\"\"; other=1\r\n\r\né\r\n\
                    --x--\r\nan epilogue";
        let expected = [("query", "up{a=\"b\"}\r\n--not"), ("match[]", ""), ("a \"b\"", "é")];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(read("multipart/form-data; boundary=x", body), Ok(expected.to_vec()));
        let same = read("multipart/form-data; charset=utf-8; Boundary=\"x\"", body);
        assert_eq!(same, Ok(expected.to_vec()));
        assert_eq!(read("multipart/form-data; boundary=x", "--x--"), Ok(vec![]));
    }

    #[test]
    fn incomplete_forms_are_rejected() {
        let field = "--x\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1";
        for (content_type, body, expected) in [
            ("multipart/form-data", "", "the content type has no boundary"),
            ("multipart/form-data; boundary=\"\"", "", "the content type has no boundary"),
            ("multipart/form-data; boundary=x", "", "no part begins"),
            ("multipart/form-data; boundary=y", field, "no part begins"),
            ("multipart/form-data; boundary=x", field, "it has no final boundary"),
            ("multipart/form-data; boundary=x", "--x\r\na: b", "the head of a part has no end"),
            ("multipart/form-data; boundary=x", "--x", "it has no final boundary"),
        ] {
            let error = read(content_type, body).unwrap_err();
            assert_eq!(error, format!("multipart form: {expected}"), "{body}");
        }
        let latin = [field.as_bytes(), b"\xe9\r\n--x--"].concat();
        let error = fields("multipart/form-data; boundary=x", &latin).unwrap_err();
        assert!(error.ends_with("field \"a\" is not valid UTF-8"), "{error}");
    }

    #[test]
    fn arbitrary_bodies_do_not_panic() {
        use rand::{Rng, SeedableRng};
        let parts =
            ["--x", "\r\n", "--", "Content-Disposition:", " form-data;", " name=", "\"", "\\", "a", ";", "é"];
        for seed in 0..5000 {
            let mut random = rand::rngs::StdRng::seed_from_u64(seed);
            let text: String =
                (0..random.random_range(0..40)).map(|_| parts[random.random_range(0..parts.len())]).collect();
            drop(fields("multipart/form-data; boundary=x", text.as_bytes()));
            drop(fields(&text, b"--x\r\n\r\n\r\n--x--"));
        }
    }
}
