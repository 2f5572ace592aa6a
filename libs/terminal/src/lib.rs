//! Text for people: the width of the terminal, lines wrapped by it, tables drawn for it, and rounded numbers.
//!
//! Not here: formats for programs.

mod number;
mod table;
mod width;
mod wrap;

pub use number::rounded;
pub use table::{TableStyle, TextTable};
pub use width::output_width;
pub use wrap::wrap;
