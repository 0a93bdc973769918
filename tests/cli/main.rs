//! The examples, run as a user runs them: as programs.
//!
//! What they left in their files is read with plain Diesel, so that a fault of the library can't hide itself.

mod bank;
#[cfg(unix)]
mod disturbed;
mod jobs;
mod lines;
mod program;
mod runs;
mod two_apps;
