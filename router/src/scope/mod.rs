//! Scopes: what an annotated function and `atomic` open, and what may be asked of the open one.

mod access;
mod atomic;
mod commit_mode;
mod detached;
mod exact;
mod hooks;
mod manual;
mod once;
mod open;
mod open_scope;
mod options;
mod places;
mod relation;
mod repeat;
mod route;
mod run;
mod savepoint;
mod span;

pub use access::{connection, connection_on};
pub use atomic::{Always, Atomic, AtomicMany, Keyed, Repeat, Single, atomic, atomic_app, atomic_many, atomic_on};
pub use detached::detached;
pub use hooks::{HookResult, on_commit, on_commit_robust, on_rollback, set_rollback};
pub use manual::{commit, rollback};
pub use once::{KEY_LIMIT, ONCE_RETENTION, OnceKey, RESULT_LIMIT, Stored, forget_once};
pub use open_scope::Scope;
pub use options::{Acknowledge, CommitMode, HookErrors, Propagation};
pub use relation::check_relation;
pub use repeat::{CLAIM_LIMIT, RETRIES_LIMIT, RETRY_BASE, RETRY_CAP};
pub use savepoint::{Savepoint, savepoint};

#[doc(hidden)]
pub use once::Once;
#[doc(hidden)]
pub use open::Target;
#[doc(hidden)]
pub use options::Options;
#[doc(hidden)]
pub use route::route;
#[doc(hidden)]
pub use run::{Again, Handles, Returned, once, run, run_again, run_once, run_once_again};

use crate::transaction;
use crate::transaction_id::TransactionId;

/// How many levels the open transaction has: 0 outside of any scope, 1 in the outermost one.
pub fn depth() -> usize {
    transaction::top(|transaction| transaction.gate().depth() as usize).unwrap_or(0)
}

/// Whether the open transaction can't be committed any more, because the database refused a statement.
pub fn is_doomed() -> bool {
    transaction::top(|transaction| transaction.gate().doomed().is_some()).unwrap_or(false)
}

/// The name of the open transaction, for logs and for [`status`](crate::status); `None` outside of any scope.
///
/// In a transaction on several databases that commit as one, and with `verify_commit`, it is the long form, by which `status` finds out later
/// what became of it. To know that, the database is asked what it is, once for each connection.
pub fn current() -> Option<TransactionId> {
    transaction::id()
}

impl TransactionId {
    /// The same as [`scope::current`](current).
    pub fn current() -> Option<Self> {
        current()
    }
}
