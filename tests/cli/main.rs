//! The example `bank`, run as a user runs it: as a program that is given a CSV file.
//!
//! What it left in its two files is read with plain Diesel, so that a fault of the library can't hide itself.

mod bank;
#[cfg(unix)]
mod disturbed;
mod lines;
mod runs;
