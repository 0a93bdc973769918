//! What is seen while it runs.

use std::fmt::Display;
use std::io::{self, Write};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar on a terminal; nothing where stderr is none.
pub struct Progress(ProgressBar);

impl Progress {
    /// `bytes` is the length of the input; 0 where it is not known, as of a pipe.
    pub fn new(bytes: u64) -> Self {
        let (length, template) = match bytes {
            0 => (None, "{spinner} {bytes} read, {elapsed}"),
            _ => (Some(bytes), "[{bar:40}] {percent:>3}%, {eta} left"),
        };
        let bar = ProgressBar::with_draw_target(length, ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template(template).expect("a template that indicatif understands");
        bar.set_style(style.progress_chars("=> "));
        Self(bar)
    }

    pub fn at(&self, bytes: u64) {
        self.0.set_position(bytes);
    }

    /// Prints a line to stderr, above the bar.
    pub fn say(&self, line: impl Display) {
        // A reader that has gone away is no reason to stop a bank.
        self.0.suspend(|| drop(writeln!(io::stderr(), "{line}")));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
