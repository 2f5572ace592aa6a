//! What a target has sent: compression and format.

use std::borrow::Cow;
use std::io::Read;

use exposition::TextFormat;
use flate2::read::MultiGzDecoder;

use crate::config::ScrapeProtocol;
use crate::exposed::ExpositionFormat;
use crate::failure::ScrapeFailure;

/// An answer with status 200.
#[derive(Debug)]
pub(crate) struct Fetched {
    pub(crate) body: Vec<u8>,
    pub(crate) is_gzip: bool,
    pub(crate) content_type: String,
    /// Most bytes, decompressed.
    pub(crate) limit: u64,
    pub(crate) fallback: Option<ScrapeProtocol>,
    /// What is wrong with a longer one.
    pub(crate) too_long: ScrapeFailure,
}

impl Fetched {
    /// The body, decompressed.
    ///
    /// # Errors
    /// It is damaged, or longer than the limit.
    pub(crate) fn text(&self) -> Result<Cow<'_, [u8]>, ScrapeFailure> {
        if !self.is_gzip {
            return Ok(Cow::Borrowed(&self.body));
        }
        let mut text = Vec::with_capacity(self.body.len().saturating_mul(8).min(16 << 20));
        let mut decoder = MultiGzDecoder::new(self.body.as_slice()).take(self.limit);
        decoder
            .read_to_end(&mut text)
            .map_err(|error| ScrapeFailure::Fetch(format!("the answer is not valid gzip: {error}")))?;
        if text.len() as u64 >= self.limit { Err(self.too_long.clone()) } else { Ok(Cow::Owned(text)) }
    }

    /// The format, by the content type; without a known one, that of `fallback_scrape_protocol`.
    ///
    /// # Errors
    /// It is not known.
    pub(crate) fn format(&self) -> Result<ExpositionFormat, ScrapeFailure> {
        let media = self.content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let of_text = |format| Ok(ExpositionFormat::Text(format));
        match (media.as_str(), self.fallback) {
            ("text/plain", _) => of_text(TextFormat::Prometheus),
            ("application/openmetrics-text", _) => of_text(TextFormat::OpenMetrics),
            ("application/vnd.google.protobuf", _) => Ok(ExpositionFormat::Protobuf),
            (_, Some(ScrapeProtocol::PrometheusText004 | ScrapeProtocol::PrometheusText100)) => {
                of_text(TextFormat::Prometheus)
            }
            (_, Some(ScrapeProtocol::OpenMetricsText001 | ScrapeProtocol::OpenMetricsText100)) => {
                of_text(TextFormat::OpenMetrics)
            }
            (_, Some(ScrapeProtocol::PrometheusProto)) => Ok(ExpositionFormat::Protobuf),
            ("", None) => Err(ScrapeFailure::Fetch(
                "the target sends no Content-Type; set fallback_scrape_protocol".to_owned(),
            )),
            (_, None) => Err(ScrapeFailure::Fetch(format!(
                "the target sends Content-Type {:?}, which is not known; set fallback_scrape_protocol",
                self.content_type
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn fetched(body: Vec<u8>, is_gzip: bool, limit: u64) -> Fetched {
        Fetched {
            body,
            is_gzip,
            content_type: String::new(),
            limit,
            fallback: None,
            too_long: ScrapeFailure::BodyLimit("too long".to_owned()),
        }
    }

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn compressed_bodies_have_the_same_limit() {
        let text = b"a 1\n".repeat(100);
        assert_eq!(fetched(gzip(&text), true, 401).text().unwrap(), text);
        assert_eq!(fetched(gzip(&text), true, 400).text().unwrap_err().to_string(), "too long");
        // A gigabyte in a megabyte.
        let bomb = gzip(&vec![b'\n'; 64 << 20]);
        assert_eq!(fetched(bomb, true, 1 << 20).text().unwrap_err().to_string(), "too long");
        let two = [gzip(b"a 1\n"), gzip(b"b 2\n")].concat();
        assert_eq!(fetched(two, true, 100).text().unwrap(), b"a 1\nb 2\n".as_slice());
    }

    #[test]
    fn damaged_gzip_is_refused() {
        let whole = gzip(b"a 1\nb 2\n");
        for at in 0..whole.len() {
            let cut = fetched(whole[..at].to_vec(), true, 1_000);
            assert!(cut.text().is_err(), "{at}");
            for bit in 0..8 {
                let mut bytes = whole.clone();
                bytes[at] ^= 1 << bit;
                let _ = fetched(bytes, true, 1_000).text();
            }
        }
    }

    #[test]
    fn formats_are_known_by_their_content_type_or_the_fallback() {
        let check = |content_type: &str,
                     fallback: Option<ScrapeProtocol>,
                     expected: Result<ExpositionFormat, &str>| {
            let one =
                Fetched { content_type: content_type.to_owned(), fallback, ..fetched(vec![], false, 1) };
            let format = one.format().map_err(|error| error.to_string());
            assert_eq!(format, expected.map_err(str::to_owned), "{content_type}");
        };
        let text = |format| Ok(ExpositionFormat::Text(format));
        check("text/plain; version=0.0.4; charset=utf-8", None, text(TextFormat::Prometheus));
        check("Text/Plain", None, text(TextFormat::Prometheus));
        check("application/openmetrics-text; version=1.0.0", None, text(TextFormat::OpenMetrics));
        check(
            "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily",
            None,
            Ok(ExpositionFormat::Protobuf),
        );
        check("text/html", Some(ScrapeProtocol::OpenMetricsText100), text(TextFormat::OpenMetrics));
        check("", Some(ScrapeProtocol::PrometheusProto), Ok(ExpositionFormat::Protobuf));
        check("", None, Err("the target sends no Content-Type; set fallback_scrape_protocol"));
        check(
            "text/html",
            None,
            Err(
                "the target sends Content-Type \"text/html\", which is not known; set fallback_scrape_protocol",
            ),
        );
    }
}
