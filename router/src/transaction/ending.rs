//! Ending a level or a whole transaction.

use std::sync::Arc;

use super::stack::{self, Branch, Entry, Frame, Right, Ticket, Transaction};
use crate::connection::gate::Gate;
use crate::connection::slot::{AnySlot, Outcome};
use crate::error::{Error, Result};
use crate::failure::{Failure, FailureClass};
use crate::telemetry::TARGET;

/// How the body of a scope ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It returned `Ok`.
    Keep,
    /// It returned `Err` or panicked.
    Undo,
}

/// Ends what a ticket has opened. `Ok` means: kept if that was the verdict, and undone if that was.
///
/// A failure to undo is an event, never an error: it must not hide the error that the body returned. What could not be
/// undone dooms the level below, or is discarded with its connection.
#[expect(clippy::needless_pass_by_value, reason = "a level is ended once")]
pub(crate) fn leave(ticket: Ticket, verdict: Verdict) -> Result<()> {
    let Ticket { serial, right, .. } = ticket;
    take_leaked(serial).iter().rev().filter_map(Entry::transaction).for_each(discard);
    match right {
        Right::Level(1) => match take_entry(serial) {
            Some(Entry::Open(transaction)) => end_transaction(&transaction, verdict),
            _ => Err(gone()),
        },
        Right::Level(level) => end_level(serial, level, verdict),
        Right::Joined(place) => end_joined(serial, place, verdict),
        Right::Hidden => take_entry(serial).map(drop).ok_or_else(gone),
    }
}

/// Ends levels that their handle no longer can, because it is dropped: undone, also from another thread.
pub(crate) fn abandon(ticket: Ticket, branch: &dyn AnySlot, gate: &Gate) {
    let right = ticket.right;
    if ticket.thread == std::thread::current().id() {
        // `leave` tells of its own failures.
        let _ = leave(ticket, Verdict::Undo);
        if let Right::Level(level @ 2..) = right {
            // Its rows are gone, and nobody has asked for that: the scope around it must not report success.
            let text = "a transaction that a handle began was never ended";
            gate.doom(level - 1, Failure::new(FailureClass::Other, text));
        }
        return;
    }
    // The other thread's stack can't be reached. A gate without depth is what makes that thread forget the transaction.
    gate.set_depth(0, gate.site());
    if let Err(error) = branch.roll_back() {
        tell("a transaction that its handle left open could not be rolled back", branch.alias(), &error);
    }
}

/// What was opened above the ticket's entry and never ended.
fn take_leaked(serial: u64) -> Vec<Entry> {
    stack::with(|stack| match stack.iter().rposition(|entry| entry.serial() == serial) {
        Some(at) if at + 1 < stack.len() => stack.split_off(at + 1),
        _ => Vec::new(),
    })
}

fn take_entry(serial: u64) -> Option<Entry> {
    stack::with(|stack| {
        let at = stack.iter().rposition(|entry| entry.serial() == serial)?;
        Some(stack.remove(at))
    })
}

fn discard(transaction: &Transaction) {
    let site = transaction.outermost();
    tracing::error!(target: TARGET, %site, "a transaction was left open and is rolled back");
    roll_back_all(&transaction.gate, &transaction.branches);
}

fn gone() -> Error {
    Error::no_scope("ending a transaction that has ended already")
}

/// What has to be known of a level to end it, taken out so that nothing stays borrowed.
struct Leaving {
    gate: Arc<Gate>,
    branches: Vec<Branch>,
    outer: crate::site::Site,
}

fn end_level(serial: u64, level: u32, verdict: Verdict) -> Result<()> {
    let Some(Leaving { gate, branches, outer }) = stack::with(|stack| take_level(stack, serial, level)) else {
        return Err(gone());
    };
    let depth = level - 1;
    let doomed = if verdict == Verdict::Keep { gate.doomed() } else { None };
    gate.set_depth(depth, outer);
    let result = match (verdict, doomed) {
        (Verdict::Keep, None) => release(&branches, depth),
        (Verdict::Keep, Some(error)) => {
            undo(&gate, &branches, depth);
            Err(error)
        }
        (Verdict::Undo, _) => {
            undo(&gate, &branches, depth);
            Ok(())
        }
    };
    stack::with(|stack| {
        if let Some(transaction) = find(stack, serial) {
            transaction.branches = branches;
        }
    });
    result
}

