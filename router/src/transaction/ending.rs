//! Ending a level or a whole transaction.

use std::sync::Arc;

use super::branch::Branch;
use super::committing::{NotCommitted, commit, roll_back_all, tell};
use super::frame::{Entry, Frame, Kind};
use super::hooks::{self, Hook, When};
use super::stack::{self, Ticket, Transaction};
use crate::connection::characteristics::Limits;
use crate::connection::gate::Gate;
use crate::connection::slot::AnySlot;
use crate::error::{Error, Result};
use crate::failure::{Failure, FailureClass};
use crate::site::Site;
use crate::telemetry::{self, TARGET};

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
/// A failure to undo is an event, not an error: it must not hide the error that the body returned. What could not be
/// undone dooms the level below, or is discarded with its connection. If a statement has ended the transaction, that is the
/// error, be the verdict what it may: what ran before it may be permanent.
#[expect(clippy::needless_pass_by_value, reason = "a level is ended once")]
pub(crate) fn leave(ticket: Ticket, verdict: Verdict) -> Result<()> {
    match take_plain(&ticket) {
        Some(transaction) => end_transaction(transaction, verdict),
        None => leave_among_others(&ticket, verdict),
    }
}

/// Ends a level that has others around it, or what was left open above it.
#[inline(never)]
fn leave_among_others(ticket: &Ticket, verdict: Verdict) -> Result<()> {
    let Ticket { serial, frame, .. } = *ticket;
    let leaked = take_leaked(serial);
    leaked.iter().rev().filter_map(Entry::transaction).for_each(discard);
    if leaked.iter().any(|entry| entry.transaction().is_some()) {
        // Functions called meanwhile have joined it, and have reported success.
        let gate = stack::with(|stack| find(stack, serial).map(|transaction| Arc::clone(&transaction.gate)));
        if let Some(gate) = gate {
            gate.doom(ticket.level.max(1), Failure::new(FailureClass::Other, NEVER_ENDED));
        }
    }
    let Some(number) = frame else { return take_entry(serial).map(drop).ok_or_else(gone) };
    let found = stack::with(|stack| {
        let transaction = find(stack, serial)?;
        let place = transaction.frames.iter().position(|frame| frame.number == number)?;
        Some((place, transaction.frames[place].kind, leaked_level(transaction, place)))
    });
    let (place, kind, leaked) = found.ok_or_else(gone)?;
    // Only now: a doom is told of, and who listens may look at the stack.
    if let Some((gate, level, failure)) = leaked {
        gate.doom(level, failure);
    }
    match (place, kind) {
        (place, Kind::Joined) => end_joined(serial, place, verdict),
        (0, _) => match take_entry(serial) {
            Some(Entry::Open(transaction)) => end_transaction(transaction, verdict),
            _ => Err(gone()),
        },
        (place, _) => end_level(serial, place, verdict),
    }
}

/// The ticket's transaction, if it is the innermost entry and the ticket's frame its only one: most ends are like that.
fn take_plain(ticket: &Ticket) -> Option<Box<Transaction>> {
    stack::with(|stack| match stack.last() {
        Some(Entry::Open(open))
            if open.serial == ticket.serial
                && matches!(&open.frames[..], [only] if Some(only.number) == ticket.frame) =>
        {
            stack.pop().and_then(Entry::into_transaction)
        }
        _ => None,
    })
}

/// Refuses where a scope that was entered inside of the level is still running: it would go on without its own level, and
/// its failure would undo nothing. `what` is what the user wants to end.
pub(crate) fn no_scope_inside(ticket: &Ticket, what: impl FnOnce() -> String) -> Result<()> {
    let running = stack::with(|stack| {
        let at = stack.iter().rposition(|entry| entry.serial() == ticket.serial)?;
        let (own, above) = stack[at..].split_first()?;
        let since = own.transaction()?.frames.iter().skip_while(|frame| Some(frame.number) != ticket.frame);
        let frames = since.chain(above.iter().filter_map(Entry::transaction).flat_map(|open| &open.frames));
        let scope = frames.filter(|frame| matches!(frame.kind, Kind::Scope | Kind::Joined)).last();
        let hidden = above.iter().any(|entry| entry.transaction().is_none());
        scope.map(|frame| frame.site.to_string()).or_else(|| hidden.then(|| "a scope in autocommit".to_owned()))
    });
    running.map_or(Ok(()), |scope| {
        Err(Error::OptionConflict {
            outer: format!("in which {scope} was entered since and still runs"),
            inner: format!("ending {}", what()),
            remedy: "end it in the scope that set it, before or after the inner one",
        })
    })
}

