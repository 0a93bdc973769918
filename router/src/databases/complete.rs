//! Transactions whose rows nobody needs any more.

use std::sync::{Mutex, PoisonError};

use crate::transaction_id::TransactionId;

/// How many complete transactions are waited for before their rows are deleted.
const BATCH: usize = 100;

/// The transactions of this process that are complete: every branch has confirmed its commit, and the scope has returned `Ok`.
#[derive(Debug, Default)]
pub(crate) struct Complete(Mutex<Vec<TransactionId>>);

impl Complete {
    /// Takes note of one. Gives a batch, once there is one.
    pub(crate) fn add(&self, id: TransactionId) -> Option<Vec<TransactionId>> {
        let mut complete = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        complete.push(id);
        (complete.len() >= BATCH).then(|| std::mem::take(&mut *complete))
    }

    /// What there is.
    pub(crate) fn take(&self) -> Vec<TransactionId> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
