//! The applications of the example `two_apps`, with routes of its own for each call: what an application's tests do.
//!
//! A test binary of its own, because a bare attribute takes the application from the first module below the crate.

#![expect(clippy::unwrap_used, reason = "a test that can't go on panics")]

#[path = "../../examples/two_apps/astakos.rs"]
mod astakos;
#[path = "../../examples/two_apps/cyclades.rs"]
#[expect(dead_code, reason = "the tests boot no servers")]
mod cyclades;
#[path = "../../examples/two_apps/error.rs"]
#[expect(dead_code, reason = "the program has errors of its own")]
mod error;
#[path = "../../examples/two_apps/launch.rs"]
mod launch;

mod layouts;
mod swaps;
mod watched;
