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
    /// The column and a hash of the text, of a function with `once`: two of one path are told apart by them.
    text: (u32, u64),
}

impl Function {
    /// A function by its name and its place.
    pub const fn new(name: &'static str, module: &'static str, file: &'static str, line: u32) -> Self {
        Self { name, module, file, line, text: (0, 0) }
    }

    /// The same with its column, and a hash of its text.
    #[must_use]
    pub const fn with_text(self, column: u32, text: u64) -> Self {
        Self { text: (column, text), ..self }
    }

    /// Its column, and the hash of its text.
    pub(crate) const fn text(&self) -> (u32, u64) {
        self.text
    }

    pub(crate) const fn module(&self) -> &'static str {
        self.module
    }

    pub(crate) const fn file(&self) -> &'static str {
        self.file
    }

    pub(crate) const fn line(&self) -> u32 {
        self.line
    }

    /// A function of this library that users call: its place is where they do.
    const fn called(name: &'static str) -> Self {
        Self::new(name, "multidb", "", 0)
    }
}

/// The place of a scope: what errors name. Two words, since it is copied into each frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Site {
    function: &'static Function,
    /// Where a closure scope, a handle or a savepoint was asked for; an annotated function has its own place.
    call: Option<&'static Location<'static>>,
}

/// What users call by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    Atomic,
    AtomicMany,
    Connection,
    ConnectionOn,
    Savepoint,
}

impl Call {
    fn function(self) -> &'static Function {
        match self {
            Self::Atomic => const { &Function::called("atomic") },
            Self::AtomicMany => const { &Function::called("atomic_many") },
            Self::Connection => const { &Function::called("connection") },
            Self::ConnectionOn => const { &Function::called("connection_on") },
            Self::Savepoint => const { &Function::called("savepoint") },
        }
    }
}

impl Site {
    /// The place of an annotated function.
    pub(crate) const fn of(function: &'static Function) -> Self {
        Self { function, call: None }
    }

    /// The place of the caller of one of this library's functions.
    #[track_caller]
    pub(crate) fn call(call: Call) -> Self {
        Self { function: call.function(), call: Some(Location::caller()) }
    }

    pub(crate) fn function(self) -> &'static str {
        self.function.name
    }

    pub(crate) fn file(self) -> &'static str {
        self.call.map_or(self.function.file, Location::file)
    }

    pub(crate) fn line(self) -> u32 {
        self.call.map_or(self.function.line, Location::line)
    }
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` ({}:{})", self.function(), self.file(), self.line())
    }
}
