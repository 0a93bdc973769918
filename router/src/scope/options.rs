//! What a scope may be told.

use std::any::Any;
use std::rc::Rc;
use std::time::Duration;

use crate::connection::characteristics::{Characteristics, Isolation, Lock};
use crate::databases::Databases;
use crate::routing::{HeldHint, hold_hint};
use crate::transaction::Terms;

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
    /// Inside a transaction no savepoint: a failure dooms the level that it joined. Django's `savepoint=False`, Spring's
    /// `REQUIRED`.
    Join,
    /// A transaction of its own, and an error inside another one: `Ok` means committed. Django's `durable=True`.
    Durable,
    /// As [`Join`](Self::Join), and an error outside of a transaction. Spring's `MANDATORY`.
    Mandatory,
    /// As [`Join`](Self::Join) inside a transaction, and autocommit outside. Spring's `SUPPORTS`.
    Supports,
    /// Autocommit, and an error inside a transaction. Spring's `NEVER`.
    Never,
    /// Autocommit, also inside a transaction, which is suspended meanwhile. Spring's `NOT_SUPPORTED`.
    NotSupported,
}

impl Propagation {
    /// The propagation as the attribute's key writes it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Nested => "nested",
            Self::RequiresNew => "requires_new",
            Self::Join => "join",
            Self::Durable => "durable",
            Self::Mandatory => "mandatory",
            Self::Supports => "supports",
            Self::Never => "never",
            Self::NotSupported => "not_supported",
        }
    }
}

/// What becomes of the error of a hook that fails after the commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum HookErrors {
    /// It is told of: an error event, and `on_hook_failure`. The scope returns its `Ok`.
    #[default]
    Reported,
    /// The scope also returns it, as `Error::HookFailed`, which says that the work is committed.
    Returned,
}

/// How a transaction commits that has written to several databases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum CommitMode {
    /// On all of them or on none. What can't be committed like that is refused:
    /// [`Error::NotAtomic`](crate::Error::NotAtomic).
    #[default]
    Atomic,
    /// On one after the other, in the reverse order of the models listed, as nested blocks do. Any database may take part.
    ///
    /// The first COMMIT that fails ends it, and the others are rolled back. Where nothing was committed by then the error is
    /// that of a single database, or [`Error::OutcomeUnknown`](crate::Error::OutcomeUnknown) where its reply was lost; otherwise
    /// it is [`Error::PartialCommit`](crate::Error::PartialCommit), and no hook of either kind runs.
    BestEffort,
}

impl CommitMode {
    /// The mode as the attribute's key writes it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Atomic => "atomic",
            Self::BestEffort => "best_effort",
        }
    }
}

/// When a scope returns whose transaction is committed on several databases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Acknowledge {
    /// When each database has committed its part, or can't be reached and is left to recovery.
    #[default]
    Applied,
    /// When it is decided: from then on it will be committed, whatever happens. A thread of
    /// [`Databases::start_recovery`](crate::Databases::start_recovery) commits the other parts. Where none runs, or
    /// [`HANDED_OVER_LIMIT`](crate::HANDED_OVER_LIMIT) transactions wait for it, this is as `Applied`.
    ///
    /// The function returns earlier, and its hooks run earlier, by one round trip and one forced write. For a moment the other
    /// databases may not show what it wrote, and what it locked there stays locked.
    Decided,
}

/// The options of a scope.
#[derive(Debug, Clone, Default)]
#[must_use = "options do nothing until a scope is opened with them"]
pub struct Options {
    pub(crate) propagation: Propagation,
    pub(crate) databases: Option<Databases>,
    pub(crate) terms: Terms,
    /// How the scope wants several databases to be committed, if it says so.
    pub(crate) commit: Option<CommitMode>,
    /// The scope has an idempotency key.
    pub(crate) keyed: bool,
    pub(crate) label: Option<&'static str>,
    pub(crate) hint: Option<Rc<dyn Any>>,
}

impl Options {
    /// Commit on success, nested.
    pub const fn new() -> Self {
        Self {
            propagation: Propagation::Nested,
            databases: None,
            terms: Terms {
                characteristics: Characteristics::PLAIN,
                repeats: false,
                verifies: false,
                manual: false,
                returns_hook_errors: false,
                best_effort: false,
                acknowledges_decision: false,
            },
            commit: None,
            keyed: false,
            label: None,
            hint: None,
        }
    }

    /// Sets the propagation.
    pub fn propagation(mut self, propagation: Propagation) -> Self {
        self.propagation = propagation;
        self
    }

    /// The body commits and rolls back by itself.
    pub fn manual(mut self) -> Self {
        self.terms.manual = true;
        self
    }

    /// Sets what becomes of the error of a hook. Counts on the scope that opens the transaction.
    pub fn hook_errors(mut self, hook_errors: HookErrors) -> Self {
        self.terms.returns_hook_errors = hook_errors == HookErrors::Returned;
        self
    }

    /// Sets how several databases are committed.
    pub fn commit(mut self, commit: CommitMode) -> Self {
        self.commit = Some(commit);
        self.terms.best_effort = commit == CommitMode::BestEffort;
        self
    }

    /// Sets when the scope returns. Counts on the scope that opens the transaction.
    pub fn acknowledge(mut self, acknowledge: Acknowledge) -> Self {
        self.terms.acknowledges_decision = acknowledge == Acknowledge::Decided;
        self
    }

    /// Sets the isolation level.
    pub fn isolation(mut self, isolation: Isolation) -> Self {
        self.terms.characteristics.isolation = Some(isolation);
        self
    }

    /// Nothing may be written.
    pub fn read_only(mut self) -> Self {
        self.terms.characteristics.limits.read_only = true;
        self
    }

    /// PostgreSQL waits for a snapshot that can't fail to serialize.
    pub fn deferrable(mut self) -> Self {
        self.terms.characteristics.deferrable = true;
        self
    }

    /// SQLite takes the write lock at BEGIN, also for a read-only scope.
    pub fn immediate(mut self) -> Self {
        let lock = &mut self.terms.characteristics.lock;
        *lock = (*lock).max(Lock::Immediate);
        self
    }

    /// SQLite takes the exclusive lock at BEGIN.
    pub fn exclusive(mut self) -> Self {
        self.terms.characteristics.lock = Lock::Exclusive;
        self
    }

    /// Sets how long the scope, and each of its statements on the server, may take.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.terms.characteristics.limits.timeout = Some(timeout);
        self
    }

    /// Sets a hint for the routers, for as long as the scope runs.
    pub fn hint(mut self, value: impl Any + Send + Sync) -> Self {
        self.hint = Some(Rc::new(value));
        self
    }

    #[inline]
    pub(super) fn hold_hint(&self) -> Option<HeldHint> {
        self.hint.as_ref().map(|hint| hold_hint(Rc::clone(hint)))
    }

    /// Sets the scope's name for spans and events.
    pub fn label(mut self, label: &'static str) -> Self {
        self.label = Some(label);
        self
    }

    /// A lost reply to COMMIT is resolved by a row that commits with the transaction.
    pub fn verify_commit(mut self) -> Self {
        self.terms.verifies = true;
        self
    }

    /// Uses this registry in place of the entered or installed one.
    pub fn databases(mut self, databases: impl Into<Databases>) -> Self {
        self.databases = Some(databases.into());
        self
    }
}
