//! Savepoints that a user sets.

use std::marker::PhantomData;

use crate::connection::characteristics::Limits;
use crate::error::{Error, Result};
use crate::site::{Call, Site};
use crate::transaction::{self, Kind, Ticket, Verdict};

/// Sets a savepoint in the open transaction, on all its branches. `name` is for logs.
///
/// # Errors
/// [`Error::NoScope`](crate::Error::NoScope) outside of any transaction.
#[track_caller]
pub fn savepoint(name: &str) -> Result<Savepoint> {
    let ticket = transaction::nest(Site::call(Call::Savepoint), Kind::Savepoint, Limits::NONE)?;
    Ok(Savepoint { name: name.to_owned(), ticket, _thread: PhantomData })
}

/// A savepoint. Dropped, it is released with the scope that it was set in, also where that has joined a level.
#[derive(Debug)]
#[must_use = "a savepoint that is dropped can't be rolled back to"]
pub struct Savepoint {
    name: String,
    ticket: Ticket,
    // It stands for a level of this thread's transaction.
    _thread: PhantomData<*const ()>,
}

impl Savepoint {
    /// The name that it was given.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Undoes everything since the savepoint, on all branches, drops the hooks registered since, and lifts a doom that came
    /// after it.
    ///
    /// # Errors
    /// [`Error::AlreadyEnded`](crate::Error::AlreadyEnded) if the savepoint has ended with its scope, with an earlier one, or by
    /// `commit` or `rollback` of a manual scope. [`Error::OptionConflict`](crate::Error::OptionConflict) inside of a scope that was entered since.
    /// [`Error::Doomed`](crate::Error::Doomed) where the database could not go back to it: on MySQL and MariaDB a deadlock has
    /// undone the whole transaction.
    pub fn rollback(self) -> Result<()> {
        self.end(Verdict::Undo)
    }

    /// Keeps everything since the savepoint.
    ///
    /// # Errors
    /// [`Error::Doomed`](crate::Error::Doomed) where the database has refused a statement since: then everything since
    /// the savepoint is undone. [`Error::AlreadyEnded`](crate::Error::AlreadyEnded) if the savepoint has ended already.
    /// [`Error::OptionConflict`](crate::Error::OptionConflict) inside of a scope that was entered since.
    pub fn release(self) -> Result<()> {
        self.end(Verdict::Keep)
    }

    fn end(self, verdict: Verdict) -> Result<()> {
        let what = || format!("savepoint `{}`", self.name);
        transaction::no_scope_inside(&self.ticket, what)?;
        if !transaction::has_level(&self.ticket) {
            return Err(Error::AlreadyEnded { what: what() });
        }
        transaction::leave(self.ticket, verdict)
    }
}