/// A scope that has no level of its own: what it did belongs to the level that it joined, and so does its failure.
fn end_joined(serial: u64, place: usize, verdict: Verdict) -> Result<()> {
    stack::with(|stack| {
        let transaction = find(stack, serial).ok_or_else(gone)?;
        let Some(Frame { site, level, .. }) = transaction.frames.get(place).copied() else { return Err(gone()) };
        doom_leaked_levels(transaction, place, level);
        transaction.frames.truncate(place);
        if verdict == Verdict::Undo {
            let text = format!("{site} joined the transaction and failed");
            transaction.gate.doom(level, Failure::new(FailureClass::Other, text));
        }
        let outer = transaction.frames.last().map_or(site, |frame| frame.site);
        transaction.gate.set_depth(level, outer);
        Ok(())
    })
}

fn find(stack: &mut [Entry], serial: u64) -> Option<&mut Transaction> {
    stack.iter_mut().rev().find(|entry| entry.serial() == serial)?.transaction_mut()
}

fn take_level(stack: &mut [Entry], serial: u64, level: u32) -> Option<Leaving> {
    let transaction = find(stack, serial)?;
    let place = transaction.frames.iter().position(|frame| frame.level == level)?;
    doom_leaked_levels(transaction, place, level);
    transaction.frames.truncate(place);
    let outer = transaction.frames.last()?.site;
    Some(Leaving { gate: Arc::clone(&transaction.gate), branches: std::mem::take(&mut transaction.branches), outer })
}

/// A handle began a transaction inside this scope and never ended it.
fn doom_leaked_levels(transaction: &Transaction, place: usize, level: u32) {
    let leaked = transaction.frames.iter().skip(place + 1).find(|frame| frame.level > level);
    if let Some(Frame { site, .. }) = leaked {
        let text = format!("a transaction that a handle began in {site} was never ended");
        transaction.gate.doom(level, Failure::new(FailureClass::Other, text));
    }
}

fn release(branches: &[Branch], depth: u32) -> Result<()> {
    let mut result = Ok(());
    for branch in branches {
        // Each branch is told, whatever the others said: its levels must not run ahead of the transaction's.
        result = result.and(branch.slot.release(depth));
    }
    result
}

fn undo(gate: &Gate, branches: &[Branch], depth: u32) {
    for branch in branches {
        if let Err(error) = branch.slot.roll_back_to(depth) {
            tell("a level could not be rolled back", branch.slot.alias(), &error);
        }
    }
    // A branch that could not be undone has doomed the level below, which this leaves doomed.
    gate.lift(depth);
}

fn end_transaction(transaction: &Transaction, verdict: Verdict) -> Result<()> {
    doom_leaked_levels(transaction, 0, 1);
    let Transaction { gate, branches, .. } = transaction;
    let doomed = if verdict == Verdict::Keep { gate.doomed() } else { None };
    gate.set_depth(0, transaction.outermost());
    match (verdict, doomed) {
        (Verdict::Keep, None) => commit_all(transaction),
        (Verdict::Keep, Some(error)) => {
            roll_back_all(gate, branches);
            Err(error)
        }
        (Verdict::Undo, _) => {
            roll_back_all(gate, branches);
            Ok(())
        }
    }
}

/// Commits every branch, the last listed first, as nested blocks do.
fn commit_all(transaction: &Transaction) -> Result<()> {
    let mut committed = Vec::new();
    let mut branches = transaction.branches.iter().rev();
    while let Some(branch) = branches.next() {
        let begun = branch.slot.begun();
        let error = match branch.slot.commit() {
            Outcome::Committed => {
                if begun {
                    committed.push(branch.slot.alias().clone());
                }
                continue;
            }
            Outcome::RolledBack(error) => error,
            Outcome::Unknown => {
                Error::OutcomeUnknown { id: transaction.id().clone(), databases: vec![branch.slot.alias().clone()] }
            }
        };
        let left: Vec<Branch> = branches.cloned().collect();
        roll_back_all(&transaction.gate, &left);
        if committed.is_empty() {
            return Err(error);
        }
        tell("a transaction over several databases was committed in part", branch.slot.alias(), &error);
        let mut failed = vec![branch.slot.alias().clone()];
        failed.extend(left.iter().map(|branch| branch.slot.alias().clone()));
        return Err(Error::PartialCommit { committed, failed });
    }
    Ok(())
}

fn roll_back_all(gate: &Gate, branches: &[Branch]) {
    gate.set_depth(0, gate.site());
    for branch in branches {
        if let Err(error) = branch.slot.roll_back() {
            tell("a transaction could not be rolled back; its connection is discarded", branch.slot.alias(), &error);
        }
    }
}

fn tell(what: &'static str, alias: &crate::alias::Alias, error: &Error) {
    tracing::error!(target: TARGET, %alias, %error, "{what}");
}
