//! `tools block dump`: the samples of a block as text.

use model::{Matcher, TimeRange};
use runtime::TimeArg;
use series::{Aggregate, ChunkSample, ChunkSampleValue};

use crate::block::place::PlaceFlags;
use crate::block::read::{self, aggregate_parser};
use crate::block::text as forms;
use crate::blocking::blocking;
use crate::error::{CommandOutcome, Result, ToolError};
use crate::output::Output;
use crate::text;

/// Bytes that are printed at once.
const BATCH_BYTES: usize = 64 << 10;

/// Flags of `tools block dump`.
#[derive(Debug, clap::Args)]
pub(crate) struct DumpArgs {
    /// Folder of a block, or ULID of a block in the bucket
    #[arg(value_name = "BLOCK")]
    block: String,

    /// Only series that match one of the given selectors (repeatable)
    #[arg(long = "match", value_name = "SELECTOR")]
    selectors: Vec<String>,

    /// Only samples at or after this time: RFC 3339, or relative to now, such as -2h
    #[arg(long, value_name = "TIME", default_value = "0000-01-01T00:00:00Z", allow_hyphen_values = true)]
    min_time: TimeArg,

    /// Only samples at or before this time
    #[arg(long, value_name = "TIME", default_value = "9999-12-31T23:59:59Z", allow_hyphen_values = true)]
    max_time: TimeArg,

    /// Format of the samples
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value = "promtool")]
    output: DumpFormat,

    /// Aggregate of a downsampled block that is printed
    #[arg(long, value_name = "AGGREGATE", value_parser = aggregate_parser(), default_value = "count")]
    aggregate: Aggregate,

    #[command(flatten)]
    place: PlaceFlags,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum DumpFormat {
    /// The format of `promtool tsdb dump`: labels, value, milliseconds
    Promtool,
    /// OpenMetrics text, which `promtool tsdb create-blocks-from openmetrics` reads; floats only
    Openmetrics,
    /// One line of JSON for each series, as in responses of the Prometheus API
    Json,
}

pub(super) async fn run(args: DumpArgs, output: &mut Output) -> Result<CommandOutcome> {
    let selectors = args.selectors.iter().map(|selector| text::matchers("--match", selector));
    let mut selectors: Vec<Vec<Matcher>> = selectors.collect::<Result<_>>()?;
    if selectors.is_empty() {
        selectors.push(Vec::new());
    }
    let now = text::now();
    let range = TimeRange::new(args.min_time.at(now), args.max_time.at(now));
    let block = args.place.open(&args.block).await?;

    // A thread reads the block and sends batches, which are printed here. A closed pipe stops both.
    let (batches, mut ready) = tokio::sync::mpsc::channel::<Vec<u8>>(4);
    let (format, aggregate) = (args.output, args.aggregate);
    let reader = blocking(move || {
        let mut writer = DumpWriter { format, batches, batch: Vec::with_capacity(BATCH_BYTES), left_out: 0 };
        // A series that matches several selectors is printed once, for the first of them.
        for (index, selector) in selectors.iter().enumerate() {
            for series in read::series(&block, selector, range, aggregate)? {
                let (labels, points) = series?;
                let matches = |matchers: &Vec<Matcher>| matchers.iter().all(|m| m.matches_labels(&labels));
                if !selectors[..index].iter().any(matches) {
                    writer.series(&labels, &points)?;
                }
            }
        }
        writer.finish()
    });
    let printer = async {
        while let Some(batch) = ready.recv().await {
            output.bytes(&batch)?;
        }
        // After an error in the loop, this makes the reader's next send fail.
        drop(ready);
        Ok::<_, ToolError>(())
    };
    let (read, printed) = tokio::join!(reader, printer);
    printed?;
    let left_out = read?;
    if left_out > 0 {
        eprintln!(
            "{} left out: OpenMetrics text cannot express native histograms; use --output=promtool or --output=json",
            text::count(left_out, "sample")
        );
    }
    Ok(CommandOutcome::Fine)
}

/// Formats series and sends them in batches.
struct DumpWriter {
    format: DumpFormat,
    batches: tokio::sync::mpsc::Sender<Vec<u8>>,
    batch: Vec<u8>,
    left_out: u64,
}

impl DumpWriter {
    fn series(&mut self, labels: &model::Labels, samples: &[ChunkSample]) -> Result<()> {
        match self.format {
            DumpFormat::Json => {
                self.batch.extend_from_slice(forms::json_series(labels, samples).to_string().as_bytes());
                self.batch.push(b'\n');
            }
            DumpFormat::Promtool => {
                let labels = forms::labels(labels, ", ", true);
                for sample in samples {
                    forms::promtool_line(&mut self.batch, &labels, sample);
                    self.batch.push(b'\n');
                    self.send_when_full()?;
                }
            }
            DumpFormat::Openmetrics => {
                let series = forms::openmetrics_series(labels);
                for sample in samples {
                    let ChunkSampleValue::Float(value) = sample.value else {
                        self.left_out += 1;
                        continue;
                    };
                    forms::openmetrics_line(&mut self.batch, &series, sample.at.as_millis(), value);
                    self.batch.push(b'\n');
                    self.send_when_full()?;
                }
            }
        }
        self.send_when_full()
    }

    fn send_when_full(&mut self) -> Result<()> {
        if self.batch.len() < BATCH_BYTES { Ok(()) } else { self.send() }
    }

    fn send(&mut self) -> Result<()> {
        let batch = std::mem::replace(&mut self.batch, Vec::with_capacity(BATCH_BYTES));
        let gone = |_| std::io::Error::from(std::io::ErrorKind::BrokenPipe).into();
        self.batches.blocking_send(batch).map_err(gone)
    }

    /// Sends the rest. Returns the number of samples that the format cannot express.
    fn finish(mut self) -> Result<u64> {
        if self.format == DumpFormat::Openmetrics {
            self.batch.extend_from_slice(b"# EOF\n");
        }
        self.send()?;
        Ok(self.left_out)
    }
}
