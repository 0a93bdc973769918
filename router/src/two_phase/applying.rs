//! The second phase of a decided transaction: by its coordinator, or on a thread, after its function has returned.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::cleaning;
use super::protocol::Answer;
use crate::connection::control::Gid;
use crate::connection::slot::Prepared;
use crate::databases::{Databases, Work};
use crate::fault;
use crate::telemetry::TARGET;
use crate::transaction_id::TransactionId;

/// How long stopping waits for what was handed over. What is not applied by then is left to recovery.
pub const DRAIN_LIMIT: Duration = Duration::from_secs(10);

/// A prepared branch of a transaction that is to be committed.
pub(super) struct Branch {
    /// Its place among the members.
    pub(super) at: usize,
    pub(super) prepared: Box<dyn Prepared>,
    pub(super) gid: Gid,
}

impl Branch {
    /// Commits it, or leaves it to recovery.
    pub(super) fn apply(self, id: &TransactionId) -> Answer {
        let Self { at, prepared, gid } = self;
        let alias = prepared.alias().clone();
        fault::point_at("apply.before", at);
        let applied = prepared.finish(&gid, true);
        fault::point_at("apply.after", at);
        let Err(error) = applied else { return Answer::Done };
        tracing::warn!(target: TARGET, %id, %alias, %error, "a prepared branch is left to recovery");
        Answer::Failed
    }
}

/// What its function has left of a transaction.
pub(super) struct Rest {
    pub(super) databases: Databases,
    pub(super) id: TransactionId,
    pub(super) branches: Vec<Branch>,
    /// The databases that hold its rows, as indices of the registry.
    pub(super) on: Vec<usize>,
}

impl Rest {
    /// Leaves it to a thread, or does it where there is none.
    pub(super) fn hand_over(self) {
        for branch in &self.branches {
            branch.prepared.hand_over();
        }
        let (databases, id) = (self.databases.clone(), self.id.clone());
        let run = Box::new(move || self.apply());
        if let Err(work) = databases.handed_over().offer(Work { id, run }) {
            (work.run)();
            if let Some(batch) = databases.complete().take_full() {
                cleaning::clean(&databases, &batch);
            }
        }
    }

    /// Whether all of it is applied. Deletes no rows: what comes after it in the queue holds locks meanwhile.
    fn apply(self) -> bool {
        let Self { databases, id, branches, on } = self;
        let mut complete = true;
        for branch in branches {
            let alias = branch.prepared.alias().clone();
            let answer = branch.apply(&id);
            tracing::debug!(target: TARGET, %id, %alias, phase = "commit", ?answer, "a phase over several databases");
            complete &= answer == Answer::Done;
        }
        fault::point("apply.all_done");
        if complete {
            databases.complete().note(id, on.into_iter());
        }
        complete
    }
}

/// A thread that applies what is handed over.
pub(super) struct Applier {
    stopped: Arc<AtomicBool>,
    /// Disconnected when the thread has ended.
    ended: Mutex<Receiver<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Applier {
    /// `recovers` is disconnected when the thread has ended that recovers, and deletes rows.
    pub(super) fn start(databases: &Databases, recovers: Receiver<Infallible>) -> Self {
        let mut serving = databases.handed_over().serve();
        let stopped = Arc::new(AtomicBool::new(false));
        let (runs, ended) = mpsc::channel();
        let (own, databases) = (Arc::clone(&stopped), databases.clone());
        let thread = std::thread::Builder::new().name("multidb-apply".into()).spawn(move || {
            let _runs = runs;
            while serving.work(&own) {}
            drop(serving);
            // Not between two of them: what waits holds locks. And the other thread may still take the rows.
            let _ = recovers.recv();
            if let Some(batch) = databases.complete().take_full() {
                cleaning::clean(&databases, &batch);
            }
        });
        let thread = thread.inspect_err(|error| {
            tracing::error!(target: TARGET, %error, "the thread that applies what is decided could not be started");
        });
        Self { stopped, ended: Mutex::new(ended), thread: thread.ok() }
    }

    /// Nothing new is taken.
    pub(super) fn stop(&self, databases: &Databases) {
        self.stopped.store(true, Ordering::Relaxed);
        databases.handed_over().wake();
    }

    /// Waits until all is applied, for [`DRAIN_LIMIT`] at most.
    pub(super) fn join(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        let ended = self.ended.get_mut().unwrap_or_else(PoisonError::into_inner);
        if ended.recv_timeout(DRAIN_LIMIT) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!(target: TARGET, "stopping does not wait longer for what is decided and not applied yet: recovery will finish it");
        } else if thread.join().is_err() {
            tracing::error!(target: TARGET, "the thread that applies what is decided panicked");
        }
    }
}
