//! Routes that hold for as long as a transaction: it would otherwise be on two databases without anybody having said so.

use super::stack::{Transaction, top};
use crate::error::{Error, Result};
use crate::routing::{Subject, hints_number};

/// The most routes that one transaction compares.
const PINS_LIMIT: usize = 1_000;

/// A route that holds for as long as the transaction.
pub(super) struct Pin {
    subject: Subject,
    /// The hints that it was given with.
    hints: u64,
    database: usize,
}

impl Pin {
    /// With the hints that hold now.
    #[inline]
    pub(super) fn new(subject: Subject, database: usize) -> Self {
        Self { subject, hints: hints_number(), database }
    }
}

/// Notes a route in the innermost transaction, or compares it with the one that was noted.
#[inline]
pub(crate) fn pin(subject: Subject, database: usize) -> Result<()> {
    let hints = hints_number();
    let changed = top(|open| {
        let known = open.pins.iter().find(|pin| pin.hints == hints && pin.subject.is(subject));
        match known {
            Some(pin) if open.databases().are_same(pin.database, database) => None,
            Some(pin) => Some(open.changed(pin, database)),
            None => {
                // Beyond the limit a route is not compared: it was right when it was given.
                if open.pins.len() < PINS_LIMIT {
                    open.pins.push(Pin { subject, hints, database });
                }
                None
            }
        }
    });
    changed.flatten().map_or(Ok(()), Err)
}

impl Transaction {
    /// The database to which other hints have led this model or application within the transaction.
    #[cold]
    pub(super) fn pinned_elsewhere(&self, subject: &str, database: usize) -> Option<usize> {
        let hints = hints_number();
        let is_other = |pin: &&Pin| pin.hints != hints && !self.databases().are_same(pin.database, database);
        self.pins.iter().filter(is_other).find(|pin| pin.subject.to_string() == subject).map(|pin| pin.database)
    }

    /// The error of a route that is another one now.
    #[cold]
    fn changed(&self, pin: &Pin, now: usize) -> Error {
        let alias = |index| self.databases().at(index).alias().clone();
        let (was, now) = (alias(pin.database), alias(now));
        Error::RouteChanged { subject: pin.subject.to_string(), was, now, outer: self.outermost().to_string() }
    }
}
