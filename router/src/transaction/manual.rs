//! Transactions whose scope commits and rolls back by itself.

use std::sync::Arc;

use once_cell::unsync::OnceCell;

use super::across;
use super::branch::Branch;
use super::committing::{NotCommitted, Proof, commit_one, commit_several, roll_back_each};
use super::frame::Kind;
use super::hooks::{self, Hook, When};
use super::stack::{self, Transaction};
use super::terms::Terms;
use crate::connection::gate::Gate;
use crate::databases::Databases;
use crate::error::{Error, Result};
use crate::transaction_id::TransactionId;

/// What the open transaction is about to end, taken out so that nothing stays borrowed.
struct Segment {
    gate: Arc<Gate>,
    branches: Vec<Branch>,
    hooks: Vec<Hook>,
    databases: Databases,
    id: OnceCell<TransactionId>,
    terms: Terms,
    across: bool,
}

/// Commits what was done since the last commit. The scope goes on: its next statement begins a new transaction.
pub(crate) fn commit() -> Result<()> {
    no_cursor()?;
    can_commit()?;
    let segment = take("`commit`")?;
    let id = || segment.id.get_or_init(TransactionId::new);
    let Segment { gate, databases, .. } = &segment;
    let only = match &segment.branches[..] {
        [only] if !segment.across => only,
        branches => {
            let committed = commit_several(databases, gate, branches, id().clone(), &segment.terms);
            return after(segment, committed);
        }
    };
    let proof = segment.terms.verifies().then(|| Proof { id: id(), long: OnceCell::new(), databases, gate });
    if let Some(proof) = &proof
        && let Err(error) = proof.write(&segment.branches)
    {
        put_back(segment);
        return Err(error);
    }
    let committed = commit_one(only, || id().clone(), proof.as_ref());
    after(segment, committed)
}

fn after(segment: Segment, committed: Result<(), NotCommitted>) -> Result<()> {
    if !matches!(committed, Err(NotCommitted { outcome: Some(When::RolledBack), .. })) {
        // The transactions around it must not be run again: what it has done stays.
        stack::note_independent_work();
    }
    match committed {
        Ok(()) => finish(segment, Ok(()), Some(When::Committed)),
        Err(NotCommitted { result, outcome }) => finish(segment, result, outcome),
    }
}

/// Undoes what was done since the last commit, and lifts a doom. The scope goes on.
pub(crate) fn roll_back() -> Result<()> {
    no_cursor()?;
    let segment = take("`rollback`")?;
    let ended = segment.gate.doomed().filter(|error| matches!(error, Error::ImplicitCommit { .. }));
    let result = roll_back_each(&segment.branches).and(ended.map_or(Ok(()), Err));
    let outcome = result.is_ok().then_some(When::RolledBack);
    finish(segment, result, outcome)
}

/// Refuses while rows of a query are still read: their connection can neither commit nor roll back. Nothing changes then.
fn no_cursor() -> Result<()> {
    let busy = stack::top(|open| {
        let reading = open.branches.iter().find(|branch| branch.slot.is_in_use());
        reading.map_or(Ok(()), |branch| open.gate.no_stream(branch.slot.alias()))
    });
    busy.unwrap_or(Ok(()))
}

fn take(asked: &'static str) -> Result<Segment> {
    let taken = stack::top(|open| {
        let innermost = open.frames.iter().rev().find(|frame| frame.kind != Kind::Savepoint);
        let site = innermost.map_or_else(|| open.gate.site(), |frame| frame.site);
        if !open.terms.manual || !is_outermost(open) {
            let (function, file, line) = (site.function(), site.file(), site.line());
            return Err(Error::NotManual { asked, function, file, line });
        }
        // The next transaction is not the one that `set_rollback` has marked.
        open.frames[0].undone = false;
        // Savepoints end with the commit.
        open.truncate(1);
        Ok(Segment {
            gate: Arc::clone(&open.gate),
            branches: std::mem::take(&mut open.branches),
            hooks: std::mem::take(&mut open.hooks),
            databases: open.databases().clone(),
            id: std::mem::take(&mut open.id),
            terms: open.terms,
            across: open.across.is_some(),
        })
    });
    taken.unwrap_or_else(|| Err(Error::no_scope(asked)))
}

/// Refuses what is doomed, and what `set_rollback` has marked to be undone. Nothing changes then, savepoints included.
fn can_commit() -> Result<()> {
    let refused = stack::top(|open| {
        if !open.terms.manual || !is_outermost(open) {
            return None; // `take` says why.
        }
        let marked = || Error::OptionConflict {
            outer: format!("which {} has marked with `set_rollback(true)` to be undone", open.outermost()),
            inner: "`commit`".to_owned(),
            remedy: "call `rollback`, or take the mark back with `set_rollback(false)`",
        };
        open.gate.doomed().or_else(|| open.frames[0].undone.then(marked))
    });
    refused.flatten().map_or(Ok(()), Err)
}

/// Whether the innermost scope is the one that opened the transaction.
fn is_outermost(open: &Transaction) -> bool {
    open.frames.iter().filter(|frame| frame.kind != Kind::Savepoint).count() == 1
}

/// The slots are ready for the next statement, and the hooks run.
fn finish(segment: Segment, result: Result<()>, outcome: Option<When>) -> Result<()> {
    let Segment { gate, branches, hooks, databases, terms, .. } = segment;
    for branch in &branches {
        branch.slot.reopen();
    }
    gate.begin_anew();
    stack::top(|open| {
        let site = open.outermost();
        open.gate.set_depth(1, site);
        open.branches = branches;
    });
    across::name_anew();
    let hooked = outcome.map_or(Ok(()), |outcome| hooks::run(hooks, outcome, &databases));
    if result.is_ok() && outcome == Some(When::Committed) && terms.returns_hook_errors { hooked } else { result }
}

fn put_back(segment: Segment) {
    let Segment { branches, hooks, id, .. } = segment;
    stack::top(|open| {
        open.branches = branches;
        open.hooks = hooks;
        open.id = id;
    });
}
