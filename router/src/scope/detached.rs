//! Work that has nothing to do with the scopes of its thread.

use crate::transaction::{self, Ticket, Verdict};

/// Runs `body` as if no scope were open on this thread: handles in it run in autocommit, and scopes in it are transactions of
/// their own.
///
/// For pools that steal work, such as rayon's: a thread that waits inside a scope for the parts of a job may be given a part
/// of another job meanwhile, which would join the open transaction. Wrap what the pool runs.
///
/// The scopes around it stay open and keep their connections and locks. A SQLite file whose write lock one of them holds
/// can't be written in `body`.
pub fn detached<T>(body: impl FnOnce() -> T) -> T {
    let _hidden = Hidden(Some(transaction::hide_always()));
    body()
}

/// Shows the scopes again, also after a panic.
struct Hidden(Option<Ticket>);

impl Drop for Hidden {
    fn drop(&mut self) {
        if let Some(ticket) = self.0.take() {
            // What was opened inside and never ended is rolled back, and told of.
            let _ = transaction::leave(ticket, Verdict::Keep);
        }
    }
}
