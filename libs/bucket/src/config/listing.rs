//! Checks the XML of a listing before the client of the store parses it.
//!
//! The client ignores unknown elements, so it takes an HTML page for the listing of an empty bucket. It ends a listing that
//! announces more pages without saying where they begin. And one name that it cannot represent fails the whole listing.

use std::borrow::Cow;
use std::ops::Range;

use bytes::Bytes;
use object_store::path::Path;
use quick_xml::Reader;
use quick_xml::events::{BytesRef, BytesStart, Event};

/// Root elements of the listings of S3 and GCS, and of Azure.
const ROOTS: [&[u8]; 2] = [b"ListBucketResult", b"EnumerationResults"];
/// Elements that are an object or a folder.
const ENTRIES: [&[u8]; 4] = [b"Contents", b"CommonPrefixes", b"Blob", b"BlobPrefix"];
/// Elements in an entry that are its name.
const NAMES: [&[u8]; 3] = [b"Key", b"Prefix", b"Name"];
/// Most bytes of a name or another text that is read.
const TEXT_BYTES: usize = 8 << 10;

/// A listing that can be parsed.
#[derive(Debug)]
pub(super) struct CheckedListing {
    /// The listing without the entries of `skipped`.
    pub(super) body: Bytes,
    /// Names that no object or folder of ours can have: with an empty part, `..`, or a control character.
    pub(super) skipped: Vec<String>,
}

/// Checks a listing.
///
/// # Errors
/// What is wrong with it, to be read after "the answer to a listing".
pub(super) fn check(body: &Bytes) -> Result<CheckedListing, String> {
    let mut scan = ListingScan::default();
    let mut reader = Reader::from_reader(&body[..]);
    loop {
        let at = reader.buffer_position() as usize;
        let event = reader.read_event().map_err(|error| format!("is not XML ({error})"))?;
        let next = reader.buffer_position() as usize;
        match event {
            Event::Start(element) => scan.begin(&element, at)?,
            // An empty element has no effect: an entry without a name is left to the client.
            Event::Empty(element) => scan.check_root(&element)?,
            Event::End(_) => scan.end(next),
            Event::Text(text) => {
                scan.add_text(&text.decode().map_err(|error| format!("is not XML ({error})"))?)
            }
            Event::CData(text) => scan.add_text(&String::from_utf8_lossy(&text)),
            Event::GeneralRef(reference) => scan.add_text(&resolve(&reference)),
            Event::Eof => break,
            Event::Decl(_) | Event::PI(_) | Event::DocType(_) | Event::Comment(_) => {}
        }
    }
    scan.finish(body)
}

