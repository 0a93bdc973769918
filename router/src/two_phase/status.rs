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
    /// It is rolled back, on all its databases.
    RolledBack,
    /// Nobody can tell yet: its session is alive, or its home was failed over.
    InDoubt,
    /// Its databases disagree, and an operator must look.
    Heuristic,
    /// Its row is deleted. It was committed, or rolled back by recovery, and its age was over.
    Forgotten,
    /// There is no evidence: it left no row, as a commit on one database does without `verify_commit`, or its home is none of
    /// the configured databases.
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
    let letters = id.uuid_letters();
    if let Some(status) = row(&site.survey.find(&letters)?) {
        return Ok(status);
    }
    if letters <= site.survey.forgotten_up_to()? {
        return Ok(TransactionStatus::Forgotten);
    }
    let now = site.identity.incarnation.as_ref();
    if now != Some(&home.incarnation) && now != Some(&site.identity.adopted) {
        return Ok(TransactionStatus::InDoubt);
    }
    Ok(match site.confirm().and_then(|()| site.survey.ask(id, Keep::Always)) {
        Ok(Asked::Row(letter)) => row(&[letter]).unwrap_or(TransactionStatus::InDoubt),
        Ok(Asked::Absent) => TransactionStatus::RolledBack,
        // Its session holds the row, or nobody can tell.
        Err(_) => TransactionStatus::InDoubt,
    })
}

fn of_any(sites: &mut Sites, id: &TransactionId) -> Result<TransactionStatus> {
    let letters = id.uuid_letters();
    let mut status = TransactionStatus::Unknown;
    for at in 0..sites.len() {
        let survey = &mut sites.at_mut(at).survey;
        if let Some(status) = row(&survey.find(&letters)?) {
            return Ok(status);
        }
        if letters <= survey.forgotten_up_to()? {
            status = TransactionStatus::Forgotten;
        }
    }
    Ok(status)
}

fn row(letters: &[String]) -> Option<TransactionStatus> {
    letters.first().and_then(|letter| State::of(letter)).map(TransactionStatus::from)
}
