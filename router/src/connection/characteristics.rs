//! What the database is told of a transaction: SQL calls it the transaction's characteristics.

use std::fmt;
use std::time::Duration;

/// How much a transaction sees of others that run beside it: SQL's isolation levels, the weakest first.
///
/// SQLite knows one level only, `Serializable`, and satisfies each of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Isolation {
    /// It may see what others have not committed. PostgreSQL gives `ReadCommitted` instead.
    ReadUncommitted,
    /// Each statement sees what was committed before it: PostgreSQL's default.
    ReadCommitted,
    /// All statements see what was committed before the first of them: MySQL's and MariaDB's default.
    RepeatableRead,
    /// As if the transactions ran one after another. One that can't be ordered fails with a serialization failure, and
    /// may be run again: `retry`.
    Serializable,
}

impl Isolation {
    /// The level as SQL writes it.
    pub const fn sql(self) -> &'static str {
        match self {
            Self::ReadUncommitted => "READ UNCOMMITTED",
            Self::ReadCommitted => "READ COMMITTED",
            Self::RepeatableRead => "REPEATABLE READ",
            Self::Serializable => "SERIALIZABLE",
        }
    }

    /// The level as the attribute's key writes it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::ReadUncommitted => "read_uncommitted",
            Self::ReadCommitted => "read_committed",
            Self::RepeatableRead => "repeatable_read",
            Self::Serializable => "serializable",
        }
    }
}

/// Which lock a transaction on SQLite takes at its BEGIN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Lock {
    /// The write lock, unless the transaction only reads.
    #[default]
    Usual,
    /// The write lock.
    Immediate,
    /// The write lock, and with a rollback journal readers are kept out too.
    Exclusive,
}

/// What a scope asks of the database beyond a plain transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Characteristics {
    /// `None`: the database's own default.
    pub isolation: Option<Isolation>,
    /// SQLite's lock.
    pub lock: Lock,
    /// PostgreSQL: wait for a snapshot that can't fail to serialize.
    pub deferrable: bool,
    /// What also a nested level can have.
    pub limits: Limits,
}

/// Limits of a transaction, or of one level of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// Nothing may be written.
    pub read_only: bool,
    /// How long one statement may take on the server.
    pub timeout: Option<Duration>,
}

impl Limits {
    /// No limits.
    pub const NONE: Self = Self { read_only: false, timeout: None };

    /// These limits, and `inner` ones inside them.
    pub fn with(self, inner: Self) -> Self {
        let timeout = match (self.timeout, inner.timeout) {
            (Some(outer), Some(inner)) => Some(outer.min(inner)),
            (outer, inner) => inner.or(outer),
        };
        Self { read_only: self.read_only || inner.read_only, timeout }
    }
}

impl Characteristics {
    /// A plain transaction.
    pub const PLAIN: Self = Self { isolation: None, lock: Lock::Usual, deferrable: false, limits: Limits::NONE };

    /// Whether a plain transaction will do.
    #[inline]
    pub fn is_plain(&self) -> bool {
        *self == Self::PLAIN
    }

    /// Why a scope that asks for `inner` can't be a part of a transaction with these, where `limits` hold by now: the
    /// two declarations.
    pub fn conflict(&self, limits: Limits, inner: &Self) -> Option<Conflict> {
        // Of a level that nobody has declared is known only that every database gives at least this by default.
        let isolation = self.isolation.unwrap_or(Isolation::ReadCommitted);
        if let Some(asked) = inner.isolation.filter(|asked| *asked > isolation) {
            let outer = match self.isolation {
                Some(open) => Declared::Isolation(open),
                None => Declared::No("`isolation`"),
            };
            return Some(Conflict { outer, inner: Declared::Isolation(asked) });
        }
        if inner.deferrable && !self.deferrable {
            return Some(Conflict { outer: Declared::No("`deferrable`"), inner: Declared::Flag("deferrable") });
        }
        if inner.lock == Lock::Exclusive && self.lock != Lock::Exclusive {
            return Some(Conflict { outer: Declared::No("`exclusive`"), inner: Declared::Flag("exclusive") });
        }
        if limits.read_only && !inner.limits.read_only {
            return Some(Conflict { outer: Declared::Flag("read_only"), inner: Declared::No("`read_only`") });
        }
        match (limits.timeout, inner.limits.timeout) {
            (Some(open), Some(asked)) if asked > open => {
                Some(Conflict { outer: Declared::Timeout(open), inner: Declared::Timeout(asked) })
            }
            _ => None,
        }
    }
}

/// Two declarations that contradict each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conflict {
    /// Of the open transaction, or of one of its levels.
    pub outer: Declared,
    /// Of the scope that was to be a part of it.
    pub inner: Declared,
}

