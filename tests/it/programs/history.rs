//! What happened while a program ran: each call with what it returned.

use std::fmt;

use multidb::{Error, FailureClass};

use super::program::Mark;

/// The level that stands for no transaction at all.
pub(super) const OUTSIDE: usize = 0;

/// Everything in order; `now` counts it.
#[derive(Debug, Default)]
pub(super) struct History {
    now: usize,
    pub(super) levels: Vec<Level>,
    pub(super) sent: Vec<Sent>,
    pub(super) hooks: Vec<Hook>,
    /// Calls of `commit` and `rollback`, each with its level.
    pub(super) ends: Vec<(usize, usize, Verb, Came)>,
    /// Scopes with a key, each with the level of its body if that ran.
    pub(super) keyed: Vec<(String, Option<usize>, Came)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Each statement is by itself.
    Autocommit,
    /// A transaction of its own.
    Transaction,
    /// A level that may be undone alone.
    Nested,
    /// No level of its own.
    Joined,
    /// Nested, and what becomes of it is said at its end.
    Savepoint,
}

#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(super) struct Level {
    pub(super) parent: usize,
    pub(super) kind: Kind,
    pub(super) read_only: bool,
    pub(super) manual: bool,
    /// It allows DDL that commits it, and reports nothing: Diesel's migrations run it in such a transaction.
    pub(super) allows_ddl: bool,
    /// Another attempt came after it.
    pub(super) repeated: bool,
    /// What `set_rollback` has said last.
    pub(super) undone: bool,
    /// `set_rollback` was called where it is not clear whose level it meant.
    pub(super) unsure: bool,
    pub(super) began: usize,
    pub(super) ended: usize,
    pub(super) came: Came,
}

/// A statement.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) at: usize,
    pub(super) level: usize,
    pub(super) site: usize,
    pub(super) what: String,
    pub(super) single: bool,
    pub(super) marks: Vec<(i64, Mark)>,
    pub(super) came: Came,
}

#[derive(Debug)]
pub(super) struct Hook {
    pub(super) at: usize,
    pub(super) level: usize,
    /// How often it ran after a commit, and after a rollback.
    pub(super) ran: [usize; 2],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Commit,
    RollBack,
}

/// How a call came back.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) enum Came {
    /// Not at all: it has not come back yet.
    #[default]
    Not,
    Ok,
    Panic,
    Err(Says, String),
}

/// What an error says of what may be there all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Says {
    Nothing,
    /// It is unknown, or done in part.
    InDoubt,
    /// A statement has ended the transaction.
    Ended,
    /// The connection is lost.
    Lost,
}

impl Came {
    pub(super) fn says(&self) -> Says {
        if let Self::Err(says, _) = self { *says } else { Says::Nothing }
    }

    pub(super) fn is_ok(&self) -> bool {
        *self == Self::Ok
    }
}

impl fmt::Display for Came {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Not => f.write_str("did not come back"),
            Self::Ok => f.write_str("Ok"),
            Self::Panic => f.write_str("a panic"),
            Self::Err(_, text) => write!(f, "Err({text})"),
        }
    }
}

pub(super) fn says(error: &Error) -> Says {
    match error {
        Error::OutcomeUnknown { .. } | Error::PartialCommit { .. } => Says::InDoubt,
        Error::ImplicitCommit { .. } => Says::Ended,
        Error::Doomed { first, .. } if first.class() == FailureClass::ConnectionLost => Says::Lost,
        Error::Query(diesel::result::Error::DatabaseError(diesel::result::DatabaseErrorKind::ClosedConnection, _)) => {
            Says::Lost
        }
        other => {
            let text = other.to_string();
            let lost = [
                "gone away",
                "Lost connection",
                "terminating connection",
                "closed the connection",
                "connection to server",
                "Connection was killed",
                "Server has gone",
            ];
            if lost.iter().any(|part| text.contains(part)) { Says::Lost } else { Says::Nothing }
        }
    }
}

impl History {
    pub(super) fn new() -> Self {
        let mut history = Self::default();
        history.open(OUTSIDE, Kind::Autocommit, false, false);
        history
    }

    pub(super) fn tick(&mut self) -> usize {
        self.now += 1;
        self.now
    }

    pub(super) fn open(&mut self, parent: usize, kind: Kind, read_only: bool, manual: bool) -> usize {
        let began = self.tick();
        let level = Level {
            began,
            parent,
            kind,
            read_only,
            manual,
            allows_ddl: false,
            repeated: false,
            undone: false,
            unsure: false,
            ended: usize::MAX,
            came: Came::Not,
        };
        self.levels.push(level);
        self.levels.len() - 1
    }

    pub(super) fn close(&mut self, level: usize, came: Came) {
        let ended = self.tick();
        let level = &mut self.levels[level];
        (level.ended, level.came) = (ended, came);
    }

    /// The level that began the transaction of this one; `None` where each statement is by itself.
    pub(super) fn transaction_of(&self, level: usize) -> Option<usize> {
        let mut at = level;
        loop {
            match self.levels[at].kind {
                Kind::Autocommit => return None,
                Kind::Transaction => return Some(at),
                _ => at = self.levels[at].parent,
            }
        }
    }

    /// The levels from this one up to that which stands for no transaction.
    pub(super) fn all_around(&self, level: usize) -> impl Iterator<Item = usize> {
        let mut at = Some(level);
        std::iter::from_fn(move || {
            let here = at?;
            at = (here != OUTSIDE).then(|| self.levels[here].parent);
            Some(here)
        })
    }
}
