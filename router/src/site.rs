//! Where in the source a scope was opened.

use std::fmt;
use std::panic::Location;

/// The place of an annotated function: the attribute writes one beside each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Function {
    name: &'static str,
    module: &'static str,
    file: &'static str,
    line: u32,
}

impl Function {
    /// A function by its name and its place.
    pub const fn new(name: &'static str, module: &'static str, file: &'static str, line: u32) -> Self {
        Self { name, module, file, line }
    }
}

/// The place of a scope: what errors name. Small, since it is copied into each frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Site {
    /// An annotated function.
    Function(&'static Function),
    /// A closure scope or a savepoint, by what was called and where.
    Call(&'static str, &'static Location<'static>),
}

impl Site {
    /// The place of the caller of a function that is called `name`.
    #[track_caller]
    pub(crate) fn call(name: &'static str) -> Self {
        Self::Call(name, Location::caller())
    }

    pub(crate) fn function(self) -> &'static str {
        match self {
            Self::Function(function) => function.name,
            Self::Call(name, _) => name,
        }
    }

    pub(crate) fn file(self) -> &'static str {
        match self {
            Self::Function(function) => function.file,
            Self::Call(_, place) => place.file(),
        }
    }

    pub(crate) fn line(self) -> u32 {
        match self {
            Self::Function(function) => function.line,
            Self::Call(_, place) => place.line(),
        }
    }
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` ({}:{})", self.function(), self.file(), self.line())
    }
}
