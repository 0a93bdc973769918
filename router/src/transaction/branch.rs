//! A database's part of a transaction.

use std::sync::Arc;

use crate::connection::slot::AnySlot;

/// A database's part of a transaction.
#[derive(Clone)]
pub(crate) struct Branch {
    /// Its index in the registry.
    pub(crate) database: usize,
    pub(crate) slot: Arc<dyn AnySlot>,
    /// All its SQLite files, where there are several: indices too, in the order of the connection.
    pub(crate) files: Option<Arc<[usize]>>,
    /// The level that it was enlisted in, or that this one was handed down to.
    pub(crate) level: u32,
    /// Its number in the transaction: never given twice.
    pub(crate) number: u32,
    /// It was begun read-only, in a transaction that is not.
    pub(crate) reader: bool,
}

impl Branch {
    /// A branch on one database, of the outermost level.
    #[inline]
    pub(super) fn first(database: usize, slot: Arc<dyn AnySlot>) -> Self {
        Self { database, slot, files: None, level: 1, number: 0, reader: false }
    }
}