impl Conflict {
    /// Which scope has to change, and how.
    pub fn remedy(&self) -> &'static str {
        match (self.outer, self.inner) {
            (Declared::Flag(_), Declared::No(_)) => {
                "let the inner scope be `read_only` too if it only reads, drop `read_only` on the outer one, or let the \
                 inner one have `propagation = requires_new`"
            }
            (Declared::Timeout(_), _) => {
                "raise `timeout` on the outer scope, lower it on the inner one, or let that have `propagation = \
                 requires_new`"
            }
            (Declared::Isolation(_), _) => {
                "give the outer scope the stricter level, drop it on the inner one, or let that have `propagation = \
                 requires_new`"
            }
            _ => {
                "declare it on the outer scope too, drop it on the inner one, or let that have `propagation = requires_new`"
            }
        }
    }
}

/// What a scope says of one characteristic, as errors show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Declared {
    /// `isolation = ..`
    Isolation(Isolation),
    /// `timeout = ".."`
    Timeout(Duration),
    /// A key without a value.
    Flag(&'static str),
    /// Nothing.
    No(&'static str),
}

impl fmt::Display for Declared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Isolation(level) => write!(f, "`isolation = {}`", level.word()),
            Self::Timeout(limit) => write!(f, "`timeout = \"{limit:?}\"`"),
            Self::Flag(key) => write!(f, "`{key}`"),
            Self::No(what) => write!(f, "no {what}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timeout(seconds: u64) -> Limits {
        Limits { timeout: Some(Duration::from_secs(seconds)), ..Limits::NONE }
    }

    fn conflict(outer: Characteristics, inner: Characteristics) -> Option<(String, String)> {
        let found = outer.conflict(outer.limits, &inner)?;
        Some((found.outer.to_string(), found.inner.to_string()))
    }

    #[test]
    fn an_isolation_level_fits_into_one_that_is_as_strict() {
        use Isolation::{ReadCommitted, ReadUncommitted, RepeatableRead, Serializable};
        let with = |isolation| Characteristics { isolation, ..Characteristics::PLAIN };
        for (outer, inner, fits) in [
            (Some(Serializable), Some(Serializable), true),
            (Some(Serializable), Some(ReadCommitted), true),
            (Some(RepeatableRead), Some(Serializable), false),
            (Some(ReadUncommitted), Some(ReadCommitted), false),
            (Some(ReadUncommitted), None, true),
            (None, Some(ReadUncommitted), true),
            (None, Some(ReadCommitted), true),
            (None, Some(RepeatableRead), false),
            (None, Some(Serializable), false),
        ] {
            assert_eq!(conflict(with(outer), with(inner)).is_none(), fits, "{inner:?} in {outer:?}");
        }
        let shown = conflict(with(None), with(Some(Serializable)));
        assert_eq!(shown, Some(("no `isolation`".into(), "`isolation = serializable`".into())));
    }

    #[test]
    fn a_level_may_be_narrower_than_its_transaction_and_never_wider() {
        let with = |limits| Characteristics { limits, ..Characteristics::PLAIN };
        let read_only = Limits { read_only: true, ..Limits::NONE };
        assert_eq!(conflict(with(Limits::NONE), with(read_only)), None);
        assert_eq!(conflict(with(read_only), with(read_only)), None);
        let shown = conflict(with(read_only), with(Limits::NONE));
        assert_eq!(shown, Some(("`read_only`".into(), "no `read_only`".into())));
        assert_eq!(conflict(with(timeout(5)), with(timeout(5))), None);
        assert_eq!(conflict(with(Limits::NONE), with(timeout(5))), None);
        assert_eq!(conflict(with(timeout(5)), with(Limits::NONE)), None);
        let shown = conflict(with(timeout(5)), with(timeout(6)));
        assert_eq!(shown, Some(("`timeout = \"5s\"`".into(), "`timeout = \"6s\"`".into())));
    }

    #[test]
    fn a_lock_and_deferrable_are_decided_where_the_transaction_begins() {
        let lock = |lock| Characteristics { lock, ..Characteristics::PLAIN };
        assert_eq!(conflict(lock(Lock::Usual), lock(Lock::Immediate)), None);
        assert!(conflict(lock(Lock::Immediate), lock(Lock::Exclusive)).is_some());
        assert_eq!(conflict(lock(Lock::Exclusive), lock(Lock::Exclusive)), None);
        let deferrable = Characteristics { deferrable: true, ..Characteristics::PLAIN };
        assert!(conflict(Characteristics::PLAIN, deferrable).is_some());
        assert_eq!(conflict(deferrable, deferrable), None);
    }

    #[test]
    fn limits_inside_limits_are_the_narrower_of_the_two() {
        assert_eq!(timeout(5).with(timeout(3)), timeout(3));
        assert_eq!(timeout(3).with(timeout(5)), timeout(3));
        assert_eq!(timeout(3).with(Limits::NONE), timeout(3));
        assert!(Limits { read_only: true, ..Limits::NONE }.with(timeout(1)).read_only);
    }
}