/// What dooms a scope whose handle has begun a transaction in it and left it open.
const NEVER_ENDED: &str = "a transaction that a handle began was never ended";

/// Ends levels that their handle no longer can, because it is dropped: undone, also from another thread.
///
/// `wanted` says that they were begun to be rolled back.
pub(crate) fn abandon(ticket: Ticket, branch: &dyn AnySlot, gate: &Gate, wanted: bool) {
    let level = ticket.level;
    let here = ticket.is_in_reach();
    if here && no_scope_inside(&ticket, String::new).is_ok() {
        // `leave` tells of its own failures.
        let _ = leave(ticket, Verdict::Undo);
        let never_ended = || Failure::new(FailureClass::Other, NEVER_ENDED);
        if level > 1 {
            // Its rows are gone, and nobody has asked for that: the scope around it must not report success.
            gate.doom(level - 1, never_ended());
        } else if !wanted {
            // Likewise the scope that the handle's own transaction was begun in: functions called in it have joined
            // what is now rolled back.
            if let Some(around) = stack::top(|around| Arc::clone(&around.gate)) {
                around.doom(around.depth(), never_ended());
            }
        }
        return;
    }
    let text = if here {
        "a handle with an open transaction has ended inside of a scope in it"
    } else {
        "a handle with an open transaction has ended on another thread"
    };
    gate.doom(level.saturating_sub(1).max(1), Failure::new(FailureClass::Other, text));
    if level > 1 {
        // The scope around it still runs, and ends the level with its own.
        return;
    }
    if here && !wanted {
        // As above: the scope that the handle's own transaction was begun in.
        let around = stack::with(|stack| {
            let at = stack.iter().rposition(|entry| entry.serial() == ticket.serial)?;
            Some(Arc::clone(&stack[..at].last()?.transaction()?.gate))
        });
        if let Some(around) = around {
            around.doom(around.depth(), Failure::new(FailureClass::Other, text));
        }
    }
    stack::abandon(gate);
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
    transaction.gate.close();
    roll_back_all(&transaction.branches);
}

fn gone() -> Error {
    Error::AlreadyEnded { what: "this level of a transaction".into() }
}

/// Whether the ticket's level is still there to be ended.
pub(crate) fn has_level(ticket: &Ticket) -> bool {
    let has = |open: &mut Transaction| open.frames.iter().any(|frame| Some(frame.number) == ticket.frame);
    stack::with(|stack| find(stack, ticket.serial).is_some_and(has))
}

/// What has to be known of a level to end it, taken out so that nothing stays borrowed.
struct Leaving {
    gate: Arc<Gate>,
    branches: Vec<Branch>,
    frame: Frame,
    outer: Site,
    /// The limits that hold again, if the level had some of its own.
    widen: Option<Limits>,
}

fn end_level(serial: u64, place: usize, verdict: Verdict) -> Result<()> {
    let leaving = stack::with(|stack| {
        let transaction = find(stack, serial)?;
        let frame = *transaction.frames.get(place)?;
        // Asked while the level's own time limit still counts.
        let doomed = transaction.gate.doomed();
        let widen = transaction.truncate(place);
        let outer = transaction.frames.last()?.site;
        let (gate, branches) = (Arc::clone(&transaction.gate), std::mem::take(&mut transaction.branches));
        Some((Leaving { gate, branches, frame, outer, widen }, doomed))
    });
    let (Leaving { gate, branches, frame, outer, widen }, doomed) = leaving.ok_or_else(gone)?;
    let depth = frame.level - 1;
    gate.set_depth(depth, outer);
    let result = match (verdict, frame.undone, doomed) {
        (Verdict::Keep, false, None) => release(&branches, depth, widen),
        (Verdict::Keep, false, Some(error)) => Err(error),
        (Verdict::Keep, true, _) | (Verdict::Undo, ..) => Ok(()),
    };
    let kept = verdict == Verdict::Keep && !frame.undone && result.is_ok();
    telemetry::outcome(if kept { "kept" } else { "undone" });
    let branches = if kept { branches } else { without_late(branches, depth) };
    let lost = !kept && !undo(&gate, &branches, depth, widen);
    // Whoever asked for the undoing has no error of their own that this could hide.
    let asked = frame.kind == Kind::Savepoint && verdict == Verdict::Undo;
    let result = if lost && asked { gate.doomed().map_or(result, Err) } else { result };
    let dropped = stack::with(|stack| {
        find(stack, serial).map(|transaction| {
            transaction.branches = branches;
            if kept {
                transaction.branches.iter_mut().for_each(|branch| branch.hand_down(depth));
            }
            hand_down_hooks(transaction, depth, kept)
        })
    });
    // Only now: what a hook has captured may look at the stack when it is dropped.
    drop(dropped);
    result
}

