//! Which thread goes first if a pool has no idle connection.
//!
//! A thread that holds a connection of another pool goes before those that hold none: what it holds is what others wait for.
//! And a pool that was short of connections is remembered for some time, since transactions over several pools then take them
//! in one order.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// How many transactions take the connections of a pool ahead of those that they need, after it was short of them.
pub const SHORT_FOR: u32 = 100;

/// Those who wait for a connection of one pool.
#[derive(Debug, Default)]
pub struct Queue {
    /// How many threads wait.
    waiting: AtomicU32,
    /// How many of them hold a connection of another pool.
    holders: AtomicU32,
    short: AtomicU32,
    lock: Mutex<()>,
    changed: Condvar,
}

/// A thread that waits, until it is dropped.
#[derive(Debug)]
pub struct Waiting<'a> {
    queue: &'a Queue,
    holds: bool,
}

impl Queue {
    /// This thread waits from now on. `holds`: it has a connection of another pool.
    pub fn join(&self, holds: bool) -> Waiting<'_> {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        if holds {
            self.holders.fetch_add(1, Ordering::SeqCst);
        }
        Waiting { queue: self, holds }
    }

    /// How many threads wait.
    pub fn waiting(&self) -> u32 {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Whether one waits that goes before those that hold nothing.
    #[inline]
    pub fn has_holders(&self) -> bool {
        self.holders.load(Ordering::Relaxed) > 0
    }

    /// Waits while one does, until then at most.
    pub fn give_way(&self, until: Instant) {
        let mut lock = self.lock();
        while self.holders.load(Ordering::SeqCst) > 0 {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            lock = self.changed.wait_timeout(lock, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The pool had no connection left.
    pub fn note_short(&self) {
        self.short.store(SHORT_FOR, Ordering::Relaxed);
    }

    /// Whether that was not long ago.
    pub fn is_short(&self) -> bool {
        self.short.load(Ordering::Relaxed) > 0
    }

    /// A connection was taken ahead, and there was one.
    pub fn note_calm(&self) {
        let _ = self.short.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        self.lock.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.queue.waiting.fetch_sub(1, Ordering::SeqCst);
        if self.holds {
            let _locked = self.queue.lock();
            self.queue.holders.fetch_sub(1, Ordering::SeqCst);
            self.queue.changed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::time::Duration;

    use super::*;

    #[test]
    fn those_that_hold_nothing_wait_until_no_holder_does_or_their_time_is_over() {
        let queue = Queue::default();
        let far = Instant::now() + Duration::from_mins(1);
        queue.give_way(far);
        let (nothing, first, second) = (queue.join(false), queue.join(true), queue.join(true));
        assert_eq!((queue.waiting(), queue.has_holders()), (3, true));
        queue.give_way(Instant::now());
        let gone = AtomicBool::new(false);
        std::thread::scope(|threads| {
            let waiting = threads.spawn(|| {
                queue.give_way(far);
                gone.load(Ordering::SeqCst)
            });
            drop(first);
            gone.store(true, Ordering::SeqCst);
            drop(second);
            assert!(waiting.join().expect("it has ended"), "it went before the last holder");
        });
        drop(nothing);
        assert_eq!((queue.waiting(), queue.has_holders()), (0, false));
    }

    #[test]
    fn a_pool_is_short_until_so_many_have_found_a_connection() {
        let queue = Queue::default();
        assert!(!queue.is_short());
        queue.note_calm();
        queue.note_short();
        for _ in 0..SHORT_FOR {
            assert!(queue.is_short());
            queue.note_calm();
        }
        assert!(!queue.is_short());
    }
}
