//! Samples out of chunks of any kind, and back into chunks.

use std::sync::Arc;

use model::{FloatHistogram, Sample, Timestamp};
use tsdb::{AppendError, Chunk, ChunkError, Encoding, HistogramEncoder, Xor2Encoder, XorEncoder};

/// Samples in a chunk that is made here, as many as Prometheus puts in.
const SAMPLES_IN_CHUNK: usize = 120;

/// The value of a sample.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Float(f64),
    Histogram {
        histogram: Arc<FloatHistogram>,
        /// Whether its counts were stored as integers.
        integer: bool,
    },
}

impl PartialEq for Value {
    /// Bit for bit, so that NaN equals NaN; what is known about counter resets is no part of what was observed.
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Float(a), Self::Float(b)) => a.to_bits() == b.to_bits(),
            (Self::Histogram { histogram: a, .. }, Self::Histogram { histogram: b, .. }) => {
                a.same_observations(b)
            }
            _ => false,
        }
    }
}

/// A sample with the time at which its counter began (0 where that is not known); milliseconds since the epoch.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Point {
    pub(crate) millis: i64,
    pub(crate) start: i64,
    pub(crate) value: Value,
    /// How its chunk was encoded.
    pub(crate) encoding: Encoding,
}

/// Appends the samples of `chunk`; of aggregates, those of the parts that are asked for one by one instead.
///
/// # Errors
/// The chunk is damaged, or holds aggregates.
pub(crate) fn decode(chunk: &Chunk, out: &mut Vec<Point>) -> Result<(), ChunkError> {
    let encoding = chunk.encoding;
    let mut starts = Vec::new();
    if encoding.holds_histograms() {
        let integer = matches!(encoding, Encoding::Histogram | Encoding::HistogramSt);
        let mut histograms = Vec::new();
        chunk.decode_histograms_with_starts(&mut histograms, &mut starts)?;
        let starts = starts.into_iter().chain(std::iter::repeat(0));
        out.extend(histograms.into_iter().zip(starts).map(|((millis, histogram), start)| Point {
            millis,
            start,
            value: Value::Histogram { histogram, integer },
            encoding,
        }));
        return Ok(());
    }
    let (mut times, mut values) = (Vec::new(), Vec::new());
    chunk.decode_floats_with_starts(&mut times, &mut values, &mut starts)?;
    let starts = starts.into_iter().chain(std::iter::repeat(0));
    let points = times.into_iter().zip(values).zip(starts);
    out.extend(points.map(|((millis, value), start)| Point {
        millis,
        start,
        value: Value::Float(value),
        encoding,
    }));
    Ok(())
}

enum Encoder {
    Xor(XorEncoder),
    Xor2(Xor2Encoder),
    Histogram(HistogramEncoder),
}

impl Encoder {
    fn new(encoding: Encoding) -> Self {
        match encoding {
            Encoding::Xor2 => Self::Xor2(Xor2Encoder::new()),
            Encoding::Histogram => Self::Histogram(HistogramEncoder::integer()),
            Encoding::FloatHistogram => Self::Histogram(HistogramEncoder::float()),
            Encoding::HistogramSt => Self::Histogram(HistogramEncoder::integer_with_starts()),
            Encoding::FloatHistogramSt => Self::Histogram(HistogramEncoder::float_with_starts()),
            // Points are never decoded from aggregates.
            Encoding::Xor | Encoding::Aggregates => Self::Xor(XorEncoder::new()),
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Xor(encoder) => encoder.len(),
            Self::Xor2(encoder) => encoder.len(),
            Self::Histogram(encoder) => encoder.len(),
        }
    }

    fn append(&mut self, point: &Point) -> Result<(), AppendError> {
        let (at, start) = (Timestamp::from_millis(point.millis), Timestamp::from_millis(point.start));
        match (self, &point.value) {
            (Self::Xor(encoder), Value::Float(value)) => {
                encoder.append(Sample { timestamp: at, value: *value })
            }
            (Self::Xor2(encoder), Value::Float(value)) => {
                encoder.append(Sample { timestamp: at, value: *value }, start)
            }
            (Self::Histogram(encoder), Value::Histogram { histogram, .. }) => {
                encoder.append_with_start(at, histogram, start)
            }
            _ => Err(AppendError::Layout("kind")),
        }
    }

    fn finish(self) -> Option<Chunk> {
        match self {
            Self::Xor(encoder) => encoder.finish(),
            Self::Xor2(encoder) => encoder.finish(),
            Self::Histogram(encoder) => encoder.finish(),
        }
    }
}

/// Chunks of at most 120 samples, each encoded as its samples were before. `points` ascend in time.
///
/// # Errors
/// Points that do not ascend, or a histogram that no chunk can hold.
pub(crate) fn encode(points: &[Point]) -> Result<Vec<Chunk>, AppendError> {
    let mut chunks = Vec::new();
    let mut current: Option<(Encoding, Encoder)> = None;
    for point in points {
        let fits = |(encoding, encoder): &(Encoding, Encoder)| {
            *encoding == point.encoding && encoder.len() < SAMPLES_IN_CHUNK
        };
        if let Some((_, encoder)) = current.as_mut().filter(|current| fits(current)) {
            match encoder.append(point) {
                Ok(()) => continue,
                // A histogram of another layout begins a new chunk; going back in time is an error in any.
                Err(AppendError::Full | AppendError::Layout(_)) => {}
                Err(error @ AppendError::OutOfOrder { .. }) => return Err(error),
            }
        }
        if let Some((_, encoder)) = current.take() {
            chunks.extend(encoder.finish());
        }
        let mut encoder = Encoder::new(point.encoding);
        encoder.append(point)?;
        current = Some((point.encoding, encoder));
    }
    chunks.extend(current.and_then(|(_, encoder)| encoder.finish()));
    Ok(chunks)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn float(millis: i64, value: f64, encoding: Encoding) -> Point {
        Point { millis, start: 0, value: Value::Float(value), encoding }
    }

    #[test]
    fn points_survive_a_round_trip_through_chunks_of_their_kinds() {
        let mut points: Vec<Point> = (0..300).map(|i| float(i * 1000, i as f64, Encoding::Xor)).collect();
        points.extend((300..310).map(|i| Point {
            start: 7,
            ..float(i * 1000, f64::from_bits(model::STALE_NAN_BITS), Encoding::Xor2)
        }));
        points.extend((310..320).map(|i| Point {
            millis: i * 1000,
            start: 0,
            value: Value::Histogram {
                histogram: Arc::new(FloatHistogram {
                    count: i as f64,
                    sum: 1.5,
                    zero_count: i as f64,
                    ..FloatHistogram::default()
                }),
                integer: true,
            },
            encoding: Encoding::Histogram,
        }));
        let chunks = encode(&points).unwrap();
        let kinds: Vec<(Encoding, usize)> = chunks.iter().map(|c| (c.encoding, c.sample_count())).collect();
        assert_eq!(
            kinds,
            [
                (Encoding::Xor, 120),
                (Encoding::Xor, 120),
                (Encoding::Xor, 60),
                (Encoding::Xor2, 10),
                (Encoding::Histogram, 10)
            ]
        );
        let mut back = Vec::new();
        chunks.iter().for_each(|chunk| decode(chunk, &mut back).unwrap());
        assert_eq!(back, points);
    }

    #[test]
    fn points_that_go_back_in_time_are_refused() {
        let points = [float(2, 1.0, Encoding::Xor), float(1, 1.0, Encoding::Xor)];
        assert!(matches!(encode(&points), Err(AppendError::OutOfOrder { .. })));
    }
}
