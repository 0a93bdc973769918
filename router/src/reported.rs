//! A database's errors with its name: Diesel's alone doesn't have it.
//!
//! Diesel's error has no place for a name, and its `message` must stay the server's own. The name goes into the hint, which only
//! PostgreSQL ever sets, as a line of its own.

use diesel::result::{DatabaseErrorInformation, DatabaseErrorKind, Error as DieselError};

use crate::alias::Alias;

/// How the line of the hint begins; the alias and `END` follow.
const BEGIN: &str = "on database `";
const END: &str = "`";

/// What a server has reported, and which database it was.
struct Named {
    hint: String,
    reported: Box<dyn DatabaseErrorInformation + Send + Sync>,
}

impl DatabaseErrorInformation for Named {
    fn message(&self) -> &str {
        self.reported.message()
    }

    fn details(&self) -> Option<&str> {
        self.reported.details()
    }

    fn hint(&self) -> Option<&str> {
        Some(&self.hint)
    }

    fn table_name(&self) -> Option<&str> {
        self.reported.table_name()
    }

    fn column_name(&self) -> Option<&str> {
        self.reported.column_name()
    }

    fn constraint_name(&self) -> Option<&str> {
        self.reported.constraint_name()
    }

    fn statement_position(&self) -> Option<i32> {
        self.reported.statement_position()
    }
}

/// The error with the name of the database that has reported it.
pub fn named(error: DieselError, alias: &Alias) -> DieselError {
    match error {
        DieselError::DatabaseError(kind, reported) if alias_in(&*reported).is_none() => {
            with_name(kind, reported, alias)
        }
        other => other,
    }
}

#[cold]
fn with_name(
    kind: DatabaseErrorKind,
    reported: Box<dyn DatabaseErrorInformation + Send + Sync>,
    alias: &Alias,
) -> DieselError {
    let line = format!("{BEGIN}{alias}{END}");
    let hint = reported.hint().map_or_else(|| line.clone(), |hint| format!("{hint}\n{line}"));
    DieselError::DatabaseError(kind, Box::new(Named { hint, reported }))
}

/// The database that has reported an error, if it is known.
pub fn alias_of(error: &DieselError) -> Option<&str> {
    match error {
        DieselError::DatabaseError(_, reported) => alias_in(&**reported),
        _ => None,
    }
}

fn alias_in(reported: &(dyn DatabaseErrorInformation + Send + Sync)) -> Option<&str> {
    reported.hint()?.lines().next_back()?.strip_prefix(BEGIN)?.strip_suffix(END)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Hinted;

    impl DatabaseErrorInformation for Hinted {
        fn message(&self) -> &'static str {
            "it is so"
        }

        fn details(&self) -> Option<&str> {
            Some("details")
        }

        fn hint(&self) -> Option<&str> {
            Some("do so")
        }

        fn table_name(&self) -> Option<&str> {
            Some("table")
        }

        fn column_name(&self) -> Option<&str> {
            Some("column")
        }

        fn constraint_name(&self) -> Option<&str> {
            Some("constraint")
        }

        fn statement_position(&self) -> Option<i32> {
            Some(7)
        }
    }

    #[test]
    fn a_named_error_keeps_all_that_was_reported() {
        let error = DieselError::DatabaseError(DatabaseErrorKind::UniqueViolation, Box::new(Hinted));
        assert_eq!(alias_of(&error), None);
        let error = named(named(error, &Alias::from("orders")), &Alias::from("another"));
        assert_eq!(alias_of(&error), Some("orders"), "the first name stays");
        assert_eq!(error.to_string(), "it is so");
        let DieselError::DatabaseError(DatabaseErrorKind::UniqueViolation, reported) = error else { panic!("{error}") };
        assert_eq!(reported.hint(), Some("do so\non database `orders`"));
        let names = [reported.details(), reported.table_name(), reported.column_name(), reported.constraint_name()];
        assert_eq!(names, [Some("details"), Some("table"), Some("column"), Some("constraint")]);
        assert_eq!(reported.statement_position(), Some(7));
    }

    #[test]
    fn what_no_database_has_reported_stays_as_it_is() {
        let error = named(DieselError::NotFound, &Alias::from("orders"));
        assert!(matches!(error, DieselError::NotFound) && alias_of(&error).is_none());
    }
}
