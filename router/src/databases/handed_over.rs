//! Work that a function leaves to a thread of its process, so that it can return before that is done.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::registry::Databases;
use crate::transaction_id::TransactionId;

/// How much work may wait. Who has more does it: what waits holds locks and connections.
pub const HANDED_OVER_LIMIT: usize = 16;
/// The most transactions that are remembered because they could not be applied.
const FAILED_LIMIT: usize = 1_000;

/// What is left to a thread: the second phase of a transaction. Whether all of it is done.
pub(crate) struct Work {
    pub(crate) id: TransactionId,
    pub(crate) run: Box<dyn FnOnce() -> bool + Send>,
}

/// Work that waits for a thread that does it.
#[derive(Default)]
pub(crate) struct HandedOver {
    state: Mutex<State>,
    /// For the threads that do it.
    changed: Condvar,
    /// For the threads that wait until it is done.
    done: Condvar,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<(u64, Work)>,
    /// What threads do now.
    running: Vec<(u64, TransactionId)>,
    /// What they could not do, until recovery has done it.
    failed: VecDeque<TransactionId>,
    /// The number of the next work.
    next: u64,
    /// How many threads do it.
    threads: usize,
}

impl State {
    /// What was handed over before this number and is not done, the first one first.
    fn before(&self, number: u64) -> Vec<TransactionId> {
        let running = self.running.iter().filter(|(own, _)| *own < number).map(|(_, id)| id);
        let waiting = self.waiting.iter().filter(|(own, _)| *own < number).map(|(_, work)| &work.id);
        running.chain(waiting).cloned().collect()
    }

    fn fail(&mut self, id: TransactionId) {
        if self.failed.len() == FAILED_LIMIT {
            self.failed.pop_front();
        }
        self.failed.push_back(id);
    }
}

impl HandedOver {
    /// Leaves work to a thread. Gives it back where there is none, or where too much waits already.
    pub(crate) fn offer(&self, work: Work) -> Result<(), Work> {
        let mut state = self.state();
        if state.threads == 0 || state.waiting.len() >= HANDED_OVER_LIMIT {
            return Err(work);
        }
        let number = state.next;
        state.next += 1;
        state.waiting.push_back((number, work));
        drop(state);
        self.changed.notify_one();
        Ok(())
    }

    /// One more thread does it from now on.
    pub(crate) fn serve(self: &Arc<Self>) -> Serving {
        self.state().threads += 1;
        Serving { of: Arc::clone(self), retired: false, running: None }
    }

    /// Lets each thread look whether it is to stop.
    pub(crate) fn wake(&self) {
        // With the lock, so that none is between looking and waiting.
        let _state = self.state();
        self.changed.notify_all();
    }

    /// Waits until all is done that was handed over before, for so long at most.
    fn wait(&self, limit: Duration) -> Unapplied {
        let state = self.state();
        let number = state.next;
        let unfinished = |state: &mut State| !state.before(number).is_empty();
        let state = self.done.wait_timeout_while(state, limit, unfinished).unwrap_or_else(PoisonError::into_inner).0;
        Unapplied { waiting: state.before(number), failed: state.failed.iter().cloned().collect() }
    }

    /// Recovery has looked: what it has left is still to be done.
    pub(crate) fn recovered(&self, is_left: impl Fn(&TransactionId) -> bool) {
        let failed = self.state().failed.clone();
        let done: Vec<TransactionId> = failed.into_iter().filter(|id| !is_left(id)).collect();
        // What has failed since then is not meant.
        self.state().failed.retain(|id| !done.contains(id));
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
    /// What it does now.
    running: Option<u64>,
}

impl Serving {
    /// Does what is handed over, and waits for more. `false` once the thread is stopped, and nothing waits that no other thread
    /// does.
    pub(crate) fn work(&mut self, stopped: &AtomicBool) -> bool {
        let Some(work) = self.next(stopped) else { return false };
        let done = work();
        self.finish(done);
        true
    }

    fn next(&mut self, stopped: &AtomicBool) -> Option<Box<dyn FnOnce() -> bool + Send>> {
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
                None => return None,
                Some((number, Work { id, run })) => {
                    state.running.push((number, id));
                    self.running = Some(number);
                    return Some(run);
                }
            }
        }
    }

    /// What it does now is over.
    fn finish(&mut self, done: bool) {
        let Some(number) = self.running.take() else { return };
        let mut state = self.of.state();
        if let Some(at) = state.running.iter().position(|(own, _)| *own == number) {
            let (_, id) = state.running.swap_remove(at);
            if !done {
                state.fail(id);
            }
        }
        drop(state);
        self.of.done.notify_all();
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // It has panicked with it.
        self.finish(false);
        let mut state = self.of.state();
        if !self.retired {
            state.threads -= 1;
        }
        let left = if state.threads == 0 { std::mem::take(&mut state.waiting) } else { VecDeque::new() };
        for (_, work) in &left {
            state.fail(work.id.clone());
        }
        drop(state);
        self.of.done.notify_all();
        // Not under the lock: it closes connections.
        drop(left);
    }
}

