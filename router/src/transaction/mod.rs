//! The transactions that are open on this thread.
//!
//! A transaction has one or more *branches*, one for each database that it touches, and *levels*, one for each scope
//! in it. A level belongs to the transaction, not to a database: leaving a nested scope by error rolls every branch
//! back to that level. So a function that nests means the same whether its models share a database or not.

mod across;
mod best_effort;
mod branch;
mod committing;
mod ending;
mod frame;
mod hooks;
pub(crate) mod manual;
mod pins;
mod stack;
mod terms;

pub(crate) use across::{Enlisting, begin_across, branch_of, id};
pub(crate) use ending::{Verdict, abandon, has_level, leave, no_scope_inside};
pub(crate) use frame::Kind;
pub(crate) use hooks::{HOOKS_LIMIT, HookBody, When, run_now as run_hook};
#[cfg(feature = "testing")]
pub(crate) use hooks::{capturing, run_captured};
pub(crate) use pins::pin;
pub(crate) use stack::{
    Surroundings, Ticket, any, begin, file, forbid_repetition, hide, hide_always, join, may_be_repeated, nest,
    note_independent_work, reached, slot, surroundings, top,
};
pub(crate) use terms::Terms;

/// The most levels of one transaction, and the most transactions of one thread.
pub(crate) const LEVELS_LIMIT: u32 = 1_000;

/// How many scopes most transactions have open at most: saves allocations, and limits nothing.
const FRAMES_EXPECTED: usize = 4;

#[cfg(test)]
mod tests;
