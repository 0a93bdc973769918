//! What a pass of recovery has done, and what it has left.

use std::fmt;
use std::time::Duration;

use super::protocol::Outcome;
use super::recovery::Finished;
use crate::alias::Alias;
use crate::transaction_id::TransactionId;

/// What [`Databases::recover`](crate::Databases::recover) has done and what it has left.
#[derive(Debug, Clone, Default)]
pub struct RecoveryReport {
    committed: Vec<TransactionId>,
    rolled_back: Vec<TransactionId>,
    heuristic: Vec<TransactionId>,
    left: Vec<InDoubt>,
    problems: Vec<(Alias, String)>,
    open: Vec<OpenDecision>,
    more_open: usize,
    pub(super) closed: usize,
}

/// From which age on a decision that can't be closed here is [reported](RecoveryReport::open). A younger one may be under way.
/// Nothing is decided by it.
pub const OPEN_LIMIT: Duration = Duration::from_hours(1);

/// The most of them that a report names: where a database is gone for good there may be thousands, and one remedy for all.
const MOST_NAMED: usize = 20;

/// The decision of a committed transaction that can't be closed here, since a database of it is not configured here: only that
/// one's receipt proves that all have committed.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct OpenDecision {
    /// The transaction.
    pub id: TransactionId,
    /// Its home, where the decision stands.
    pub home: Alias,
    /// The `database_id`s of those of its databases that are none of the configured ones, or can't be reached.
    pub missing: Vec<String>,
}

/// A transaction with prepared branches that recovery may not finish yet.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct InDoubt {
    /// The transaction.
    pub id: TransactionId,
    /// The databases on which it is prepared, where it holds its locks.
    pub databases: Vec<Alias>,
    /// Why it is left.
    pub reason: Reason,
    /// What a database answered, by its alias, where its error is the cause.
    pub said: Option<String>,
}

/// Why a transaction is left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// Its home holds no answer yet: the coordinator's session may be alive, or home could not be asked.
    Alive,
    /// Its home is none of the databases that can be asked.
    HomeUnknown,
    /// Its home belongs to another environment now.
    OtherEnvironment,
    /// Its home is a standby, or read-only.
    Standby,
    /// Its home has another incarnation than when it was named, and may have lost the decision in a failover. Or a database
    /// where it is prepared was failed over, and may have lost its commit, and home may have deleted the decision since.
    Failover,
    /// A branch could not be finished.
    NotFinished,
    /// MariaDB has forgotten the name of a branch that is still open, and locked. Once the server has restarted it is listed
    /// again, and recovery finishes it.
    Held,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Alive => "its coordinator may be alive: the decision is held, or home does not answer",
            Self::HomeUnknown => "its home is none of the configured databases that can be reached",
            Self::OtherEnvironment => "its home belongs to another environment",
            Self::Standby => "its home is a standby or read-only",
            Self::Failover => {
                "its home was failed over since, and may have lost the decision, or a database where it is prepared was, and \
                 may have lost the commit; call `databases.adopt` for that one once this is settled"
            }
            Self::NotFinished => "a branch could not be finished; its session may still hold it",
            Self::Held => {
                "the server has forgotten a branch that is still open, and keeps its locks; restart that server, and recovery \
                 will finish it"
            }
        })
    }
}

impl RecoveryReport {
    /// The transactions whose prepared branches were committed.
    pub fn committed(&self) -> &[TransactionId] {
        &self.committed
    }

    /// The transactions whose prepared branches were rolled back.
    pub fn rolled_back(&self) -> &[TransactionId] {
        &self.rolled_back
    }

    /// The transactions on which the databases disagree: an operator must look. Each pass names them, until their rows say
    /// otherwise.
    pub fn heuristic(&self) -> &[TransactionId] {
        &self.heuristic
    }

    /// The transactions that are still in doubt.
    pub fn left(&self) -> &[InDoubt] {
        &self.left
    }

    /// The databases that could not be asked, or not be trusted, and why.
    pub fn problems(&self) -> &[(Alias, String)] {
        &self.problems
    }

