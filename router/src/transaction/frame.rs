//! What is open on a thread: transactions, and in each of them scopes, handles and savepoints.

use super::stack::Transaction;
use crate::site::Site;

/// What a scope has put on the thread's stack.
pub(super) enum Entry {
    Open(Box<Transaction>),
    /// Hides the transactions below: the scope runs in autocommit.
    Hidden {
        serial: u64,
    },
}

impl Entry {
    pub(super) fn serial(&self) -> u64 {
        match self {
            Self::Open(transaction) => transaction.serial,
            Self::Hidden { serial } => *serial,
        }
    }

    pub(super) fn transaction(&self) -> Option<&Transaction> {
        match self {
            Self::Open(transaction) => Some(transaction),
            Self::Hidden { .. } => None,
        }
    }

    pub(super) fn into_transaction(self) -> Option<Box<Transaction>> {
        match self {
            Self::Open(transaction) => Some(transaction),
            Self::Hidden { .. } => None,
        }
    }

    pub(super) fn transaction_mut(&mut self) -> Option<&mut Transaction> {
        match self {
            Self::Open(transaction) => Some(transaction),
            Self::Hidden { .. } => None,
        }
    }
}

/// Something that was opened in a transaction and not yet ended.
#[derive(Clone, Copy)]
pub(super) struct Frame {
    pub(super) number: u64,
    pub(super) site: Site,
    /// The level that it is in: of its own, or the one that it joined.
    pub(super) level: u32,
    pub(super) kind: Kind,
    /// The level is to be undone although its scope returns `Ok`.
    pub(super) undone: bool,
}

/// What has opened a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An annotated function or a closure scope, with a level of its own.
    Scope,
    /// A scope that joined a level.
    Joined,
    /// Diesel's own `transaction` on a handle.
    Handle,
    /// A savepoint that the user set. It ends with its scope at the latest.
    Savepoint,
}