/// Transactions that functions with `acknowledge = decided` have handed over, and that are not applied on all their databases
/// yet. They are committed all the same; on a database on which one is not applied, its rows can't be read so far, and are locked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use = "it names what is not applied yet"]
#[non_exhaustive]
pub struct Unapplied {
    /// Those that wait for the thread that applies them, or that it applies now, in the order in which it does.
    pub waiting: Vec<TransactionId>,
    /// Those that the thread could not apply. [`recover`](Databases::recover) finishes them, and they are named until that of
    /// this process has seen it: the last 1,000 of them.
    pub failed: Vec<TransactionId>,
}

impl Unapplied {
    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.failed.is_empty()
    }
}

impl fmt::Display for Unapplied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("all is applied that was handed over");
        }
        let mut separator = "";
        for (ids, what) in [(&self.waiting, "to be applied"), (&self.failed, "left to recovery")] {
            if ids.is_empty() {
                continue;
            }
            write!(f, "{separator}{what}: ")?;
            for (at, id) in ids.iter().enumerate() {
                write!(f, "{}{id}", if at == 0 { "" } else { ", " })?;
            }
            separator = "; ";
        }
        Ok(())
    }
}

impl Databases {
    /// Waits until all is applied that functions with `acknowledge = decided` have handed over before, for `limit` at most, and
    /// returns what is left. What is handed over meanwhile is not waited for. `Duration::ZERO` only looks.
    ///
    /// For code that must read what such a function has written on its other databases: a test, a report, or a service before it
    /// ends. [`RecoveryHandle::stop`](crate::RecoveryHandle::stop) waits by itself.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use multidb::Databases;
    /// # fn main() -> Result<(), multidb::Error> {
    /// # let databases = Databases::builder().sqlite("default", ":memory:").build()?;
    /// let left = databases.wait_until_applied(Duration::from_secs(5));
    /// if !left.is_empty() {
    ///     eprintln!("{left}");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn wait_until_applied(&self, limit: Duration) -> Unapplied {
        self.handed_over().wait(limit)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn id() -> TransactionId {
        TransactionId::new()
    }

    fn send(to: &mpsc::Sender<usize>, number: usize) -> Work {
        let to = to.clone();
        let run = Box::new(move || to.send(number).is_ok());
        Work { id: id(), run }
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
        while serving.work(&stopped) {
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
        assert!(!first.work(&AtomicBool::new(true)));
        drop(first);
        assert!(handed.offer(send(&done, 2)).is_ok(), "the other one still takes it");
        let stopped = AtomicBool::new(true);
        while second.work(&stopped) {}
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

    #[test]
    fn what_is_waited_for_is_what_was_handed_over_before() {
        let handed = Arc::new(HandedOver::default());
        assert!(handed.wait(Duration::ZERO).is_empty());
        let mut serving = handed.serve();
        let (done, _did) = mpsc::channel();
        let inside = Arc::clone(&handed);
        let (first, again) = (id(), done.clone());
        let looks = move || {
            // While it is done it is not done yet, and what comes later is not meant.
            let found = inside.wait(Duration::ZERO).waiting.len();
            assert!(inside.offer(send(&again, 2)).is_ok());
            found == 1
        };
        assert!(handed.offer(Work { id: first.clone(), run: Box::new(looks) }).is_ok());
        assert_eq!(handed.wait(Duration::ZERO).waiting, [first]);
        let stopped = AtomicBool::new(false);
        assert!(serving.work(&stopped) && handed.wait(Duration::ZERO).failed.is_empty());
        assert_eq!(handed.wait(Duration::ZERO).waiting.len(), 1);
        assert!(serving.work(&stopped) && handed.wait(Duration::ZERO).is_empty());
    }

    #[test]
    fn what_could_not_be_done_is_named_until_recovery_has_seen_to_it() {
        let handed = Arc::new(HandedOver::default());
        let [fails, panics, dropped] = [id(), id(), id()];
        let mut serving = handed.serve();
        let work = |id: &TransactionId, run: Box<dyn FnOnce() -> bool + Send>| Work { id: id.clone(), run };
        assert!(handed.offer(work(&fails, Box::new(|| false))).is_ok());
        assert!(handed.offer(work(&panics, Box::new(|| panic!("a bug")))).is_ok());
        assert!(handed.offer(work(&dropped, Box::new(|| true))).is_ok());
        let stopped = AtomicBool::new(false);
        assert!(serving.work(&stopped));
        let thread = std::thread::spawn(move || serving.work(&stopped));
        assert!(thread.join().is_err());
        let left = handed.wait(Duration::ZERO);
        assert_eq!((left.waiting.len(), &left.failed[..]), (0, &[fails, panics.clone(), dropped][..]));
        handed.recovered(|id| *id == panics);
        assert_eq!(handed.wait(Duration::ZERO).failed, [panics]);
    }

    #[test]
    fn so_many_that_could_not_be_done_are_remembered_and_no_more() {
        let mut state = State::default();
        for _ in 0..FAILED_LIMIT + 10 {
            state.fail(id());
        }
        assert_eq!(state.failed.len(), FAILED_LIMIT);
    }
}