    /// The decisions that stay open for longer than [`OPEN_LIMIT`] because a database of theirs is not configured here, or can't be
    /// reached. Each pass names them, twenty at most, until they are closed: by a recovery with that database
    /// configured, or by an operator where it is gone for good.
    pub fn open(&self) -> &[OpenDecision] {
        &self.open
    }

    /// How many more of them there are.
    pub fn more_open(&self) -> usize {
        self.more_open
    }

    /// How many committed transactions were found to be complete.
    pub fn closed(&self) -> usize {
        self.closed
    }

    /// Whether nothing is in doubt, as far as every configured database was asked. A decision that stays [open](Self::open) is not
    /// in doubt: it is committed, and what is missing is on a database that this process doesn't know.
    pub fn is_clear(&self) -> bool {
        self.left.is_empty() && self.heuristic.is_empty() && self.problems.is_empty()
    }

    pub(super) fn problem(&mut self, alias: Alias, problem: String) {
        tracing::warn!(target: crate::telemetry::TARGET, %alias, problem, "recovery can't ask a database");
        self.problems.push((alias, problem));
    }

    /// It is committed, and can't be closed here.
    pub(super) fn stays_open(&mut self, id: TransactionId, home: Alias, missing: Vec<String>) {
        if self.open.len() < MOST_NAMED {
            self.open.push(OpenDecision { id, home, missing });
        } else {
            self.more_open += 1;
        }
    }

    /// It was found to be heuristic before.
    pub(super) fn recall(&mut self, id: TransactionId) {
        if !self.heuristic.contains(&id) {
            self.heuristic.push(id);
        }
    }

    pub(super) fn add(
        &mut self,
        id: TransactionId,
        databases: Vec<Alias>,
        Finished { outcome, reason, said }: Finished,
    ) {
        match outcome {
            Outcome::Committed => self.committed.push(id),
            Outcome::RolledBack => self.rolled_back.push(id),
            Outcome::Heuristic => self.heuristic.push(id),
            Outcome::Left => {
                let reason = reason.unwrap_or(Reason::NotFinished);
                self.left.push(InDoubt { id, databases, reason, said });
            }
        }
    }
}

impl InDoubt {
    /// How long ago the transaction was named, by this machine's clock. For reports: nothing is decided by it.
    pub fn age(&self) -> Duration {
        self.id.age()
    }
}

impl fmt::Display for InDoubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, prepared on", self.id)?;
        for database in &self.databases {
            write!(f, " `{database}`")?;
        }
        write!(f, ", named {} s ago: {}", self.age().as_secs(), self.reason)?;
        self.said.as_ref().map_or(Ok(()), |said| write!(f, " ({said})"))
    }
}

impl OpenDecision {
    /// How long ago the transaction was named, by this machine's clock. For reports: nothing is decided by it.
    pub fn age(&self) -> Duration {
        self.id.age()
    }
}

impl fmt::Display for OpenDecision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}, committed, named {} s ago: its decision stays open on `{}`: ",
            self.id,
            self.age().as_secs(),
            self.home
        )?;
        let mut separator = "";
        for missing in &self.missing {
            write!(f, "{separator}`{missing}`")?;
            separator = ", ";
        }
        let are = if self.missing.len() == 1 { "is" } else { "are" };
        write!(
            f,
            " {are} none of the configured databases that can be reached; run recovery where all of its databases are \
             configured, or close it by hand if one is gone for good"
        )
    }
}

impl fmt::Display for RecoveryReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} committed, {} rolled back, {} left in doubt, {} heuristic",
            self.committed.len(),
            self.rolled_back.len(),
            self.left.len(),
            self.heuristic.len()
        )?;
        for left in &self.left {
            write!(f, "; {left}")?;
        }
        for id in &self.heuristic {
            write!(f, "; {id}: the databases disagree")?;
        }
        for (alias, problem) in &self.problems {
            write!(f, "; `{alias}`: {problem}")?;
        }
        for open in &self.open {
            write!(f, "; {open}")?;
        }
        match self.more_open {
            0 => Ok(()),
            more => write!(f, "; {more} more decisions stay open"),
        }
    }
}