/// The text of a reference such as `&amp;`. One that stands for no character becomes a control character, which no name
/// may have.
fn resolve(reference: &BytesRef<'_>) -> Cow<'static, str> {
    if let Ok(Some(character)) = reference.resolve_char_ref() {
        return Cow::Owned(character.to_string());
    }
    let name = reference.decode().unwrap_or_default();
    quick_xml::escape::resolve_predefined_entity(&name).map_or(Cow::Borrowed("\0"), Cow::Borrowed)
}

/// What was read of a listing so far.
#[derive(Default)]
struct ListingScan {
    /// The elements around the current place, the root first.
    open: Vec<Vec<u8>>,
    /// The text of the innermost element.
    text: String,
    has_root: bool,
    /// Where the current entry begins, its depth, and its name.
    entry: Option<(usize, usize, String)>,
    skipped: Vec<(Range<usize>, String)>,
    is_truncated: bool,
    has_token: bool,
}

impl ListingScan {
    fn begin(&mut self, element: &BytesStart<'_>, at: usize) -> Result<(), String> {
        self.check_root(element)?;
        let name = element.local_name().as_ref().to_vec();
        if self.entry.is_none() && ENTRIES.contains(&&*name) {
            self.entry = Some((at, self.open.len(), String::new()));
        }
        self.open.push(name);
        self.text.clear();
        Ok(())
    }

    fn check_root(&mut self, element: &BytesStart<'_>) -> Result<(), String> {
        let name = element.local_name();
        if self.open.is_empty() && !ROOTS.contains(&name.as_ref()) {
            return Err(format!("begins with <{:.40}>", String::from_utf8_lossy(name.as_ref())));
        }
        self.has_root = true;
        Ok(())
    }

    fn add_text(&mut self, text: &str) {
        if self.text.len() + text.len() <= TEXT_BYTES {
            self.text.push_str(text);
        }
    }

    fn end(&mut self, next: usize) {
        let name = self.open.pop().unwrap_or_default();
        let text = std::mem::take(&mut self.text);
        match &mut self.entry {
            Some((_, depth, entry)) if self.open.len() == *depth + 1 && NAMES.contains(&&*name) => {
                *entry = text
            }
            Some((begin, depth, entry)) if self.open.len() == *depth => {
                if Path::parse(&entry).is_err() {
                    self.skipped.push((*begin..next, std::mem::take(entry)));
                }
                self.entry = None;
            }
            Some(_) => {}
            None if &*name == b"IsTruncated" => self.is_truncated = text.trim() == "true",
            None if &*name == b"NextContinuationToken" => self.has_token = !text.is_empty(),
            None => {}
        }
    }

    fn finish(self, body: &Bytes) -> Result<CheckedListing, String> {
        if !self.has_root || !self.open.is_empty() {
            return Err("is cut short".to_owned());
        }
        if self.is_truncated && !self.has_token {
            return Err("announces more pages, but has no NextContinuationToken".to_owned());
        }
        if self.skipped.is_empty() {
            return Ok(CheckedListing { body: body.clone(), skipped: Vec::new() });
        }
        let (mut kept, mut at) = (Vec::with_capacity(body.len()), 0);
        for (range, _) in &self.skipped {
            kept.extend_from_slice(&body[at..range.start]);
            at = range.end;
        }
        kept.extend_from_slice(&body[at..]);
        let skipped = self.skipped.into_iter().map(|(_, name)| name).collect();
        Ok(CheckedListing { body: kept.into(), skipped })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s3(content: &str) -> Result<CheckedListing, String> {
        let text = format!(
            "<?xml version=\"1.0\"?>\n<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Prefix>a/..</Prefix>{content}</ListBucketResult>"
        );
        check(&Bytes::from(text))
    }

    #[test]
    fn answers_that_are_not_listings_are_rejected() {
        let rejected = |body: &str, words: &str| {
            let error = check(&Bytes::copy_from_slice(body.as_bytes())).expect_err(body);
            assert!(error.contains(words), "{body}: {error}");
        };
        rejected("", "is cut short");
        rejected("login required", "is cut short");
        rejected("<!DOCTYPE html><html><body>Login</body></html>", "begins with <html>");
        rejected("<html/>", "begins with <html>");
        rejected("<Error><Code>SlowDown</Code></Error>", "begins with <Error>");
        rejected("<ListBucketResult><Contents>", "is cut short");
        rejected("<ListBucketResult></Contents>", "is not XML");
        rejected("{\"kind\":\"storage#objects\"}", "is cut short");
        let error = s3("<IsTruncated>true</IsTruncated>").expect_err("no token");
        assert!(error.contains("has no NextContinuationToken"), "{error}");
        let error = s3("<IsTruncated>true</IsTruncated><NextContinuationToken></NextContinuationToken>");
        assert!(error.is_err());
    }

    #[test]
    fn listings_are_passed_on_unchanged() {
        let text = "<IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>\
                    <Contents><Key>a &amp; b/&#x20AC;</Key><Size>1</Size></Contents>\
                    <CommonPrefixes><Prefix>x/</Prefix></CommonPrefixes>";
        let listing = s3(text).expect("a listing");
        assert!(listing.skipped.is_empty());
        assert!(listing.body.ends_with(format!("{text}</ListBucketResult>").as_bytes()));
        let azure = "<?xml version='1.0'?><EnumerationResults><Blobs><Blob><Name>a</Name></Blob></Blobs><NextMarker/></EnumerationResults>";
        assert!(check(&Bytes::from(azure)).expect("a listing").skipped.is_empty());
    }

    #[test]
    fn entries_with_impossible_names_are_removed() {
        let listing = s3(
            "<Contents><Key>a/../b</Key></Contents><Contents><Key>kept</Key><Owner><ID>..</ID></Owner></Contents>\
             <Contents><Key>a//b</Key></Contents><Contents><Key>bell&#7;</Key></Contents>\
             <CommonPrefixes><Prefix>../</Prefix></CommonPrefixes>",
        )
        .expect("a listing");
        assert_eq!(listing.skipped, ["a/../b", "a//b", "bell\u{7}", "../"]);
        let left = String::from_utf8(listing.body.to_vec()).expect("UTF-8");
        assert!(
            left.ends_with(
                "<Contents><Key>kept</Key><Owner><ID>..</ID></Owner></Contents></ListBucketResult>"
            )
        );
        let azure = "<EnumerationResults><Blobs><BlobPrefix><Name>./</Name></BlobPrefix><Blob><Name>a</Name></Blob></Blobs></EnumerationResults>";
        let listing = check(&Bytes::from(azure)).expect("a listing");
        assert_eq!(listing.skipped, ["./"]);
    }

    #[test]
    fn any_bytes_are_handled() {
        let whole =
            b"<ListBucketResult><Contents><Key>a&amp;/..</Key></Contents><![CDATA[x]]></ListBucketResult>";
        for at in 0..whole.len() {
            for byte in [0, b'<', b'>', b'&', b';', 0xff, b'/'] {
                let mut bytes = whole.to_vec();
                bytes[at] = byte;
                let _ = check(&Bytes::from(bytes));
            }
            let _ = check(&Bytes::copy_from_slice(&whole[..at]));
        }
    }
}
