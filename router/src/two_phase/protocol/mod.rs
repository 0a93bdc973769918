//! The protocol, without any I/O: no connection, no clock, no randomness.
//!
//! A machine says what to do next, and is told what came of it. The driver, the exhaustive explorer and the seeded
//! simulation run the same machines.

mod coordinator;
mod incarnations;
mod recoverer;
#[cfg(test)]
mod tests;

pub use coordinator::{Answer, Coordinator, Ending, Part, Step};
pub use incarnations::{Adopting, Incarnations, adopting};
pub use recoverer::{Closing, Finding, HomeSays, Outcome, Participant, Receipts, Recoverer, State, Task, closing};
