//! Committing all branches of a transaction, or rolling them back.

use std::sync::Arc;

use once_cell::unsync::OnceCell;

use super::branch::Branch;
use super::hooks::When;
use super::stack::Transaction;
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
pub(super) fn commit(transaction: &Transaction, proof: Option<&Proof<'_>>) -> Result<(), NotCommitted> {
    let Transaction { gate, branches, terms, .. } = transaction;
    if transaction.across.is_some() {
        let id = transaction.id().clone();
        return commit_across(transaction.databases(), gate, branches, id, terms.verifies());
    }
    commit_all(branches, || transaction.id().clone(), proof)
}

/// Commits every branch, the last listed first, as nested blocks do.
pub(super) fn commit_all(
    branches: &[Branch],
    id: impl Fn() -> TransactionId,
    proof: Option<&Proof<'_>>,
) -> Result<(), NotCommitted> {
    for (at, branch) in branches.iter().enumerate().rev() {
        let mut outcome = branch.slot.commit();
        if let (Outcome::Unknown, Some(proof)) = (&outcome, proof) {
            outcome = proof.ask(branch);
        }
        let (error, outcome) = match outcome {
            Outcome::Committed => continue,
            Outcome::RolledBack(error) => (error, Some(When::RolledBack)),
            Outcome::Unknown => {
                let long = proof.and_then(|proof| proof.long.get().cloned());
                let (id, databases) = (long.unwrap_or_else(&id), vec![branch.slot.alias().clone()]);
                (Error::OutcomeUnknown { id, databases }, None)
            }
        };
        telemetry::outcome(match outcome {
            Some(_) => "rolled_back",
            None => "unknown",
        });
        let (left, tried) = branches.split_at(at);
        roll_back_all(left);
        // A slot still tells after its end whether it had begun; the first of those tried is the one that failed.
        let committed: Vec<Alias> =
            tried[1..].iter().rev().filter(|done| done.slot.begun()).map(|done| done.slot.alias().clone()).collect();
        if committed.is_empty() {
            return Err(NotCommitted { result: Err(error), outcome });
        }
        telemetry::outcome("committed_in_part");
        tell("a transaction over several databases was committed in part", branch.slot.alias(), &error);
        let mut failed = vec![branch.slot.alias().clone()];
        failed.extend(left.iter().map(|branch| branch.slot.alias().clone()));
        return Err(NotCommitted { result: Err(Error::PartialCommit { committed, failed }), outcome: None });
    }
    if let Some(proof) = proof {
        proof.is_not_needed(branches);
    }
    telemetry::outcome("committed");
    if tracing::level_enabled!(tracing::Level::DEBUG) {
        for branch in branches.iter().filter(|branch| branch.slot.begun()) {
            tracing::debug!(target: TARGET, alias = %branch.slot.alias(), "committed");
        }
    }
    Ok(())
}

/// Commits on all databases or on none.
pub(super) fn commit_across(
    databases: &Databases,
    gate: &Gate,
    branches: &[Branch],
    id: TransactionId,
    verifies: bool,
) -> Result<(), NotCommitted> {
    let members = branches.iter().map(|branch| {
        let (slot, number, reader) = (Arc::clone(&branch.slot), branch.number(), branch.is_reader());
        Member { database: branch.database, slot, number, reader }
    });
    let rehearsed = branches.iter().any(|branch| databases.at(branch.database).driver().settings().is_rolled_back());
    let joint = Joint { databases, gate, id, members: members.collect(), verifies, rehearsed };
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

pub(super) fn roll_back_all(branches: &[Branch]) {
    for branch in branches {
        if branch.slot.begun() {
            tracing::debug!(target: TARGET, alias = %branch.slot.alias(), "rolled back");
        }
        if let Err(error) = branch.slot.roll_back() {
            tell("a transaction could not be rolled back; its connection is discarded", branch.slot.alias(), &error);
        }
    }
}

pub(super) fn tell(what: &'static str, alias: &Alias, error: &Error) {
    tracing::error!(target: TARGET, %alias, %error, "{what}");
}
