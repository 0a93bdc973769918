//! Deletes rows that nobody needs any more: first a transaction is closed, then its receipts go, then its decision.

use std::time::Duration;

use super::report::RecoveryReport;
use super::site::Sites;
use crate::connection::survey::Decision;
use crate::databases::{Batch, Databases};
use crate::fault;
use crate::telemetry::TARGET;
use crate::transaction_id::TransactionId;

/// How long the row of a transaction stays that recovery has finished, or that nobody has seen the end of: somebody may ask.
pub const DECISION_RETENTION: Duration = Duration::from_hours(30 * 24);

/// A transaction is complete: every branch has confirmed its commit, and its scope returns `Ok`. Every hundredth deletes the
/// rows of those before it, unless a thread that recovers will.
pub(crate) fn complete(databases: &Databases, id: TransactionId, on: impl Iterator<Item = usize>) {
    if let Some(batch) = databases.complete().add(id, on) {
        clean(databases, &batch);
    }
}

/// Deletes the rows of complete transactions. A failure is told of, and leaves the rest to recovery.
pub(crate) fn clean(databases: &Databases, batch: &Batch) {
    if batch.ids.is_empty() {
        return;
    }
    // The others, which hold no rows of these, need not be reached.
    let wanted = |index: usize| batch.databases.contains(&index);
    let mut sites = Sites::open_some(databases, wanted, &mut RecoveryReport::default());
    for home in 0..sites.len() {
        let database_id = sites.at(home).identity.database_id.clone();
        let here = |id: &&TransactionId| id.home().is_some_and(|home| home.database_id == database_id);
        let ids: Vec<TransactionId> = batch.ids.iter().filter(here).cloned().collect();
        clean_or_tell(&mut sites, home, &ids);
    }
}

/// Whether the rows are gone.
fn clean_or_tell(sites: &mut Sites, home: usize, ids: &[TransactionId]) -> bool {
    clean_home(sites, home, ids).unwrap_or_else(|(alias, error)| {
        tracing::warn!(target: TARGET, %alias, %error, "rows of complete transactions could not be deleted");
        false
    })
}

type Failed = (crate::alias::Alias, diesel::result::Error);

fn clean_home(sites: &mut Sites, home: usize, ids: &[TransactionId]) -> Result<bool, Failed> {
    if ids.is_empty() {
        return Ok(false);
    }
    let failed = |sites: &Sites, at: usize, error| (sites.at(at).alias.clone(), error);
    // Otherwise a recoverer would miss the receipts.
    sites.at_mut(home).survey.close(ids).map_err(|error| failed(sites, home, error))?;
    fault::point("clean.close.after");
    if !sites.is_complete() || !sites.are_confirmed() {
        // A receipt that can't be deleted now would stay for ever without its decision.
        return Ok(false);
    }
    for at in 0..sites.len() {
        sites.at_mut(at).survey.delete_receipts(ids).map_err(|error| failed(sites, at, error))?;
    }
    fault::point("clean.receipts.after");
    if !sites.are_confirmed() {
        return Ok(false);
    }
    sites.at_mut(home).survey.delete_decisions(ids).map_err(|error| failed(sites, home, error))?;
    fault::point("clean.decisions.after");
    Ok(true)
}

/// Deletes what is older than [`DECISION_RETENTION`], by the clock of its own database.
pub(super) fn delete_outdated(sites: &mut Sites) {
    for home in 0..sites.len() {
        let mut after = String::new();
        loop {
            let found = sites.at_mut(home).survey.outdated(DECISION_RETENTION.as_secs(), &after);
            let found = found.unwrap_or_else(|error| {
                let alias = &sites.at(home).alias;
                tracing::warn!(target: TARGET, %alias, %error, "old rows could not be looked for");
                Vec::new()
            });
            let Some(last) = found.last() else { break };
            after = last.id.to_string();
            // On a database that is configured elsewhere alone a receipt would stay for ever without its decision.
            let known =
                |decision: &Decision| decision.participants.iter().all(|branch| sites.of_branch(branch).is_some());
            let ids: Vec<TransactionId> = found.into_iter().filter(known).map(|decision| decision.id).collect();
            if !ids.is_empty() && !clean_or_tell(sites, home, &ids) {
                break;
            }
        }
    }
}
