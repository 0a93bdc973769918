//! What may be asked of an error, and how it goes through Diesel's.

use std::fmt;

use diesel::result::Error as DieselError;

use super::Error;
use crate::alias::Alias;
use crate::failure::{FailureClass, classify};

impl Error {
    /// Whether the same call may succeed when it is simply made again.
    ///
    /// Never true for an unknown outcome.
    pub fn is_retryable(&self) -> bool {
        match self {
            // Nothing was sent.
            Self::PoolExhausted { .. } | Self::Pool { .. } => true,
            // A transaction that is doomed was never committed, be its connection lost.
            Self::Doomed { first, .. } => first.class().passes(),
            Self::Query(error) => classify(error).is_some_and(FailureClass::is_retryable),
            _ => false,
        }
    }

    /// The class of what a database has reported, or of what has doomed the transaction. `None` for errors that come from
    /// neither, such as those of configuration.
    ///
    /// ```
    /// use multidb::{Error, FailureClass};
    ///
    /// fn status_code(error: &Error) -> u16 {
    ///     match error.class() {
    ///         Some(FailureClass::Constraint) => 409,
    ///         _ if error.is_timeout() || error.is_retryable() => 503,
    ///         _ => 500,
    ///     }
    /// }
    /// ```
    pub fn class(&self) -> Option<FailureClass> {
        match self {
            Self::Doomed { first, .. } => Some(first.class()),
            Self::Query(error) => classify(error),
            Self::Pool { .. } | Self::PoolExhausted { .. } => Some(FailureClass::NotConnected),
            _ => None,
        }
    }

    /// Whether a limit of time was reached: the `timeout` of a scope, a statement's on its server, that of a wait for a lock, or
    /// that of a wait for a connection. Nothing was committed. The database may be less busy later: a service answers 503.
    pub fn is_timeout(&self) -> bool {
        let limits = [FailureClass::Timeout, FailureClass::LockTimeout, FailureClass::Locked];
        matches!(self, Self::PoolExhausted { .. }) || self.class().is_some_and(|class| limits.contains(&class))
    }

    /// Whether the work, or a part of it, may be committed although this is an error.
    pub fn is_in_doubt(&self) -> bool {
        matches!(self, Self::OutcomeUnknown { .. } | Self::PartialCommit { .. } | Self::ImplicitCommit { .. })
    }

    /// Whether the work is committed although this is an error: a hook failed afterwards.
    ///
    /// It speaks of the transaction whose hook failed. A manual scope may have committed it with `scope::commit` and then have
    /// gone on.
    pub fn is_committed(&self) -> bool {
        matches!(self, Self::HookFailed { committed: true, .. })
    }

    /// Whether the error is one of configuration or routing, which no repetition mends.
    pub fn is_config(&self) -> bool {
        matches!(
            self,
            Self::Config { .. }
                | Self::UnknownDatabase { .. }
                | Self::WrongBackend { .. }
                | Self::RouteRefused { .. }
                | Self::RouteChanged { .. }
                | Self::RelationRefused { .. }
                | Self::Unsupported { .. }
                | Self::NotAtomic { .. }
        )
    }

    pub(crate) fn config(problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::Config { alias: None, key: None, problem: problem.into(), remedy: remedy.into() }
    }

    pub(crate) fn implicit_commit(database: Alias) -> Self {
        Self::ImplicitCommit { database, failing: None }
    }

    /// With what the function of the scope has returned itself. Gives back nothing if that contains this error already, since
    /// a statement has given it to the function.
    pub(crate) fn beside(self, failing: &dyn fmt::Debug) -> Option<Self> {
        let Self::ImplicitCommit { database, failing: None } = self else { return Some(self) };
        let failing = format!("{failing:?}");
        let told = format!("{} `{database}`", super::text::ENDED);
        if failing.contains(&format!("ImplicitCommit {{ database: {database:?}")) || failing.contains(&told) {
            return None;
        }
        Some(Self::ImplicitCommit { database, failing: Some(failing) })
    }

    pub(crate) fn no_scope(asked: impl Into<String>) -> Self {
        Self::NoScope { asked: asked.into() }
    }
}

/// Gives back an error of ours that a handle carried through Diesel.
impl From<DieselError> for Error {
    fn from(error: DieselError) -> Self {
        match error {
            DieselError::QueryBuilderError(carried) => match carried.downcast::<Error>() {
                Ok(ours) => *ours,
                Err(theirs) => Self::Query(DieselError::QueryBuilderError(theirs)),
            },
            other => Self::Query(other),
        }
    }
}

/// Lets `?` work in functions that return Diesel's error; [`Error::from`] gives the error back unchanged.
impl From<Error> for DieselError {
    fn from(error: Error) -> Self {
        match error {
            Error::Query(query) => query,
            ours => DieselError::QueryBuilderError(Box::new(ours)),
        }
    }
}