/// The hooks of an ended level belong to the one below, or are dropped with it.
fn hand_down_hooks(transaction: &mut Transaction, depth: u32, kept: bool) -> Vec<Hook> {
    if kept {
        transaction.hooks.iter_mut().for_each(|hook| hook.level = hook.level.min(depth));
        return Vec::new();
    }
    let first = transaction.hooks.iter().position(|hook| hook.level > depth);
    first.map_or_else(Vec::new, |first| transaction.hooks.split_off(first))
}

/// A scope that has no level of its own: what it did belongs to the level that it joined, and so does its failure.
fn end_joined(serial: u64, place: usize, verdict: Verdict) -> Result<()> {
    let ended = stack::with(|stack| {
        let transaction = find(stack, serial)?;
        let Frame { site, level, .. } = transaction.frames[place];
        // A time limit of the scope dooms what it has joined.
        let doomed = transaction.gate.doomed().is_some();
        transaction.truncate(place);
        let outer = transaction.frames.last().map_or(site, |frame| frame.site);
        // Savepoints that were set in it and never ended.
        let left = (transaction.gate.depth() > level).then(|| transaction.branches.clone());
        Some((Arc::clone(&transaction.gate), site, level, outer, doomed, left))
    });
    let (gate, site, level, outer, doomed, left) = ended.ok_or_else(gone)?;
    telemetry::outcome(if verdict == Verdict::Keep { "joined" } else { "doomed" });
    let kept = verdict == Verdict::Keep && !(doomed && left.is_some());
    let doom =
        || gate.doom(level, Failure::new(FailureClass::Other, format!("{site} joined the transaction and failed")));
    if !kept {
        // Where it was doomed above the level already, the first failure stays the cause.
        doom();
    }
    gate.set_depth(level, outer);
    let result = match &left {
        Some(branches) if kept => release(branches, level, None),
        _ => Ok(()),
    };
    if result.is_err() {
        doom();
    }
    if left.is_some() {
        // Otherwise the next level, which has the place of those savepoints, would take it along.
        stack::with(|stack| {
            find(stack, serial).map(|transaction| {
                transaction.branches.iter_mut().for_each(|branch| branch.hand_down(level));
                hand_down_hooks(transaction, level, true)
            })
        });
    }
    result
}

fn find(stack: &mut [Entry], serial: u64) -> Option<&mut Transaction> {
    stack.iter_mut().rev().find(|entry| entry.serial() == serial)?.transaction_mut()
}

/// A handle began a transaction inside this scope and never ended it. A savepoint ends with its scope.
fn leaked_level(transaction: &Transaction, place: usize) -> Option<(Arc<Gate>, u32, Failure)> {
    let level = transaction.frames[place].level;
    let leaked = transaction.frames.iter().skip(place + 1).find(|frame| frame.kind == Kind::Handle);
    leaked.map(|Frame { site, .. }| {
        let text = format!("{NEVER_ENDED}, in {site}");
        (Arc::clone(&transaction.gate), level, Failure::new(FailureClass::Other, text))
    })
}

fn release(branches: &[Branch], depth: u32, widen: Option<Limits>) -> Result<()> {
    let mut result = Ok(());
    for branch in branches {
        // Each branch is told, whatever the others said: its levels must not run ahead of the transaction's.
        result = result.and(branch.slot.release(depth, widen));
    }
    result
}

/// The branches of a level that is undone: one that was enlisted above `depth` is rolled back whole, and is no branch any
/// more.
fn without_late(mut branches: Vec<Branch>, depth: u32) -> Vec<Branch> {
    let late: Vec<Branch> = branches.extract_if(.., |branch| branch.level() > depth).collect();
    roll_back_all(&late);
    branches
}

/// Whether it was undone on every branch.
fn undo(gate: &Gate, branches: &[Branch], depth: u32, widen: Option<Limits>) -> bool {
    let mut undone = true;
    for branch in branches {
        if let Err(error) = branch.slot.roll_back_to(depth, widen) {
            tell("a level could not be rolled back", branch.slot.alias(), &error);
            undone = false;
        }
    }
    // A branch that could not be undone has doomed the level below, which this leaves doomed.
    gate.lift(depth);
    undone
}

