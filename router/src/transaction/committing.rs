//! Committing all branches of a transaction, or rolling them back.

use std::slice;
use std::sync::Arc;

use once_cell::unsync::OnceCell;

use super::best_effort;
use super::branch::Branch;
use super::hooks::When;
use super::stack::Transaction;
use super::terms::Terms;
use crate::alias::Alias;
use crate::connection::decision;
use crate::connection::gate::Gate;
use crate::connection::own::explained;
use crate::connection::slot::Outcome;
use crate::databases::Databases;
use crate::error::{Error, Result};
use crate::failure::{Failure, FailureClass};
use crate::telemetry::{self, TARGET};
use crate::transaction_id::TransactionId;
use crate::two_phase::{self, Fate, Joint, Member};

/// The row by which a commit can be proved.
pub(super) struct Proof<'a> {
    /// The transaction's name, in its short form.
    pub(super) id: &'a TransactionId,
    /// The name that says where the row is, once that is known.
    pub(super) long: OnceCell<TransactionId>,
    pub(super) databases: &'a Databases,
    pub(super) gate: &'a Gate,
}

impl Proof<'_> {
    /// Writes it on each branch that has begun; one that has not has nothing to prove. A failure dooms the transaction.
    pub(super) fn write(&self, branches: &[Branch]) -> Result<()> {
        if self.gate.doomed().is_some() {
            return Ok(());
        }
        for branch in branches.iter().filter(|branch| branch.slot.begun()) {
            let long = two_phase::name(self.databases, self.id, &*branch.slot)?;
            let written = decision::write(&*branch.slot, self.long.get_or_init(|| long));
            written.map_err(|error| explained(error, branch.slot.alias()))?;
        }
        Ok(())
    }

    /// The scope returns `Ok`, so nobody will ask.
    #[cold]
    fn is_not_needed(&self, branches: &[Branch]) {
        let rehearsed = |branch: &Branch| self.databases.at(branch.database).driver().settings().is_rolled_back();
        if let Some(id) = self.long.get()
            && !branches.iter().any(rehearsed)
        {
            two_phase::complete(self.databases, id.clone(), branches.iter().map(|branch| branch.database));
        }
    }

    /// What became of a branch whose reply was lost.
    fn ask(&self, branch: &Branch) -> Outcome {
        let Some(id) = self.long.get() else { return Outcome::Unknown };
        match self.databases.at(branch.database).driver().probe(id) {
            decision::Verdict::Committed => Outcome::Committed,
            decision::Verdict::RolledBack => {
                let text = "the connection was lost at COMMIT, and the database says that nothing was committed";
                let failure = Failure::new(FailureClass::NotCommitted, text);
                Outcome::RolledBack(self.gate.blame(Arc::new(failure)))
            }
            decision::Verdict::Unknown => Outcome::Unknown,
        }
    }
}

/// How a transaction ended that was not committed.
pub(super) struct NotCommitted {
    /// What its scope returns.
    pub(super) result: Result<()>,
    /// `None` where nobody knows.
    pub(super) outcome: Option<When>,
}

/// Commits a transaction on its one database, or on all of them.
#[inline(always)]
#[expect(clippy::inline_always, reason = "each scope that commits passes here")]
pub(super) fn commit(transaction: &Transaction, proof: Option<&Proof<'_>>) -> Result<(), NotCommitted> {
    let Transaction { gate, branches, terms, .. } = transaction;
    match &branches[..] {
        [only] if transaction.across.is_none() => commit_one(only, || transaction.id().clone(), proof),
        _ => commit_several(transaction.databases(), gate, branches, transaction.id().clone(), terms),
    }
}

