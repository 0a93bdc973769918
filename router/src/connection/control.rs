//! The statements that begin, nest and end transactions, as values.
//!
//! A scope hands them to the driver as a list, together with the statement that they precede. So a transport may send
//! the list in one batch (Diesel's does) or in the statement's own round trip.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::characteristics::{Characteristics, Limits};

/// How long a branch of a transaction over several databases waits for a lock at most, be it of a row or of a whole table.
pub const CROSS_LOCK_WAIT: Duration = Duration::from_secs(5);
/// How long such a branch may be idle: it holds its locks for as long.
pub const BRANCH_IDLE_LIMIT: Duration = Duration::from_mins(1);

/// How a transaction begins. It also decides how it ends, on MySQL and MariaDB.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Start {
    /// MySQL and MariaDB: set a savepoint that an implicit commit destroys, so that COMMIT notices.
    pub tripwire: bool,
    /// Servers: give lock waits a limit, since another transaction of this thread may hold the lock, and no server sees
    /// that.
    pub lock_limit: bool,
    /// What the scope asks of the database.
    pub characteristics: Characteristics,
    /// What it has beyond that where the transaction has branches on other databases. Limits ride with it, since no server
    /// sees a deadlock that spans two, and what is held must not be held for ever.
    pub across: Option<Box<Joint>>,
}

/// What a branch of a transaction over several databases begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joint {
    /// The name that its session shows.
    pub name: Arc<str>,
    /// MySQL and MariaDB: it is a branch of an XA transaction from its start.
    pub xa: Option<Gid>,
}

impl Start {
    /// The branch of an XA transaction that it begins as.
    pub fn xa(&self) -> Option<&Gid> {
        self.across.as_ref()?.xa.as_ref()
    }

    /// Whether its lock waits have a limit of their own, which no `timeout` of a scope may lengthen.
    pub fn limits_locks(&self) -> bool {
        self.lock_limit || self.across.is_some()
    }
}

/// One control statement. Levels are numbered from 1, the transaction itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control<'a> {
    /// Begin the transaction: opens level 1.
    Begin(&'a Start),
    /// An open transaction gets a branch on another database: as [`Start::across`].
    Across(&'a str),
    /// Open level n, for n above 1.
    Savepoint(u32),
    /// These limits hold from now on, for the level that was opened last.
    Narrow {
        /// The limits.
        to: Limits,
        /// Whether lock waits have a limit of their own: [`Start::limits_locks`].
        locks_limited: bool,
    },
    /// These limits hold again, after a level with narrower ones has ended. Says whether it was undone.
    Widen {
        /// The limits of what is open now.
        to: Limits,
        /// Whether the level was undone, which on PostgreSQL has undone its limits too.
        undone: bool,
        /// As for [`Narrow`](Self::Narrow).
        locks_limited: bool,
    },
    /// Keep the work of level n in level n - 1.
    Release(u32),
    /// Undo the work of level n; the level stays open on the server.
    RollbackTo(u32),
    /// The transaction is about to hold the decision of one over several databases: what could fail at its COMMIT fails
    /// now, and the COMMIT is durable.
    Decide(&'a Start),
    /// Commit the transaction.
    Commit(&'a Start),
    /// Roll the transaction back.
    Rollback(&'a Start),
    /// First phase of a commit over several databases: the connection is then outside of any transaction.
    Prepare(&'a Gid),
    /// Second phase: commit what was prepared.
    CommitPrepared(&'a Gid),
    /// Second phase: roll back what was prepared.
    RollbackPrepared(&'a Gid),
}

/// The name of a prepared branch: its transaction's and its own part.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Gid {
    global: String,
    branch: String,
}

impl Gid {
    /// The longest of the two parts, in bytes: XA's limit.
    pub const PART_LIMIT: usize = 64;

    /// `None` where a part is empty, too long, or holds anything but letters, digits and `_`, `.`, `-`.
    pub fn new(global: &str, branch: &str) -> Option<Self> {
        let fits = |part: &str| {
            !part.is_empty()
                && part.len() <= Self::PART_LIMIT
                && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
        };
        (fits(global) && fits(branch)).then(|| Self { global: global.into(), branch: branch.into() })
    }

    /// The name as an XA literal, `'global','branch'`.
    pub fn xa(&self) -> impl fmt::Display + '_ {
        fmt::from_fn(|f| write!(f, "'{}','{}'", self.global, self.branch))
    }

    /// The name as PostgreSQL's literal, `'global:branch'`.
    pub fn postgres(&self) -> impl fmt::Display + '_ {
        fmt::from_fn(|f| write!(f, "'{}:{}'", self.global, self.branch))
    }
}

/// The savepoint of level n.
pub fn savepoint(level: u32) -> impl fmt::Display {
    fmt::from_fn(move |f| write!(f, "multidb_{level}"))
}

#[cfg(test)]
mod tests {
    use super::Gid;

    #[test]
    fn a_gid_that_would_need_quoting_is_refused() {
        assert!(Gid::new("m1.prod-a_1", "0").is_some());
        for bad in ["", "it's", "a b", "a:b", "é"] {
            assert!(Gid::new(bad, "0").is_none(), "{bad:?}");
            assert!(Gid::new("a", bad).is_none(), "{bad:?}");
        }
        assert!(Gid::new(&"a".repeat(65), "0").is_none());
    }
}
