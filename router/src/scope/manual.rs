//! Manual scopes: the body commits and rolls back by itself.

use crate::error::Result;
use crate::transaction::manual;

/// Commits what the manual scope has done since its last commit, on all branches.
///
/// The scope goes on: its next statement begins a new transaction, and its handles stay good. Hooks registered since the
/// last commit run now.
///
/// # Errors
/// [`Error::NotManual`](crate::Error::NotManual) inside a scope that commits on success,
/// [`Error::Doomed`](crate::Error::Doomed) where the database has refused a statement, and
/// [`Error::OptionConflict`](crate::Error::OptionConflict) after `set_rollback(true)`: call [`rollback`] then.
/// [`Error::Busy`](crate::Error::Busy) while rows of a query are still read: nothing is committed then, and nothing lost. What the
/// database says to the commit, and [`Error::OutcomeUnknown`](crate::Error::OutcomeUnknown): after these the next
/// statement begins a new transaction.
pub fn commit() -> Result<()> {
    manual::commit()
}

/// Undoes what the manual scope has done since its last commit, on all branches, and lifts a doom.
///
/// # Errors
/// [`Error::NotManual`](crate::Error::NotManual) inside a scope that commits on success.
/// [`Error::Busy`](crate::Error::Busy) while rows of a query are still read: nothing is undone then.
/// [`Error::ImplicitCommit`](crate::Error::ImplicitCommit) if a statement has ended the transaction: what ran before it may be
/// permanent.
pub fn rollback() -> Result<()> {
    manual::roll_back()
}
