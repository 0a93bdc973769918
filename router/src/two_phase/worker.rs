//! Recovery as a function, and as a thread of a service.

use std::fmt;
use std::sync::mpsc;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::applying::Applier;
use super::report::RecoveryReport;
use super::{cleaning, recovery};
use crate::databases::Databases;
use crate::error::Result;
use crate::transaction_id::TransactionId;

/// How long the thread waits between two passes. It saves work; nothing is decided by it.
pub const RECOVERY_INTERVAL: Duration = Duration::from_secs(10);

impl Databases {
    /// Finishes what coordinators have left prepared on these databases, once. Any number of processes may do so at once, beside
    /// transactions that run.
    ///
    /// What may not be finished yet is left and reported: see [`Reason`](crate::Reason). A database that can't be reached is
    /// reported too, and stops nothing else.
    ///
    /// # Errors
    /// None so far: what went wrong stands in the report.
    pub fn recover(&self) -> Result<RecoveryReport> {
        let report = recovery::recover(self);
        let is_seen = report.problems().is_empty();
        let is_left = |id: &TransactionId| !is_seen || report.left().iter().any(|left| left.id == *id);
        self.handed_over().recovered(|id| !report.committed().contains(id) && is_left(id));
        cleaning::clean(self, &self.complete().take());
        Ok(report)
    }

    /// Starts a thread that recovers now and then every [`RECOVERY_INTERVAL`], until the handle is stopped or dropped. It
    /// returns at once: a database that can't be reached never blocks a start.
    ///
    /// A second thread does for functions with `acknowledge = decided` what they don't wait for.
    pub fn start_recovery(&self) -> RecoveryHandle {
        let shared = Arc::new(Shared::default());
        let (databases, own) = (self.clone(), Arc::clone(&shared));
        let (runs, ended) = mpsc::channel();
        let applier = Applier::start(&databases, ended);
        let of = databases.clone();
        let run = move || {
            let _runs = runs;
            own.run(&databases);
        };
        let thread = std::thread::Builder::new().name("multidb-recovery".into()).spawn(run);
        let thread = thread.inspect_err(|error| {
            tracing::error!(target: crate::telemetry::TARGET, %error, "the recovery thread could not be started");
        });
        RecoveryHandle { shared, thread: thread.ok(), applier, databases: of }
    }
}

/// The thread that recovers, and the one that applies what is decided. Dropping it stops them, after the current pass and when
/// all is applied that was handed over.
#[must_use = "recovery stops when this is dropped"]
pub struct RecoveryHandle {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    applier: Applier,
    databases: Databases,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

/// What the handle wants.
#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Course {
    #[default]
    Passes,
    Suspended,
    Stopped,
}

#[derive(Default)]
struct State {
    course: Course,
    /// A pass is wanted now.
    woken: bool,
    running: bool,
    last: Option<RecoveryReport>,
}

impl RecoveryHandle {
    /// No pass begins until [`resume`](Self::resume). Returns once the current one has ended.
    pub fn suspend(&self) {
        let mut state = self.shared.state();
        state.course = Course::Suspended;
        while state.running {
            state = self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Passes begin again, the first one now.
    pub fn resume(&self) {
        let mut state = self.shared.state();
        (state.course, state.woken) = (Course::Passes, true);
        self.shared.changed.notify_all();
    }

    /// What the last pass has done and left; `None` before the first has ended.
    pub fn last_report(&self) -> Option<RecoveryReport> {
        self.shared.state().last.clone()
    }

    /// Stops its threads, and waits until the current pass has ended and all is applied that was handed over, the latter for
    /// [`DRAIN_LIMIT`](crate::DRAIN_LIMIT) at most. [`Databases::wait_until_applied`] returns afterwards what is left.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.applier.stop(&self.databases);
        self.shared.state().course = Course::Stopped;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!(target: crate::telemetry::TARGET, "the recovery thread panicked");
        }
        self.applier.join();
    }
}

impl Drop for RecoveryHandle {
    fn drop(&mut self) {
        self.end();
    }
}

impl fmt::Debug for RecoveryHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecoveryHandle").finish_non_exhaustive()
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, databases: &Databases) {
        let _ended = Ended { shared: self, databases };
        databases.complete().served(true);
        for (alias, shortcoming) in databases.check().findings() {
            tracing::warn!(target: crate::telemetry::TARGET, %alias, ?shortcoming, "not set up for transactions over several databases");
        }
        while self.begin_pass() {
            // Its failures are in the report, so only a bug can end it.
            let report = databases.recover().ok();
            let mut state = self.state();
            (state.running, state.last) = (false, report);
            self.changed.notify_all();
        }
    }

    /// Waits until a pass may begin; `false` once the thread is to end.
    fn begin_pass(&self) -> bool {
        let mut state = self.state();
        if state.last.is_some() {
            let waits = |state: &mut State| state.course != Course::Stopped && !state.woken;
            let waited = self.changed.wait_timeout_while(state, RECOVERY_INTERVAL, waits);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        while state.course == Course::Suspended {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.woken = false;
        state.running = state.course != Course::Stopped;
        state.running
    }
}

/// The thread has ended, be it by a panic: nobody waits for it.
struct Ended<'a> {
    shared: &'a Shared,
    databases: &'a Databases,
}

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.databases.complete().served(false);
        self.shared.state().running = false;
        self.shared.changed.notify_all();
    }
}