/// Commits the only branch.
#[inline(always)]
#[expect(clippy::inline_always, reason = "each scope that commits passes here")]
pub(super) fn commit_one(
    branch: &Branch,
    id: impl Fn() -> TransactionId,
    proof: Option<&Proof<'_>>,
) -> Result<(), NotCommitted> {
    let mut outcome = branch.slot.commit();
    if let (Outcome::Unknown, Some(proof)) = (&outcome, proof) {
        outcome = proof.ask(branch);
    }
    match outcome {
        Outcome::Committed => {}
        Outcome::RolledBack(error @ Error::ImplicitCommit { .. }) => {
            // What ran before the statement that ended the transaction may be permanent.
            telemetry::outcome("unknown");
            return Err(NotCommitted { result: Err(error), outcome: None });
        }
        Outcome::RolledBack(error) => {
            telemetry::outcome("rolled_back");
            return Err(NotCommitted { result: Err(error), outcome: Some(When::RolledBack) });
        }
        Outcome::Unknown => {
            telemetry::outcome("unknown");
            let long = proof.and_then(|proof| proof.long.get().cloned());
            let (id, databases) = (long.unwrap_or_else(id), vec![branch.slot.alias().clone()]);
            return Err(NotCommitted { result: Err(Error::OutcomeUnknown { id, databases }), outcome: None });
        }
    }
    if let Some(proof) = proof {
        proof.is_not_needed(slice::from_ref(branch));
    }
    telemetry::outcome("committed");
    if tracing::enabled!(target: TARGET, tracing::Level::DEBUG) && branch.slot.begun() {
        tracing::debug!(target: TARGET, alias = %branch.slot.alias(), "committed");
    }
    Ok(())
}

/// Commits the branches of a transaction on several databases: as one, unless its scope has asked for less.
pub(super) fn commit_several(
    databases: &Databases,
    gate: &Gate,
    branches: &[Branch],
    id: TransactionId,
    terms: &Terms,
) -> Result<(), NotCommitted> {
    if terms.best_effort {
        return best_effort::commit(gate, branches, &id, terms.characteristics.limits.read_only);
    }
    commit_across(databases, gate, branches, id, terms)
}

/// Commits on all databases or on none.
fn commit_across(
    databases: &Databases,
    gate: &Gate,
    branches: &[Branch],
    id: TransactionId,
    terms: &Terms,
) -> Result<(), NotCommitted> {
    let members = branches.iter().map(|branch| {
        let (slot, number, reader) = (Arc::clone(&branch.slot), branch.number(), branch.is_reader());
        Member { database: branch.database, slot, number, reader }
    });
    let rehearsed = branches.iter().any(|branch| databases.at(branch.database).driver().settings().is_rolled_back());
    let (verifies, hands_over) = (terms.verifies(), terms.acknowledges_decision);
    let joint = Joint { databases, gate, id, members: members.collect(), verifies, rehearsed, hands_over };
    let (outcome, result, hooks) = match two_phase::commit(&joint) {
        Fate::Committed => {
            telemetry::outcome("committed");
            return Ok(());
        }
        Fate::RolledBack(error) => ("rolled_back", error, Some(When::RolledBack)),
        Fate::Unknown(error) => ("unknown", error, None),
    };
    telemetry::outcome(outcome);
    Err(NotCommitted { result: Err(result), outcome: hooks })
}

/// Rolls all branches back. `Err` only if the work of one may be permanent.
pub(super) fn roll_back_each(branches: &[Branch]) -> Result<()> {
    let mut result = Ok(());
    for branch in branches {
        // Any other failure has discarded the connection, and the work with it.
        if let Err(error @ Error::ImplicitCommit { .. }) = roll_back(branch) {
            result = result.and(Err(error));
        }
    }
    result
}

pub(super) fn roll_back_all(branches: &[Branch]) {
    // The gate knows of work that may be permanent.
    let _ = roll_back_each(branches);
}

/// Rolls a branch back. A failure discards its connection, which rolls back too; only after an implicit commit it does not.
pub(super) fn roll_back(branch: &Branch) -> Result<()> {
    if branch.slot.begun() {
        tracing::debug!(target: TARGET, alias = %branch.slot.alias(), "rolled back");
    }
    branch.slot.roll_back().inspect_err(|error| {
        tell("a transaction could not be rolled back; its connection is discarded", branch.slot.alias(), error);
    })
}

pub(super) fn tell(what: &'static str, alias: &Alias, error: &Error) {
    tracing::error!(target: TARGET, %alias, %error, "{what}");
}
