//! Transactions whose rows nobody needs any more.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::transaction_id::TransactionId;

/// How many complete transactions are waited for before their rows are deleted.
const BATCH: usize = 100;
/// How many wait for the thread that recovers, where one runs.
const QUEUE_LIMIT: usize = 10_000;

/// The transactions of this process that are complete: every branch has confirmed its commit, and the scope has returned `Ok`.
#[derive(Debug, Default)]
pub(crate) struct Complete(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    ids: Vec<TransactionId>,
    /// Their databases, as indices of the registry.
    databases: Vec<usize>,
    /// How many threads take them now and then.
    threads: usize,
}

/// Some of them, and the databases that hold their rows.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) ids: Vec<TransactionId>,
    pub(crate) databases: Vec<usize>,
}

impl Complete {
    /// Takes note of one. Gives a batch, once there is one that no thread will take.
    pub(crate) fn add(&self, id: TransactionId, databases: impl Iterator<Item = usize>) -> Option<Batch> {
        self.note(id, databases);
        self.take_full()
    }

    /// Takes note of one.
    pub(crate) fn note(&self, id: TransactionId, databases: impl Iterator<Item = usize>) {
        let mut waiting = self.waiting();
        waiting.ids.push(id);
        for database in databases {
            if !waiting.databases.contains(&database) {
                waiting.databases.push(database);
            }
        }
    }

    /// A batch, once there is one that no thread will take.
    pub(crate) fn take_full(&self) -> Option<Batch> {
        let mut waiting = self.waiting();
        let limit = if waiting.threads > 0 { QUEUE_LIMIT } else { BATCH };
        (waiting.ids.len() >= limit).then(|| waiting.take())
    }

    /// What there is.
    pub(crate) fn take(&self) -> Batch {
        self.waiting().take()
    }

    /// A thread takes them from now on, or no longer.
    pub(crate) fn served(&self, served: bool) {
        let mut waiting = self.waiting();
        waiting.threads = if served { waiting.threads + 1 } else { waiting.threads.saturating_sub(1) };
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn take(&mut self) -> Batch {
        Batch { ids: std::mem::take(&mut self.ids), databases: std::mem::take(&mut self.databases) }
    }
}
