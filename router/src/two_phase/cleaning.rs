//! Deletes rows that nobody needs any more: first a transaction is closed, then its receipts go, then its decision.

use std::time::Duration;

use super::report::RecoveryReport;
use super::site::Sites;
use crate::databases::Databases;
use crate::fault;
use crate::telemetry::TARGET;
use crate::transaction_id::TransactionId;

/// How long the row of a transaction stays that recovery has finished, or that nobody has seen the end of: somebody may ask.
pub const DECISION_RETENTION: Duration = Duration::from_hours(30 * 24);

/// A transaction is complete: every branch has confirmed its commit, and its scope returns `Ok`. Every hundredth deletes the
/// rows of those before it.
pub(super) fn complete(databases: &Databases, id: TransactionId) {
    if let Some(batch) = databases.complete().add(id) {
        clean(databases, &batch);
    }
}

/// Deletes the rows of complete transactions. A failure is told of, and leaves the rest to recovery.
pub(crate) fn clean(databases: &Databases, ids: &[TransactionId]) {
    if ids.is_empty() {
        return;
    }
    let mut sites = Sites::open(databases, &mut RecoveryReport::default());
    clean_at(&mut sites, ids);
}

fn clean_at(sites: &mut Sites, ids: &[TransactionId]) {
    let of_home = |sites: &Sites, at: usize| {
        let database_id = sites.at(at).identity.database_id.clone();
        let here = |id: &&TransactionId| id.home().is_some_and(|home| home.database_id == database_id);
        ids.iter().filter(here).cloned().collect::<Vec<_>>()
    };
    for home in 0..sites.len() {
        let ids = of_home(sites, home);
        if let Err((alias, error)) = clean_home(sites, home, &ids) {
            tracing::warn!(target: TARGET, %alias, %error, "rows of complete transactions could not be deleted");
        }
    }
}

type Failed = (crate::alias::Alias, diesel::result::Error);

fn clean_home(sites: &mut Sites, home: usize, ids: &[TransactionId]) -> Result<(), Failed> {
    if ids.is_empty() {
        return Ok(());
    }
    let failed = |sites: &Sites, at: usize, error| (sites.at(at).alias.clone(), error);
    // Otherwise a recoverer would miss the receipts.
    sites.at_mut(home).survey.close(ids).map_err(|error| failed(sites, home, error))?;
    fault::point("clean.close.after");
    if !sites.is_complete() {
        // A receipt that can't be deleted now would stay for ever without its decision.
        return Ok(());
    }
    for at in 0..sites.len() {
        sites.at_mut(at).survey.delete_receipts(ids).map_err(|error| failed(sites, at, error))?;
    }
    fault::point("clean.receipts.after");
    sites.at_mut(home).survey.delete_decisions(ids).map_err(|error| failed(sites, home, error))?;
    fault::point("clean.decisions.after");
    Ok(())
}

/// Deletes what is older than [`DECISION_RETENTION`], by the clock of its own database.
pub(super) fn delete_outdated(sites: &mut Sites) {
    for home in 0..sites.len() {
        match sites.at_mut(home).survey.outdated(DECISION_RETENTION.as_secs()) {
            Ok(ids) => clean_at(sites, &ids),
            Err(error) => {
                let alias = &sites.at(home).alias;
                tracing::warn!(target: TARGET, %alias, %error, "old rows could not be looked for");
            }
        }
    }
}
