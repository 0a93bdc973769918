//! Work that a function leaves to a thread of its process, so that it can return before that is done.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// How much work may wait. Who has more does it: what waits holds locks and connections.
pub const HANDED_OVER_LIMIT: usize = 16;

/// What is left to a thread.
pub(crate) type Work = Box<dyn FnOnce() + Send>;

/// Work that waits for a thread that does it.
#[derive(Default)]
pub(crate) struct HandedOver {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Work>,
    /// How many threads do it.
    threads: usize,
}

impl HandedOver {
    /// Leaves work to a thread. Gives it back where there is none, or where too much waits already.
    pub(crate) fn offer(&self, work: Work) -> Result<(), Work> {
        let mut state = self.state();
        if state.threads == 0 || state.waiting.len() >= HANDED_OVER_LIMIT {
            return Err(work);
        }
        state.waiting.push_back(work);
        drop(state);
        self.changed.notify_one();
        Ok(())
    }

    /// One more thread does it from now on.
    pub(crate) fn serve(self: &Arc<Self>) -> Serving {
        self.state().threads += 1;
        Serving { of: Arc::clone(self), retired: false }
    }

    /// Lets each thread look whether it is to stop.
    pub(crate) fn wake(&self) {
        // With the lock, so that none is between looking and waiting.
        let _state = self.state();
        self.changed.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A thread that does what is handed over. When the last one is dropped, what still waits is dropped too.
pub(crate) struct Serving {
    of: Arc<HandedOver>,
    /// It takes nothing new.
    retired: bool,
}

impl Serving {
    /// Waits for work. `None` once the thread is stopped, and nothing waits that no other thread does.
    pub(crate) fn next(&mut self, stopped: &AtomicBool) -> Option<Work> {
        let mut state = self.of.state();
        loop {
            if stopped.load(Ordering::Relaxed) && !self.retired {
                (self.retired, state.threads) = (true, state.threads - 1);
            }
            if self.retired && state.threads > 0 {
                // Somebody else's, who may have slept through this thread's waking.
                self.of.changed.notify_one();
                return None;
            }
            match state.waiting.pop_front() {
                None if !self.retired => {
                    state = self.of.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
                work => return work,
            }
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let mut state = self.of.state();
        if !self.retired {
            state.threads -= 1;
        }
        let left = if state.threads == 0 { std::mem::take(&mut state.waiting) } else { VecDeque::new() };
        drop(state);
        // Not under the lock: it closes connections.
        drop(left);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn send(to: &mpsc::Sender<usize>, number: usize) -> Work {
        let to = to.clone();
        Box::new(move || to.send(number).expect("the test waits"))
    }

    #[test]
    fn without_a_thread_work_is_given_back() {
        let handed = Arc::new(HandedOver::default());
        let (done, _kept) = mpsc::channel();
        assert!(handed.offer(send(&done, 1)).is_err());
        drop(handed.serve());
        assert!(handed.offer(send(&done, 1)).is_err());
    }

    #[test]
    fn work_is_done_in_its_order_and_what_is_too_much_is_given_back() {
        let handed = Arc::new(HandedOver::default());
        let (done, did) = mpsc::channel();
        let mut serving = handed.serve();
        for number in 0..HANDED_OVER_LIMIT {
            assert!(handed.offer(send(&done, number)).is_ok());
        }
        assert!(handed.offer(send(&done, HANDED_OVER_LIMIT)).is_err());
        let stopped = AtomicBool::new(true);
        while let Some(work) = serving.next(&stopped) {
            work();
            assert!(handed.offer(send(&done, 0)).is_err(), "nothing new once it is stopped");
        }
        drop(done);
        assert!(did.iter().eq(0..HANDED_OVER_LIMIT));
    }

    #[test]
    fn a_stopped_thread_leaves_what_waits_to_another_one() {
        let handed = Arc::new(HandedOver::default());
        let (done, did) = mpsc::channel();
        let (mut first, mut second) = (handed.serve(), handed.serve());
        assert!(handed.offer(send(&done, 1)).is_ok());
        assert!(first.next(&AtomicBool::new(true)).is_none());
        drop(first);
        assert!(handed.offer(send(&done, 2)).is_ok(), "the other one still takes it");
        let stopped = AtomicBool::new(true);
        while let Some(work) = second.next(&stopped) {
            work();
        }
        drop(done);
        assert!(did.iter().eq([1, 2]));
    }

    #[test]
    fn what_a_thread_leaves_that_ends_without_being_stopped_is_dropped() {
        let handed = Arc::new(HandedOver::default());
        let (done, did) = mpsc::channel();
        let serving = handed.serve();
        assert!(handed.offer(send(&done, 1)).is_ok());
        drop((serving, done));
        assert_eq!(did.recv(), Err(mpsc::RecvError));
    }
}
