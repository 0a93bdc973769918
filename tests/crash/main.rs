//! Processes that are killed at every named point of a commit over several databases. After one pass of recovery each
//! transaction's rows are in all databases or in none, and nothing is left over.
//!
//! What the databases hold is read through plain Diesel connections.

#![expect(clippy::unwrap_used, reason = "a test that can't go on panics")]

mod beside;
mod child;
mod faked;
mod guards;
#[cfg(feature = "testing")]
#[path = "../support/idle/mod.rs"]
#[expect(dead_code, reason = "other tests need the rest")]
mod idle;
mod kept;
mod layout;
mod left_alone;
mod matrix;
mod paused;
mod places;
#[path = "../support/proxy.rs"]
#[expect(dead_code, reason = "other tests need the rest")]
mod proxy;
mod recoverers;
mod requests;
mod runbook;
#[path = "../support/server.rs"]
mod server;
#[path = "../support/servers.rs"]
mod servers;
mod servers_killed;
mod silent;
mod soak;
mod syscalls;
mod table;
mod under_load;
mod verdict;
mod wandering;
mod whole;
