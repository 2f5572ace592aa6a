//! The sliding functions against the window-by-window ones, on random series.
