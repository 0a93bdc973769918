//! Processes that are killed at every named point of a commit over several databases. After one pass of recovery each
//! transaction's rows are in all databases or in none, and nothing is left over.
//!
//! What the databases hold is read through plain Diesel connections.

#![expect(clippy::unwrap_used, reason = "a test that can't go on panics")]

mod beside;
mod child;
mod guards;
mod kept;
mod left_alone;
mod matrix;
mod places;
mod recoverers;
#[path = "../support/servers.rs"]
mod servers;
mod soak;
