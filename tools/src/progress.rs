//! Progress of long commands: on a terminal a bar with rate and remaining time, elsewhere a line every 10 seconds.

use std::fmt::Write;
use std::io::IsTerminal;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use indicatif::{BinaryBytes, HumanDuration, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use terminal::rounded;

use crate::text;

/// Time between two lines if standard error is not a terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// The unit of progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Bytes that were transferred or read.
    Bytes,
    /// Blocks, series or other things.
    Count(&'static str),
}

/// The progress of one task, on standard error. Clones report to the same task; the bar is removed with the last clone.
#[derive(Clone)]
pub(crate) struct TaskProgress {
    bar: ProgressBar,
    unit: Unit,
    /// When the last line was written; `None` if a bar is drawn instead.
    last_line: Option<Arc<Mutex<Instant>>>,
}

impl TaskProgress {
    /// A task whose progress is not shown.
    pub(crate) fn hidden() -> Self {
        let bar = ProgressBar::hidden();
        Self { bar, unit: Unit::Bytes, last_line: None }
    }

    /// A task of `total` units; 0 if the total is unknown.
    pub(crate) fn new(what: &str, unit: Unit, total: u64) -> Self {
        Self::with_terminal(what, unit, total, std::io::stderr().is_terminal())
    }

    fn with_terminal(what: &str, unit: Unit, total: u64, terminal: bool) -> Self {
        let bar = ProgressBar::with_draw_target((total > 0).then_some(total), ProgressDrawTarget::hidden());
        bar.set_style(style(unit, total > 0));
        bar.set_prefix(what.to_owned());
        if terminal {
            bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(10));
        }
        let last_line = (!terminal).then(|| Arc::new(Mutex::new(Instant::now())));
        Self { bar, unit, last_line }
    }

    /// Counts `done` more units.
    pub(crate) fn add(&self, done: u64) {
        self.bar.inc(done);
        let Some(last) = &self.last_line else { return };
        let Ok(mut last) = last.lock() else { return };
        if last.elapsed() >= LINE_INTERVAL {
            *last = Instant::now();
            eprintln!("{}", self.line());
        }
    }

    /// Shows which part of the task is being done.
    pub(crate) fn at(&self, part: impl Into<String>) {
        self.bar.set_message(part.into());
    }

    /// Removes the bar.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }

    /// The progress as a line of text.
    fn line(&self) -> String {
        let (done, per_second) = (self.bar.position(), self.bar.per_sec());
        let amount = |n: u64| match self.unit {
            Unit::Bytes => BinaryBytes(n).to_string(),
            Unit::Count(_) => text::grouped(&n.to_string()),
        };
        let of = self.bar.length().map(|total| format!(" of {}", amount(total))).unwrap_or_default();
        let noun = match self.unit {
            Unit::Bytes => String::new(),
            Unit::Count(noun) => format!(" {noun}"),
        };
        let left = match self.bar.length() {
            Some(_) => format!(", {} left", HumanDuration(self.bar.eta())),
            None => String::new(),
        };
        let part = match self.bar.message() {
            part if part.is_empty() => part,
            part => format!(" ({part})"),
        };
        format!(
            "{}{part}: {}{of}{noun}, {}{left}",
            self.bar.prefix(),
            amount(done),
            rate(self.unit, per_second)
        )
    }
}

/// A rate with its unit, rounded for people.
fn rate(unit: Unit, per_second: f64) -> String {
    match unit {
        Unit::Bytes => format!("{}/s", BinaryBytes(per_second as u64)),
        Unit::Count(_) => format!("{}/s", text::grouped(&rounded(per_second))),
    }
}

fn style(unit: Unit, bounded: bool) -> ProgressStyle {
    let amount = match (unit, bounded) {
        (Unit::Bytes, true) => "{binary_bytes}/{binary_total_bytes} ".to_owned(),
        (Unit::Bytes, false) => "{binary_bytes} ".to_owned(),
        (Unit::Count(noun), true) => format!("{{human_pos}}/{{human_len}} {noun} "),
        (Unit::Count(noun), false) => format!("{{human_pos}} {noun} "),
    };
    let amount = format!("{amount}{{rate}}");
    let template = match bounded {
        true => format!("{{prefix}} [{{bar:25}}] {amount}, {{eta}} left {{msg}}"),
        false => format!("{{prefix}} {{spinner}} {amount} {{msg}}"),
    };
    let plain = ProgressStyle::default_bar();
    match plain.clone().template(&template) {
        Ok(style) => {
            style.progress_chars("=> ").with_key("rate", move |state: &ProgressState, to: &mut dyn Write| {
                // The only error is that of a full buffer, which a string has not.
                let _ = to.write_str(&rate(unit, state.per_sec()));
            })
        }
        Err(_) => plain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_amount_rate_and_remaining_time() {
        let progress = TaskProgress::with_terminal("upload", Unit::Bytes, 4 << 20, false);
        progress.at("01J");
        progress.add(1 << 20);
        let line = progress.line();
        assert!(line.starts_with("upload (01J): 1.00 MiB of 4.00 MiB, "), "{line}");
        assert!(line.ends_with(" left") && line.contains("/s, "), "{line}");
        let series = TaskProgress::with_terminal("read", Unit::Count("series"), 0, false);
        series.add(7);
        assert!(series.line().starts_with("read: 7 series, "), "{}", series.line());
    }

    #[test]
    fn rates_are_rounded_and_grouped() {
        assert_eq!(rate(Unit::Count("blocks"), 2_581.811_5), "2,582/s");
        assert_eq!(rate(Unit::Count("blocks"), 0.123_45), "0.123/s");
        assert_eq!(rate(Unit::Bytes, 3.5 * 1024.0), "3.50 KiB/s");
        let series = TaskProgress::with_terminal("read", Unit::Count("series"), 0, false);
        series.add(70_000);
        assert!(series.line().starts_with("read: 70,000 series, "), "{}", series.line());
    }

    #[test]
    fn all_styles_are_well_formed() {
        for unit in [Unit::Bytes, Unit::Count("blocks")] {
            for bounded in [true, false] {
                let text = format!("{:?}", style(unit, bounded).get_tick_str(0));
                assert!(!text.is_empty());
            }
        }
    }
}
