//! Where in the source a scope was opened.

use std::fmt;

/// The place of an annotated function or of a closure scope: what errors name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Site {
    pub(crate) function: &'static str,
    pub(crate) module: &'static str,
    pub(crate) file: &'static str,
    pub(crate) line: u32,
}

impl Site {
    /// The attribute writes one of these beside each function.
    pub const fn new(function: &'static str, module: &'static str, file: &'static str, line: u32) -> Self {
        Self { function, module, file, line }
    }
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` ({}:{})", self.function, self.file, self.line)
    }
}
