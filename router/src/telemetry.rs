//! The names of spans and events, and how an outcome gets into the span of its scope.

use tracing::Level;

/// The target of every event and span of the library.
pub const TARGET: &str = "multidb";

/// Whether anybody listens to the spans of scopes.
#[inline]
pub fn spans_are_seen() -> bool {
    tracing::level_enabled!(Level::INFO)
}

/// Records in the innermost span, which is that of the scope that ends, how it came out.
#[inline]
pub fn outcome(outcome: &'static str) {
    if spans_are_seen() {
        record(outcome);
    }
}

#[cold]
fn record(outcome: &'static str) {
    let span = tracing::Span::current();
    // Where the library's own spans are filtered out, this one is the user's.
    if span.metadata().is_some_and(|metadata| metadata.target() == TARGET) {
        span.record("outcome", outcome);
    }
}
