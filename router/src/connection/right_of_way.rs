//! Recovery comes first at the write lock of a SQLite file, before the scopes of its process.
//!
//! SQLite's lock has no queue: each waiting connection tries again now and then. Scopes that begin one after another, and
//! each wait on a server for what an undecided branch has locked there, would keep the file from the recovery that
//! decides that branch.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long a scope lets recovery go first, at most. A longer recovery is delayed, and nothing else.
pub const GIVE_WAY_LIMIT: Duration = Duration::from_secs(10);
/// How long the file stays free after a transaction that holds it has given up waiting for another lock: longer than SQLite
/// waits between two tries, so that the recovery of another process gets a turn.
pub const BACK_OFF: Duration = Duration::from_millis(150);

/// Who comes first at one file.
#[derive(Debug, Default)]
pub struct RightOfWay {
    /// How many recoveries want the lock, or have it.
    claims: AtomicUsize,
    /// A transaction has given up waiting for a lock while it held the file.
    congested: AtomicBool,
    lock: Mutex<()>,
    changed: Condvar,
}

impl RightOfWay {
    /// Lets scopes wait until the claim is dropped.
    pub fn claim(self: &Arc<Self>) -> Claim {
        self.claims.fetch_add(1, Ordering::SeqCst);
        Claim(Arc::clone(self))
    }

    /// A transaction that held the file has given up waiting for a lock.
    pub fn congest(&self) {
        self.congested.store(true, Ordering::SeqCst);
    }

    /// Waits while a recovery wants the lock.
    #[inline]
    pub fn give_way(&self) {
        if self.claims.load(Ordering::Relaxed) > 0 || self.congested.load(Ordering::Relaxed) {
            self.wait();
        }
    }

    #[cold]
    fn wait(&self) {
        if self.congested.swap(false, Ordering::SeqCst) {
            std::thread::sleep(BACK_OFF);
        }
        let claimed = |(): &mut ()| self.claims.load(Ordering::SeqCst) > 0;
        let _ = self.changed.wait_timeout_while(self.lock(), GIVE_WAY_LIMIT, claimed);
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        self.lock.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A recovery's right to come first, until it is dropped.
#[derive(Debug)]
pub struct Claim(Arc<RightOfWay>);

impl Drop for Claim {
    fn drop(&mut self) {
        let _locked = self.0.lock();
        self.0.claims.fetch_sub(1, Ordering::SeqCst);
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_waits_until_every_claim_is_dropped() {
        let right = Arc::new(RightOfWay::default());
        right.give_way();
        let claims = [right.claim(), right.claim()];
        let gone = AtomicBool::new(false);
        std::thread::scope(|threads| {
            let waiting = threads.spawn(|| {
                right.give_way();
                gone.load(Ordering::SeqCst)
            });
            let [first, second] = claims;
            drop(first);
            gone.store(true, Ordering::SeqCst);
            drop(second);
            assert!(waiting.join().expect("it has ended"), "it went before the last claim was dropped");
        });
        right.give_way();
    }
}
