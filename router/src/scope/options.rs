//! What a scope may be told.

use crate::databases::Databases;

/// How a scope relates to a transaction that is open already. The names are Spring's and Django's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Propagation {
    /// Inside a transaction a savepoint, else a transaction of its own: Django's `atomic`.
    #[default]
    Nested,
    /// Always a transaction of its own, on a connection of its own: Spring's `REQUIRES_NEW`. It commits whatever
    /// becomes of the open one.
    RequiresNew,
}

/// The options of a scope.
#[derive(Debug, Clone, Default)]
#[must_use = "options do nothing until a scope is opened with them"]
pub struct Options {
    pub(crate) propagation: Propagation,
    pub(crate) databases: Option<Databases>,
}

impl Options {
    /// Commit on success, nested.
    pub const fn new() -> Self {
        Self { propagation: Propagation::Nested, databases: None }
    }

    /// Sets the propagation.
    pub fn propagation(mut self, propagation: Propagation) -> Self {
        self.propagation = propagation;
        self
    }

    /// Uses this registry in place of the entered or installed one.
    pub fn databases(mut self, databases: impl Into<Databases>) -> Self {
        self.databases = Some(databases.into());
        self
    }
}
