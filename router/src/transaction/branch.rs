//! A database's part of a transaction.

use std::sync::Arc;

use crate::connection::slot::AnySlot;

/// A database's part of a transaction.
#[derive(Clone)]
pub(crate) struct Branch {
    /// Its index in the registry.
    pub(crate) database: usize,
    pub(crate) slot: Arc<dyn AnySlot>,
    /// What most transactions don't need.
    more: Option<Box<More>>,
}

/// What is known of a branch that is not the only one, or not on one file.
#[derive(Clone)]
struct More {
    /// All its SQLite files, where there are several: indices too, in the order of the connection.
    files: Arc<[usize]>,
    /// The level that it was enlisted in, or that this one was handed down to.
    level: u32,
    /// Its number in the transaction: never given twice.
    number: u32,
    /// It was begun read-only.
    reader: bool,
}

impl Branch {
    /// A branch on one database, of the outermost level.
    #[inline]
    pub(super) fn first(database: usize, slot: Arc<dyn AnySlot>) -> Self {
        Self { database, slot, more: None }
    }

    /// A further branch.
    pub(super) fn further(database: usize, slot: Arc<dyn AnySlot>, level: u32, number: u32, reader: bool) -> Self {
        let more = More { files: Arc::default(), level, number, reader };
        Self { database, slot, more: Some(Box::new(more)) }
    }

    /// The same, on several SQLite files.
    pub(super) fn on_files(mut self, files: Arc<[usize]>) -> Self {
        self.more =
            Some(Box::new(More { files, level: self.level(), number: self.number(), reader: self.is_reader() }));
        self
    }

    /// Its files, where there are several.
    #[inline]
    pub(super) fn files(&self) -> &[usize] {
        self.more.as_ref().map_or(&[], |more| &more.files)
    }

    /// The level that it belongs to.
    pub(super) fn level(&self) -> u32 {
        self.more.as_ref().map_or(1, |more| more.level)
    }

    /// The level above `depth` ended well: it belongs to that one now.
    pub(super) fn hand_down(&mut self, depth: u32) {
        if let Some(more) = &mut self.more {
            more.level = more.level.min(depth);
        }
    }

    /// Its number in the transaction.
    pub(super) fn number(&self) -> u32 {
        self.more.as_ref().map_or(0, |more| more.number)
    }

    /// Whether it was begun read-only.
    pub(super) fn is_reader(&self) -> bool {
        self.more.as_ref().is_some_and(|more| more.reader)
    }
}