#[inline(always)]
#[expect(clippy::inline_always, reason = "each scope ends here")]
fn end_transaction(transaction: Box<Transaction>, verdict: Verdict) -> Result<()> {
    let Transaction { gate, branches, frames, terms, .. } = &*transaction;
    let undone = frames.first().is_some_and(|frame| frame.undone);
    let keeps = verdict == Verdict::Keep && !undone;
    let proof = (keeps && terms.verifies() && transaction.across.is_none()).then(|| transaction.proof());
    // A failure to write it dooms the transaction.
    let unwritten = proof.as_ref().and_then(|proof| proof.write(branches).err());
    let doomed = gate.doomed();
    gate.close();
    let refused = match doomed {
        _ if !keeps => Some(Ok(())),
        Some(doomed) => Some(Err(unwritten.unwrap_or(doomed))),
        None if terms.manual && gate.writes() > 0 => Some(Err(pending(gate, transaction.outermost()))),
        None => None,
    };
    if let Some(result) = refused {
        return end_uncommitted(transaction, result, Some(When::RolledBack));
    }
    let committed = commit(&transaction, proof.as_ref());
    if !matches!(committed, Err(NotCommitted { outcome: Some(When::RolledBack), .. })) {
        note_independent_commit(&transaction);
    }
    match committed {
        Ok(()) if transaction.hooks.is_empty() => {
            stack::retire(transaction);
            Ok(())
        }
        Ok(()) => run_hooks(transaction, Ok(()), Some(When::Committed)),
        Err(NotCommitted { result, outcome }) => end_uncommitted(transaction, result, outcome),
    }
}

/// The transactions around it must not be run again: what it has done stays.
#[inline]
fn note_independent_commit(transaction: &Transaction) {
    let reads = transaction.terms.characteristics.limits.read_only;
    if !transaction.alone && !reads && transaction.branches.iter().any(|branch| branch.slot.begun()) {
        stack::note_independent_work();
    }
}

/// Rolls back, unless nobody knows what became of the transaction.
fn end_uncommitted(transaction: Box<Transaction>, mut result: Result<()>, mut outcome: Option<When>) -> Result<()> {
    let undone = transaction.frames.first().is_some_and(|frame| frame.undone);
    if outcome == Some(When::RolledBack) {
        roll_back_all(&transaction.branches);
        // Perhaps found out only by rolling back: what ran before it may be permanent, and must not be done again.
        let ended = transaction.gate.doomed().filter(|error| matches!(error, Error::ImplicitCommit { .. }));
        if let Some(error) = ended {
            note_independent_commit(&transaction);
            telemetry::outcome("unknown");
            // Neither kind of hook would be right.
            outcome = None;
            result = Err(error);
        } else if transaction.gate.has_ended_by_ddl() {
            // As with Diesel alone, and its error is the one that says why.
            note_independent_commit(&transaction);
            telemetry::outcome("unknown");
            outcome = None;
        } else {
            telemetry::outcome("rolled_back");
            if transaction.terms.repeats
                && !undone
                && let Some(error) = passing(&result, &transaction.gate)
            {
                // The next attempt registers its hooks anew.
                stack::retire(transaction);
                return Err(error);
            }
        }
    }
    run_hooks(transaction, result, outcome)
}

/// Runs the hooks of a transaction that has ended.
fn run_hooks(mut transaction: Box<Transaction>, result: Result<()>, outcome: Option<When>) -> Result<()> {
    // An unknown outcome runs no hook of either kind.
    let hooked = match outcome {
        Some(outcome) if !transaction.hooks.is_empty() => {
            let hooks = std::mem::take(&mut transaction.hooks);
            hooks::run(hooks, outcome, transaction.databases())
        }
        _ => Ok(()),
    };
    let returns = transaction.terms.returns_hook_errors;
    stack::retire(transaction);
    if result.is_ok() && outcome == Some(When::Committed) && returns { hooked } else { result }
}

/// Why a transaction that was rolled back may be run again.
fn passing(result: &Result<()>, gate: &Gate) -> Option<Error> {
    let first = match result {
        Err(Error::Doomed { first, .. }) => first.class().passes().then(|| Arc::clone(first)),
        Err(Error::Query(error)) => Failure::of(error).filter(|failure| failure.class().passes()).map(Arc::new),
        _ => gate.passing_failure(),
    };
    first.map(|first| gate.blame(first))
}

/// A manual scope was left with writes that nobody has committed.
fn pending(gate: &Gate, site: Site) -> Error {
    let (function, file, line) = (site.function(), site.file(), site.line());
    Error::PendingWork { function, file, line, statements: gate.writes() }
}
