//! Commits the databases of a transaction one after the other, each by itself, as nested blocks do.

use super::branch::Branch;
use super::committing::{NotCommitted, roll_back, roll_back_all, tell};
use super::hooks::When;
use crate::alias::Alias;
use crate::connection::gate::Gate;
use crate::connection::slot::Outcome;
use crate::error::Error;
use crate::fault;
use crate::telemetry::{self, TARGET};
use crate::transaction_id::TransactionId;

/// Commits every branch, the last listed first. The first that fails ends it: those before it are rolled back.
///
/// A transaction that `only_reads` has nothing that could be committed in part.
pub(super) fn commit(
    gate: &Gate,
    branches: &[Branch],
    id: &TransactionId,
    only_reads: bool,
) -> Result<(), NotCommitted> {
    // What is known beforehand need not be found out between two commits.
    let mut begun = branches.iter().filter(|branch| branch.slot.begun());
    if let Some(error) = begun.find_map(|branch| branch.slot.can_commit().err()) {
        telemetry::outcome("rolled_back");
        roll_back_all(branches);
        return Err(NotCommitted { result: Err(error), outcome: Some(When::RolledBack) });
    }
    // Nor must the time that the scope may take end there.
    let limits = gate.take_limits();
    let committed = commit_each(gate, branches, id, only_reads);
    gate.put_limits_back(limits);
    committed
}

fn commit_each(gate: &Gate, branches: &[Branch], id: &TransactionId, only_reads: bool) -> Result<(), NotCommitted> {
    let mut committed: Vec<Alias> = Vec::new();
    for (at, branch) in branches.iter().enumerate().rev() {
        // A slot still tells so after its end.
        let begun = branch.slot.begun();
        let failure = match branch.slot.commit() {
            Outcome::Committed if !begun => continue,
            Outcome::Committed => {
                tracing::debug!(target: TARGET, alias = %branch.slot.alias(), "committed");
                if !only_reads {
                    committed.push(branch.slot.alias().clone());
                }
                if branches[..at].iter().any(|left| left.slot.begun()) {
                    fault::point_at("best_effort.between", at);
                }
                continue;
            }
            Outcome::RolledBack(error) => Some(error),
            Outcome::Unknown => None,
        };
        return Err(stop(gate, &branches[..at], branch, failure, committed, id));
    }
    telemetry::outcome("committed");
    Ok(())
}

/// The COMMIT of a branch has failed, or its reply was lost where there is no `failure`. Rolls back those that were `left`.
fn stop(
    gate: &Gate,
    left: &[Branch],
    branch: &Branch,
    failure: Option<Error>,
    committed: Vec<Alias>,
    id: &TransactionId,
) -> NotCommitted {
    let alias = |branch: &Branch| branch.slot.alias().clone();
    let open: Vec<&Branch> = left.iter().filter(|branch| branch.slot.begun()).collect();
    // A DDL has committed there by itself.
    let mut permanent = Vec::new();
    for left in left {
        if matches!(roll_back(left), Err(Error::ImplicitCommit { .. })) {
            permanent.push(alias(left));
        }
    }
    let is_known = failure.is_some();
    let error = match (failure, permanent.first()) {
        (Some(_), Some(database)) => Error::implicit_commit(database.clone()),
        (Some(error), None) => error,
        (None, _) => {
            let databases = std::iter::once(alias(branch)).chain(permanent).collect();
            Error::OutcomeUnknown { id: id.clone(), databases }
        }
    };
    if !committed.is_empty() {
        telemetry::outcome("committed_in_part");
        tell("a transaction over several databases was committed in part", branch.slot.alias(), &error);
        let failed = std::iter::once(branch).chain(open.into_iter().rev()).map(alias).collect();
        return NotCommitted { result: Err(Error::PartialCommit { committed, failed }), outcome: None };
    }
    if let Error::ImplicitCommit { database, .. } = &error {
        // Otherwise it could be run again.
        gate.ended(database);
    }
    telemetry::outcome(if is_known { "rolled_back" } else { "unknown" });
    NotCommitted { result: Err(error), outcome: is_known.then_some(When::RolledBack) }
}
