//! What went wrong on a database, and whether trying again may help.
//!
//! Diesel gives no SQLSTATE and no errno: only a kind and the server's message. So the class is found from these. It
//! decides what is retried and what texts say, never what is committed.

use std::fmt;

use diesel::result::{DatabaseErrorKind, Error as DieselError};

use crate::alias::Alias;
use crate::reported::alias_of;

/// The class of a failed statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FailureClass {
    /// The database could not order this transaction among the others: run it again.
    Serialization,
    /// The database chose this transaction to break a deadlock: run it again.
    Deadlock,
    /// A lock was not granted in time.
    LockTimeout,
    /// SQLite: another connection holds the lock of the file.
    Locked,
    /// No connection could be had at BEGIN: nothing of the transaction was sent.
    NotConnected,
    /// The reply to COMMIT was lost, and the database has said since that nothing was committed.
    NotCommitted,
    /// The connection is gone. A transaction that has lost it before its COMMIT was sent is rolled back and may be run again; what
    /// became of a statement in autocommit is unknown.
    ConnectionLost,
    /// A time limit was reached: that of a statement on its server, or the `timeout` of a scope.
    Timeout,
    /// A constraint of the schema was violated.
    Constraint,
    /// Anything else that a database reported.
    Other,
}

impl FailureClass {
    /// Whether the same transaction, run again from its start, may succeed.
    pub fn is_retryable(self) -> bool {
        match self {
            Self::Serialization
            | Self::Deadlock
            | Self::LockTimeout
            | Self::Locked
            | Self::NotConnected
            | Self::NotCommitted => true,
            Self::ConnectionLost | Self::Timeout | Self::Constraint | Self::Other => false,
        }
    }

    /// Whether a transaction that such a failure has ended before its COMMIT was sent may be run again: a lost connection has
    /// taken it along.
    pub(crate) fn passes(self) -> bool {
        self.is_retryable() || self == Self::ConnectionLost
    }

    /// Whether the transaction may be run again, and the database may have undone all of it by itself, savepoints included.
    /// A lock timeout undoes its statement alone.
    pub(crate) fn undoes_all(self) -> bool {
        self.is_retryable() && self != Self::LockTimeout
    }
}

/// The first failure of a transaction: what a doomed transaction gives as its cause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    class: FailureClass,
    database: Option<Alias>,
    message: String,
}

impl Failure {
    pub(crate) fn new(class: FailureClass, message: impl Into<String>) -> Self {
        Self { class, database: None, message: message.into() }
    }

    /// The failure of this database, unless it is known to be another's.
    pub(crate) fn on(mut self, database: &Alias) -> Self {
        self.database.get_or_insert_with(|| database.clone());
        self
    }

    /// The failure that a database reported; `None` for errors that no database reported, such as `NotFound`.
    pub(crate) fn of(error: &DieselError) -> Option<Self> {
        let database = alias_of(error).map(|alias| Alias::from(alias.to_owned()));
        classify(error).map(|class| Self { class, database, message: error.to_string() })
    }

    /// The class of the failure.
    pub fn class(&self) -> FailureClass {
        self.class
    }

    /// The database that it happened on, if it is one's.
    pub fn database(&self) -> Option<&Alias> {
        self.database.as_ref()
    }

    /// What the database has reported, in its own words.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(database) = &self.database {
            let database = format!("database `{database}`");
            // A text of the library's own may have it already.
            if !self.message.contains(&database) {
                write!(f, "{database}: ")?;
            }
        }
        f.write_str(&self.message)
    }
}

/// The class of an error that a database reported.
pub(crate) fn classify(error: &DieselError) -> Option<FailureClass> {
    match error {
        DieselError::DatabaseError(kind, information) => Some(classify_report(*kind, information.message())),
        DieselError::RollbackErrorOnCommit { commit_error, .. } => classify(commit_error),
        DieselError::BrokenTransactionManager => Some(FailureClass::ConnectionLost),
        _ => None,
    }
}

/// Texts by which the servers tell the classes that Diesel has no kind for.
const BY_TEXT: &[(&str, FailureClass)] = &[
    ("deadlock detected", FailureClass::Deadlock),
    ("Deadlock found", FailureClass::Deadlock),
    ("could not serialize access", FailureClass::Serialization),
    ("Record has changed since last read", FailureClass::Serialization),
    ("lock timeout", FailureClass::LockTimeout),
    ("Lock wait timeout", FailureClass::LockTimeout),
    ("could not obtain lock", FailureClass::LockTimeout),
    ("database is locked", FailureClass::Locked),
    ("database table is locked", FailureClass::Locked),
    ("database schema is locked", FailureClass::Locked),
    ("due to statement timeout", FailureClass::Timeout),
    ("max_statement_time exceeded", FailureClass::Timeout),
    ("maximum statement execution time exceeded", FailureClass::Timeout),
    // Nothing was sent.
    ("number of parameters must be between", FailureClass::Other),
    ("server closed the connection", FailureClass::ConnectionLost),
    ("terminating connection", FailureClass::ConnectionLost),
    ("connection to server", FailureClass::ConnectionLost),
    ("no connection to the server", FailureClass::ConnectionLost),
    ("server has gone away", FailureClass::ConnectionLost),
    ("Lost connection", FailureClass::ConnectionLost),
    ("Connection was killed", FailureClass::ConnectionLost),
    ("Server shutdown in progress", FailureClass::ConnectionLost),
];

fn classify_report(kind: DatabaseErrorKind, message: &str) -> FailureClass {
    if let Some((_, class)) = BY_TEXT.iter().find(|(text, _)| message.contains(text)) {
        return *class;
    }
    match kind {
        DatabaseErrorKind::SerializationFailure => FailureClass::Serialization,
        DatabaseErrorKind::ClosedConnection | DatabaseErrorKind::UnableToSendCommand => FailureClass::ConnectionLost,
        DatabaseErrorKind::UniqueViolation
        | DatabaseErrorKind::ForeignKeyViolation
        | DatabaseErrorKind::NotNullViolation
        | DatabaseErrorKind::CheckViolation
        | DatabaseErrorKind::RestrictViolation
        | DatabaseErrorKind::ExclusionViolation => FailureClass::Constraint,
        _ => FailureClass::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reported(kind: DatabaseErrorKind, message: &str) -> DieselError {
        DieselError::DatabaseError(kind, Box::new(message.to_owned()))
    }

    #[test]
    fn errors_that_no_database_reported_are_no_failures() {
        assert_eq!(Failure::of(&DieselError::NotFound), None);
        assert_eq!(Failure::of(&DieselError::RollbackTransaction), None);
        assert_eq!(Failure::of(&DieselError::DeserializationError("bad".into())), None);
    }

    #[test]
    fn a_deadlock_stays_a_deadlock_under_each_kind_that_diesel_gives_it() {
        for (kind, text) in [
            (DatabaseErrorKind::Unknown, "deadlock detected"),
            (
                DatabaseErrorKind::SerializationFailure,
                "Deadlock found when trying to get lock; try restarting transaction",
            ),
        ] {
            assert_eq!(classify(&reported(kind, text)), Some(FailureClass::Deadlock), "{text}");
        }
    }
}
