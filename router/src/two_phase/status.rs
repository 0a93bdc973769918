//! What became of a transaction, by its id.

use std::fmt;

use super::protocol::State;
use super::report::RecoveryReport;
use super::site::Sites;
use crate::connection::decision::{Asked, Keep};
use crate::databases::Databases;
use crate::error::{Error, Result};
use crate::transaction_id::{Home, TransactionId};

/// What became of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TransactionStatus {
    /// It is committed, on all its databases, be it that recovery must still finish one.
    Committed,
    /// It is rolled back, on all its databases. One that had nothing to commit reads so too: it leaves no row.
    RolledBack,
    /// Nobody can tell yet: its session is alive, or its home was failed over.
    InDoubt,
    /// Its databases disagree, and an operator must look.
    Heuristic,
    /// It has no row, and rows of its age are deleted: mostly it was committed and is complete.
    Forgotten,
    /// There is no evidence: it left no row, as a commit on one database does without `verify_commit`, or its home is none of
    /// the configured databases, or the id is in its short form and no row was found.
    Unknown,
}

impl fmt::Display for TransactionStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Committed => "committed",
            Self::RolledBack => "rolled back",
            Self::InDoubt => "in doubt",
            Self::Heuristic => "heuristic",
            Self::Forgotten => "forgotten",
            Self::Unknown => "unknown",
        })
    }
}

impl From<State> for TransactionStatus {
    fn from(state: State) -> Self {
        match state {
            State::Committed => Self::Committed,
            State::Aborted => Self::RolledBack,
            State::Heuristic => Self::Heuristic,
        }
    }
}

/// What became of a transaction of the current registry: the one that [`Error::OutcomeUnknown`] or
/// [`scope::current`](crate::scope::current) names.
///
/// The answer is final but for [`InDoubt`](TransactionStatus::InDoubt): where no decision is found, a row is written that keeps
/// a transaction from committing that has not come so far. So ask after its scope has ended.
///
/// An id in its short form leads to no database: all are searched for its row, and where there is none nothing is known.
///
/// # Errors
/// [`Error::Config`] where no registry is there, and [`Error::Pool`] where a database can't be asked that may hold the answer.
pub fn status(id: &TransactionId) -> Result<TransactionStatus> {
    let databases = Databases::current()?;
    let mut report = RecoveryReport::default();
    let mut sites = Sites::open(&databases, &mut report);
    let found = match id.home() {
        Some(home) => of_home(&mut sites, id, home),
        None => of_any(&mut sites, id),
    };
    let unreachable = || report.problems().first().cloned();
    match (found?, unreachable()) {
        (TransactionStatus::Unknown, Some((database, problem))) => Err(Error::Pool { database, problem }),
        (status, _) => Ok(status),
    }
}

fn of_home(sites: &mut Sites, id: &TransactionId, home: &Home) -> Result<TransactionStatus> {
    let found = sites.of(&home.database_id).filter(|at| sites.at(*at).identity.environment == home.environment);
    let Some(at) = found else { return Ok(TransactionStatus::Unknown) };
    let site = sites.at_mut(at);
    // On all backends it leaves nothing: a row may have been forgotten, and then nobody may say that it was rolled back.
    let aborted = match site.confirm().and_then(|()| site.survey.ask(id, Keep::Never)) {
        Ok(Asked::Row(letter)) if letter == State::Aborted.letter() => true,
        Ok(Asked::Row(letter)) => return Ok(row(&[letter]).unwrap_or(TransactionStatus::InDoubt)),
        Ok(Asked::Absent | Asked::Forgotten) => false,
        // Its session holds the row, or nobody can tell.
        Err(_) => return Ok(TransactionStatus::InDoubt),
    };
    if site.incarnations().is_before(&home.incarnation) {
        return Ok(TransactionStatus::InDoubt);
    }
    let receipts = sites.receipts(id);
    if receipts.found {
        return lost(sites, at, id);
    }
    let site = sites.at_mut(at);
    if aborted {
        return Ok(TransactionStatus::RolledBack);
    }
    let is_same = site.identity.incarnation.as_ref() == Some(&home.incarnation);
    let is_adopted = site.incarnations().replaces(&home.incarnation) && receipts.complete;
    if !is_same && !is_adopted {
        let is_forgotten = id.uuid_letters() <= site.survey.forgotten_up_to()?;
        return Ok(if is_forgotten { TransactionStatus::Forgotten } else { TransactionStatus::InDoubt });
    }
    Ok(match site.survey.ask(id, Keep::Always) {
        Ok(Asked::Row(letter)) => row(&[letter]).unwrap_or(TransactionStatus::InDoubt),
        // The row that makes it final waits for no standby.
        Ok(Asked::Absent) if site.survey.confirm().is_err() => TransactionStatus::InDoubt,
        Ok(Asked::Absent) => TransactionStatus::RolledBack,
        Ok(Asked::Forgotten) => TransactionStatus::Forgotten,
        Err(_) => TransactionStatus::InDoubt,
    })
}

/// A branch has committed, and a moment ago home knew nothing of it: the decision came in between, or home has lost it.
fn lost(sites: &mut Sites, home: usize, id: &TransactionId) -> Result<TransactionStatus> {
    let survey = &mut sites.at_mut(home).survey;
    let letters = id.uuid_letters();
    Ok(match row(&survey.find(&letters)?) {
        Some(TransactionStatus::Committed) => TransactionStatus::Committed,
        // Its receipts were deleted before its row.
        None if letters <= survey.forgotten_up_to()? => TransactionStatus::Forgotten,
        _ => TransactionStatus::Heuristic,
    })
}

fn of_any(sites: &mut Sites, id: &TransactionId) -> Result<TransactionStatus> {
    let letters = id.uuid_letters();
    for at in 0..sites.len() {
        if let Some(status) = row(&sites.at_mut(at).survey.find(&letters)?) {
            return Ok(status);
        }
    }
    Ok(TransactionStatus::Unknown)
}

fn row(letters: &[String]) -> Option<TransactionStatus> {
    letters.first().and_then(|letter| State::of(letter)).map(TransactionStatus::from)
}
