//! Parts of the errors' texts.

use std::fmt;

use diesel::result::Error as DieselError;

use crate::alias::Alias;
use crate::failure::FailureClass;
use crate::reported::alias_of;

/// The database and the key, as far as they are known.
pub(super) struct At<'a>(pub(super) &'a Option<Alias>, pub(super) &'a Option<String>);

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(alias) = self.0 {
            write!(f, " of database `{alias}`")?;
        }
        if let Some(key) = self.1 {
            write!(f, ", key `{key}`")?;
        }
        Ok(())
    }
}

/// Aliases as a reader lists them.
pub(super) struct Aliases<'a>(pub(super) &'a [Alias]);

impl fmt::Display for Aliases<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            [] => f.write_str("no database"),
            [one] => write!(f, "database `{one}`"),
            [first, others @ ..] => {
                write!(f, "databases `{first}`")?;
                for other in others {
                    write!(f, ", `{other}`")?;
                }
                Ok(())
            }
        }
    }
}

/// What helps against a doom.
pub(super) fn remedy(class: FailureClass) -> &'static str {
    match class {
        FailureClass::Constraint => "nest the risky statement in a scope of its own, or use `on_conflict`",
        FailureClass::ConnectionLost => "run the whole transaction again",
        FailureClass::Timeout => "raise `timeout`, or do less in one transaction",
        class if class.is_retryable() => "run the whole transaction again",
        _ => "return the error instead of `Ok`, or nest what may fail in a scope of its own",
    }
}

/// How many statements a doomed transaction has refused.
pub(super) struct Refused(pub(super) u32);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => Ok(()),
            1 => f.write_str(" (one statement was refused since)"),
            n => write!(f, " ({n} statements were refused since)"),
        }
    }
}

/// How an error begins that a statement has ended a transaction; the database follows.
pub(super) const ENDED: &str = "a statement ended this transaction on database";

/// What the function of a scope has returned itself.
pub(super) struct Failing<'a>(pub(super) &'a Option<String>);

impl fmt::Display for Failing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(failing) => write!(f, "; the scope's function itself has failed with {failing}"),
            None => Ok(()),
        }
    }
}

/// What a database has reported, with its name if that is known.
pub(super) struct Reported<'a>(pub(super) &'a DieselError);

impl fmt::Display for Reported<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(database) = alias_of(self.0) {
            write!(f, "database `{database}`: ")?;
        }
        self.0.fmt(f)
    }
}

/// Who refused a relation.
pub(super) struct Refuser(pub(super) Option<&'static str>);

impl fmt::Display for Refuser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(router) => write!(f, ", and router `{router}` says no"),
            None => Ok(()),
        }
    }
}
