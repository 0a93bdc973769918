//! The examples, run as a user runs them: as programs.
//!
//! What they left in their files is read with plain Diesel, so that a fault of the library can't hide itself.

mod bank;
mod bank_urls;
#[cfg(unix)]
mod disturbed;
mod jobs;
mod lines;
mod program;
mod runs;
#[cfg(all(feature = "postgres", feature = "mysql"))]
#[path = "../support/servers.rs"]
mod support;
mod two_apps;
