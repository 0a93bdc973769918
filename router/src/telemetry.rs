//! The names of spans and events.

/// The target of every event and span of the library.
pub const TARGET: &str = "multidb";
