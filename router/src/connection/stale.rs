//! Errors after which a connection would fail again and again, whatever is run on it: its pool must not keep it.

use diesel::result::{DatabaseErrorKind, Error as DieselError};

use super::backend::Dialect;
use super::link::Link;

/// Why a connection is of no use any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stale {
    /// It remembers what the server doesn't have any more, or not in that form: prepared statements and types.
    Remembers,
    /// Its server takes no writes: a primary before a failover, or a file that was replaced.
    Behind,
}

/// Texts of the servers' errors.
const BY_TEXT: &[(&str, Stale)] = &[
    ("cached plan must not change result type", Stale::Remembers),
    ("cache lookup failed for", Stale::Remembers),
    ("Unknown prepared statement handler", Stale::Remembers),
    ("Prepared statement needs to be re-prepared", Stale::Remembers),
    ("Commands out of sync", Stale::Remembers),
    ("in a read-only transaction", Stale::Behind),
    ("during recovery", Stale::Behind),
    ("recovery is in progress", Stale::Behind),
    ("in a hot standby", Stale::Behind),
    ("--read-only", Stale::Behind),
    ("--super-read-only", Stale::Behind),
    ("attempt to write a readonly database", Stale::Behind),
];

/// PostgreSQL's, with a name between the two parts: a statement or a type is not there, or there already.
const NAMED: &[(&str, &str)] = &[
    ("prepared statement \"", "\" does not exist"),
    ("prepared statement \"", "\" already exists"),
    ("type with OID ", " does not exist"),
];

/// Whether it is such an error.
pub fn stale(error: &DieselError) -> Option<Stale> {
    let DieselError::DatabaseError(kind, information) = error else { return None };
    let message = information.message();
    if *kind == DatabaseErrorKind::ReadOnlyTransaction {
        return Some(Stale::Behind);
    }
    let named = || {
        let named =
            |(begin, end): &&(&str, &str)| message.split_once(begin).is_some_and(|(_, rest)| rest.contains(end));
        NAMED.iter().find(named).map(|_| Stale::Remembers)
    };
    BY_TEXT.iter().find(|(text, _)| message.contains(text)).map(|(_, stale)| *stale).or_else(named)
}

impl<B: Dialect> Link<B> {
    /// Keeps the connection from going back to the pool if an error of a statement will come back on it.
    #[cold]
    pub fn note_stale(&mut self, error: &DieselError) {
        self.discard_if(stale(error));
    }

    /// The same, once the error was looked at.
    pub fn discard_if(&mut self, stale: Option<Stale>) {
        #[cfg(feature = "testing")]
        if self.rehearsal.is_some() {
            // What a test has done would be lost.
            return;
        }
        match stale {
            Some(Stale::Remembers) => self.break_off(),
            Some(Stale::Behind) if self.should_take_writes() => self.break_off(),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(kind: DatabaseErrorKind, message: &str) -> Option<Stale> {
        stale(&DieselError::DatabaseError(kind, Box::new(message.to_owned())))
    }

    #[test]
    fn errors_that_come_back_are_told_from_those_of_a_statement() {
        for (message, expected) in [
            ("prepared statement \"__diesel_stmt_3\" does not exist", Some(Stale::Remembers)),
            ("cache lookup failed for type 16400", Some(Stale::Remembers)),
            ("type with OID 16400 does not exist", Some(Stale::Remembers)),
            ("cannot execute INSERT in a read-only transaction", Some(Stale::Behind)),
            (
                "The MariaDB server is running with the --read-only option so it cannot execute this statement",
                Some(Stale::Behind),
            ),
            ("relation \"items\" does not exist", None),
            ("type \"mood\" does not exist", None),
            ("duplicate key value violates unique constraint \"items_pkey\"", None),
        ] {
            assert_eq!(of(DatabaseErrorKind::Unknown, message), expected, "{message}");
        }
        assert_eq!(of(DatabaseErrorKind::ReadOnlyTransaction, "in another language"), Some(Stale::Behind));
        assert_eq!(stale(&DieselError::NotFound), None);
    }
}
