//! The width of the terminal.

use std::io::IsTerminal;

use rustix::termios::tcgetwinsize;

/// Smaller widths are not believed: nothing readable fits.
const MIN_WIDTH: usize = 20;

/// The columns of the terminal that standard output is written to: `COLUMNS` from the environment if it is a number, otherwise
/// what the terminal says. `None` if standard output is not a terminal, so that programs get whole lines.
pub fn output_width() -> Option<usize> {
    let stdout = std::io::stdout();
    if !stdout.is_terminal() {
        return None;
    }
    let size = || tcgetwinsize(&stdout).ok().map(|size| usize::from(size.ws_col));
    chosen(std::env::var("COLUMNS").ok().as_deref(), size)
}

fn chosen(columns: Option<&str>, size: impl FnOnce() -> Option<usize>) -> Option<usize> {
    let columns = columns.and_then(|columns| columns.trim().parse().ok());
    columns
        .filter(|columns| *columns > 0)
        .or_else(|| size().filter(|size| *size > 0))
        .map(|width| width.max(MIN_WIDTH))
}

#[cfg(test)]
mod tests {
    use super::chosen;

    #[test]
    fn the_environment_comes_before_the_terminal() {
        let check =
            |columns, size, expected| assert_eq!(chosen(columns, || size), expected, "{columns:?} {size:?}");
        check(None, Some(120), Some(120));
        check(Some("60"), Some(120), Some(60));
        check(Some("60"), None, Some(60));
        check(Some("0"), Some(120), Some(120));
        check(Some("wide"), Some(120), Some(120));
        check(Some("3"), Some(120), Some(20));
        // A terminal that does not know its size says 0.
        check(None, Some(0), None);
        check(None, None, None);
    }
}
