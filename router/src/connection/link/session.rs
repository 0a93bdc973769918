//! Whether a session is still what it was born as, and the library's own statements on it.

use diesel::connection::SimpleConnection;
use diesel::result::{Error as DieselError, QueryResult};

use super::Link;
use crate::connection::backend::Dialect;
use crate::connection::born::Born;
use crate::error::Error;

/// Whether a session is as it was born, with its role and its names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Session {
    /// Nothing was sent that could change it.
    Born,
    /// A statement may have changed it, in this transaction or long ago.
    Changed,
    /// Its role was put back since then, and its names are the server's own until the transaction ends.
    PutBack,
}

/// How a server says that a role may not be taken, or is gone.
const NAMES_ROLE: [&str; 2] = ["role", "authorization"];

impl<B: Dialect> Link<B> {
    /// Takes note that a statement may do more than its type tells: it was a text, or calls what the user has declared.
    pub fn note_unproven(&mut self) {
        self.lent.opaque = true;
        self.session = Session::Changed;
    }

    /// Whether the server may not tell all that was done: it was sent what may notify others.
    pub fn is_opaque(&self) -> bool {
        self.lent.opaque
    }

    /// Runs statements on the library's own tables: where they are, and as the role that the connection was born with.
    pub fn own<T>(&mut self, work: impl FnOnce(&mut B::Raw, &Born) -> QueryResult<T>) -> QueryResult<T> {
        let born = self.births.get::<B>()?;
        if self.session != Session::Changed {
            return work(&mut self.raw, &born);
        }
        let local = self.depth() > 0;
        let before = B::step_in(&mut self.raw, &born, local).map_err(|error| self.not_taken_back(error))?;
        let result = match B::hidden(&mut self.raw, &born) {
            None => work(&mut self.raw, &born),
            Some(table) => Err(self.hidden(table).into()),
        };
        let left = B::step_out(&mut self.raw, &born, &before, local);
        if left.is_err() && !local {
            self.broken = true;
        }
        // After a failure in a transaction of PostgreSQL it fails too, and the level's end undoes what was set.
        result.and_then(|value| left.map(|()| value))
    }

    fn hidden(&self, table: &str) -> Error {
        Error::Config {
            alias: Some(self.database.clone()),
            key: None,
            problem: format!("a temporary table hides the library's `{table}`"),
            remedy: "give it another name: those that begin with `multidb_` are the library's".into(),
        }
    }

    /// The transaction is about to be prepared: takes back the role that its connection was born with, if a statement may have
    /// taken another one.
    pub fn put_back(&mut self) -> QueryResult<()> {
        if self.session != Session::Changed || B::FIRE.is_empty() {
            return Ok(());
        }
        let born = self.births.get::<B>()?;
        self.raw.batch_execute(B::FIRE)?;
        match B::put_back(&mut self.raw, &born) {
            Ok(None) => {
                self.session = Session::PutBack;
                Ok(())
            }
            Ok(Some(left)) => Err(self.another_role(&format!("it is `{left}` all the same")).into()),
            Err(error) => Err(self.not_taken_back(error)),
        }
    }

    /// The error of a role that could not be taken back.
    fn not_taken_back(&self, error: DieselError) -> DieselError {
        let text = error.to_string();
        let says_so =
            matches!(error, DieselError::DatabaseError(..)) && NAMES_ROLE.iter().any(|word| text.contains(word));
        if says_so { self.another_role(&text).into() } else { error }
    }

    fn another_role(&self, problem: &str) -> Error {
        Error::Config {
            alias: Some(self.database.clone()),
            key: None,
            problem: format!(
                "a statement has changed the role, and the one that the connection began with, as which the library's own \
                 rows are written and branches are finished, could not be taken back: {problem}"
            ),
            remedy:
                "take it back before the scope ends, or let the function commit by itself: `propagation = requires_new`"
                    .into(),
        }
    }
}
