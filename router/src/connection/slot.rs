//! The only way to a real connection inside a transaction.

use std::any::Any;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};

use diesel::connection::CacheSize;
use diesel::result::{Error as DieselError, QueryResult};

use super::backend::{Dialect, Names};
use super::control::{Control, Gid, Start};
use super::gate::Gate;
use super::instrument::SharedInstrumentation;
use super::levels::{Ending, Levels};
use super::link::Link;
use super::pool::{Lease, Pool};
use crate::alias::Alias;
use crate::error::{Error, Result};
use crate::failure::{Failure, FailureClass};

/// How the end of a transaction on one database came out.
#[derive(Debug)]
pub enum Outcome {
    /// The database confirmed the commit, or there was nothing to commit.
    Committed,
    /// Nothing was committed, for this reason.
    RolledBack(Error),
    /// The reply to COMMIT was lost.
    Unknown,
}

/// A slot, whatever its backend.
pub trait AnySlot: Send + Sync {
    /// The database.
    fn alias(&self) -> &Alias;
    /// How errors name its backend.
    fn names(&self) -> Names;
    /// Whether the server has the transaction open.
    fn begun(&self) -> bool;
    /// The level above `depth` ended well.
    fn release(&self, depth: u32) -> Result<()>;
    /// Undoes the level above `depth`. Where that fails the gate is doomed at `depth`.
    fn roll_back_to(&self, depth: u32) -> Result<()>;
    /// Commits, and gives the connection back.
    fn commit(&self) -> Outcome;
    /// Rolls back, and gives the connection back. Where it fails the connection is discarded, which rolls back too.
    fn roll_back(&self) -> Result<()>;
    /// Makes an ended slot ready for another transaction.
    fn reopen(&self);
    /// First phase of a commit over several databases.
    fn prepare(&self, gid: &Gid) -> Result<()>;
    /// Second phase; gives the connection back.
    fn finish_prepared(&self, gid: &Gid, commit: bool) -> Result<()>;
    /// Lets go of the pool, so that the slot can wait to be used again. `false` where it can't: a forgotten cursor keeps its
    /// lock for ever.
    fn detach(&mut self) -> bool;
    /// The slot itself, to find its backend.
    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync>;
}

/// One database's place in a transaction: its connection, taken at the first statement, and how far its levels are.
pub struct Slot<B: Dialect> {
    /// `None` in a spare slot alone, which must not keep a pool alive.
    pool: Option<Arc<Pool<B>>>,
    gate: Arc<Gate>,
    start: Start,
    /// The deepest level that the server has open: a copy that can be read while the lock is taken.
    open: AtomicU32,
    state: Mutex<State<B>>,
}

/// What the lock of a slot guards.
pub struct State<B: Dialect> {
    phase: Phase<B>,
    levels: Levels,
    instrumentation: Option<SharedInstrumentation>,
    cache: Option<CacheSize>,
}

enum Phase<B: Dialect> {
    Lazy,
    Open(Lease<B>),
    /// Ended in two phases.
    Finished,
    Closed,
}

impl<B: Dialect> State<B> {
    /// The connection, of a state that [`Slot::ready`] has given.
    pub fn link(&mut self) -> &mut Link<B> {
        match &mut self.phase {
            Phase::Open(lease) => lease,
            Phase::Lazy | Phase::Finished | Phase::Closed => unreachable!("ready() gives open slots only"),
        }
    }

    /// Sets on a fresh connection what a handle has asked for before there was one.
    fn furnish(&self, lease: &mut Lease<B>) {
        if let Some(instrumentation) = &self.instrumentation {
            lease.instrument(instrumentation.clone());
        }
        if let Some(size) = self.cache {
            lease.cache_statements(size);
        }
    }
}

impl<B: Dialect> Slot<B> {
    /// A slot that has no connection yet.
    pub fn new(pool: Arc<Pool<B>>, gate: Arc<Gate>, start: Start) -> Self {
        let state = State { phase: Phase::Lazy, levels: Levels::default(), instrumentation: None, cache: None };
        Self { pool: Some(pool), gate, start, open: AtomicU32::new(0), state: Mutex::new(state) }
    }

    /// Makes an ended slot that nobody else holds fit for another transaction, of any pool of its backend. `false` where it
    /// can't be used again.
    pub fn refill(&mut self, pool: Arc<Pool<B>>, start: Start) -> bool {
        let Ok(state) = self.state.get_mut() else { return false };
        *state = State { phase: Phase::Lazy, levels: Levels::default(), instrumentation: None, cache: None };
        *self.open.get_mut() = 0;
        self.pool = Some(pool);
        self.start = start;
        true
    }

    fn pool(&self) -> &Pool<B> {
        self.pool.as_ref().expect("a slot in use has its pool")
    }

    /// The transaction's shared state.
    pub fn gate(&self) -> &Arc<Gate> {
        &self.gate
    }

    /// Runs a statement at the transaction's depth, after the levels that the server has not heard of.
    pub fn run<T>(&self, statement: impl FnOnce(&mut Link<B>) -> QueryResult<T>) -> QueryResult<T> {
        let mut state = self.ready()?;
        let result = statement(state.link());
        self.settle(state.link(), result.as_ref().err())?;
        result
    }

    /// The lock of a slot whose connection is open at the transaction's depth.
    pub fn ready(&self) -> Result<MutexGuard<'_, State<B>>> {
        let depth = self.gate.admit(self.alias())?;
        let mut state = self.lock()?;
        match &state.phase {
            Phase::Open(_) if state.levels.ready(depth) => return Ok(state),
            Phase::Finished | Phase::Closed => return Err(Error::Closed { database: self.alias().clone() }),
            Phase::Open(_) | Phase::Lazy => {}
        }
        if depth == 0 {
            return Err(Error::Closed { database: self.alias().clone() });
        }
        self.materialise(&mut state, depth)?;
        Ok(state)
    }

    /// Records what a statement did to the transaction.
    pub fn settle(&self, link: &mut Link<B>, error: Option<&DieselError>) -> QueryResult<()> {
        if let Some(error) = error {
            self.record(link, error);
        } else if !link.in_transaction() {
            // Not to be undone any more: only a text that slipped through `with_raw` or the guard gets here.
            self.gate.ended(self.alias());
            link.break_off();
            return Err(self.gate.doomed().map_or(DieselError::NotInTransaction, DieselError::from));
        }
        Ok(())
    }

    /// Dooms the level in which the database refused a statement.
    pub fn record(&self, link: &mut Link<B>, error: &DieselError) {
        let failure = Failure::of(error);
        if failure.is_none() && !link.aborted() {
            return;
        }
        let failure = failure.unwrap_or_else(|| Failure::new(FailureClass::Other, error.to_string()));
        let level = if failure.class() == FailureClass::ConnectionLost { 1 } else { self.gate.depth() };
        self.gate.doom(level, failure);
    }

    /// Lends Diesel's connection, and finds out afterwards what was done with it.
    pub fn with_raw<T, E: From<Error>>(&self, body: impl FnOnce(&mut B::Raw) -> Result<T, E>) -> Result<T, E> {
        let mut state = self.ready()?;
        let before = state.instrumentation.clone();
        let (result, seen) = state.link().watch(before, body);
        if let Some(failure) = seen.failure {
            self.gate.doom(self.gate.depth(), failure);
        }
        if seen.left_open {
            let text = "a transaction begun inside `with_raw` was never ended";
            self.gate.doom(self.gate.depth(), Failure::new(FailureClass::Other, text));
        }
        if seen.control {
            // What follows must not run in autocommit, nor in a transaction that the scope knows nothing of.
            self.gate.ended(self.alias());
            state.link().break_off();
        }
        let link = state.link();
        if link.aborted() {
            let text = "the database aborted the transaction inside `with_raw`";
            self.gate.doom(self.gate.depth(), Failure::new(FailureClass::Other, text));
        }
        self.settle(link, None).map_err(Error::from)?;
        result
    }

    /// Sets the instrumentation of this transaction's connection.
    pub fn instrument(&self, instrumentation: SharedInstrumentation) {
        if let Ok(mut state) = self.lock() {
            if let Phase::Open(lease) = &mut state.phase {
                lease.instrument(instrumentation.clone());
            }
            state.instrumentation = Some(instrumentation);
        }
    }

    /// Sets the statement cache of this transaction's connection.
    pub fn cache_statements(&self, size: CacheSize) {
        if let Ok(mut state) = self.lock() {
            if let Phase::Open(lease) = &mut state.phase {
                lease.cache_statements(size);
            }
            state.cache = Some(size);
        }
    }

    /// Opens the missing levels on the server, on a connection that is taken now if there is none.
    ///
    /// A connection may have died while it was idle. Where BEGIN finds that out nothing was lost, and another one is
    /// taken. There can be no more dead ones than the pool holds.
    fn materialise(&self, state: &mut State<B>, depth: u32) -> Result<()> {
        let mut left = self.pool().settings().pool.max_size;
        loop {
            let fresh = matches!(state.phase, Phase::Lazy);
            if fresh {
                let mut lease = self.pool().lease(self.gate.site())?;
                state.furnish(&mut lease);
                state.phase = Phase::Open(lease);
            }
            let controls = state.levels.send(depth, &self.start);
            let Phase::Open(lease) = &mut state.phase else { unreachable!("opened above") };
            let Err(error) = lease.control(controls) else {
                state.levels.confirm();
                self.open.store(depth, Ordering::Relaxed);
                return Ok(());
            };
            state.levels.fail();
            let alive = lease.alive();
            if fresh && !alive && left > 0 {
                left -= 1;
                tracing::debug!(target: crate::telemetry::TARGET, alias = %self.alias(), "replaced a dead idle connection");
                state.phase = Phase::Lazy;
                continue;
            }
            self.could_not_open(state, fresh && depth == 1 && B::begins_at_once(&self.start), &error);
            return Err(error.into());
        }
    }

    /// A control statement failed: nothing of this transaction can be committed.
    fn could_not_open(&self, state: &mut State<B>, only_begin: bool, error: &DieselError) {
        let failure = Failure::of(error).unwrap_or_else(|| Failure::new(FailureClass::Other, error.to_string()));
        self.gate.doom(1, failure);
        // A BEGIN that stood alone and failed has left the connection as it was; otherwise part of the batch may stand.
        if !only_begin && let Phase::Open(lease) = &mut state.phase {
            lease.break_off();
        }
    }

    /// Locks without waiting: a conflict is an error.
    fn lock(&self) -> Result<MutexGuard<'_, State<B>>> {
        match self.state.try_lock() {
            Ok(state) => Ok(state),
            Err(TryLockError::Poisoned(poisoned)) => {
                // A statement panicked half-way, so nobody knows what the connection waits for.
                self.gate.doom(1, Failure::new(FailureClass::Other, "a statement panicked"));
                let mut state = poisoned.into_inner();
                if let Phase::Open(lease) = &mut state.phase {
                    lease.break_off();
                }
                Ok(state)
            }
            Err(TryLockError::WouldBlock) => {
                self.gate.no_stream(self.alias())?;
                let reason = "another statement is running on this connection; give each thread a scope of its own, \
                              and don't use a handle inside `with_raw`";
                Err(Error::Busy { database: self.alias().clone(), reason })
            }
        }
    }

    /// Ends a level on the server.
    fn end_level(&self, depth: u32, ending: impl FnOnce(&mut Levels) -> Ending) -> Result<()> {
        if self.open.load(Ordering::Relaxed) <= depth {
            return Ok(());
        }
        let mut state = self.lock().inspect_err(|error| {
            // A cursor has outlived its level. The level can't be ended, so the transaction must not be committed.
            self.gate.doom(1, Failure::new(FailureClass::Other, error.to_string()));
        })?;
        let State { phase: Phase::Open(lease), levels, .. } = &mut *state else {
            return Ok(());
        };
        let ending = ending(levels);
        self.open.store(depth, Ordering::Relaxed);
        let result = match ending {
            Ending::Local => return Ok(()),
            Ending::Release(_) if B::DEFERS_RELEASE => return Ok(()),
            Ending::Release(level) => lease.control([Control::Release(level)]),
            Ending::RollbackTo(level) if B::DEFERS_RELEASE => lease.control([Control::RollbackTo(level)]),
            Ending::RollbackTo(level) => lease.control([Control::RollbackTo(level), Control::Release(level)]),
        };
        match result {
            Ok(()) if B::DEFERS_RELEASE => Ok(()),
            Ok(()) => {
                levels.released();
                Ok(())
            }
            Err(error) => Err(self.level_lost(lease, depth, error)),
        }
    }

    /// A level could not be ended, so the one below it holds what nobody can take out again.
    fn level_lost(&self, link: &mut Link<B>, depth: u32, error: DieselError) -> Error {
        let alive = link.alive();
        let level = if alive { depth } else { 1 };
        let failure = Failure::of(&error).unwrap_or_else(|| Failure::new(FailureClass::Other, error.to_string()));
        let implicit = B::is_implicit_commit(failure.message()) && self.gate.failure().is_none();
        self.gate.pass_outward(if implicit { 1 } else { level }, || failure);
        if implicit {
            self.gate.ended(self.alias());
            return Error::ImplicitCommit { database: self.alias().clone() };
        }
        error.into()
    }

    /// COMMIT failed: finds out what that means.
    fn commit_failed(&self, mut lease: Lease<B>, error: DieselError) -> Outcome {
        let message = error.to_string();
        if !lease.alive() || B::commit_may_have_happened(&message) {
            lease.break_off();
            return Outcome::Unknown;
        }
        // Still open: SQLite keeps a transaction whose COMMIT found the file locked.
        if lease.in_transaction() && lease.control([Control::Rollback(&PLAIN)]).is_err() {
            lease.break_off();
        }
        drop(lease);
        if B::is_implicit_commit(&message) {
            return Outcome::RolledBack(Error::ImplicitCommit { database: self.alias().clone() });
        }
        Outcome::RolledBack(error.into())
    }

    fn roll_back_open(&self, mut lease: Lease<B>, begun: bool) -> Result<()> {
        if !begun && !lease.in_transaction() {
            drop(lease);
            return Ok(());
        }
        let result = lease.control([Control::Rollback(&self.start)]);
        let Err(error) = result else {
            drop(lease);
            return Ok(());
        };
        let message = error.to_string();
        // Without the tripwire this one succeeds, and leaves the connection fit for the pool. SQLite may have rolled back
        // by itself, and Diesel has found that out by now; a database in memory would be lost with its connection.
        let is_over =
            |lease: &mut Lease<B>| !lease.in_transaction() || lease.control([Control::Rollback(&PLAIN)]).is_ok();
        if !lease.alive() || self.start.xa.is_some() || !is_over(&mut lease) {
            lease.break_off();
        }
        drop(lease);
        // A deadlock takes the savepoint away as well; then the transaction was undone, which is what was wanted.
        if B::is_implicit_commit(&message) && !self.gate.failure().is_some_and(|first| first.class().is_retryable()) {
            return Err(Error::ImplicitCommit { database: self.alias().clone() });
        }
        Err(error.into())
    }
}

/// Ends a transaction without a tripwire.
const PLAIN: Start = Start { xa: None, tripwire: false, lock_limit: false };

impl<B: Dialect> AnySlot for Slot<B> {
    fn alias(&self) -> &Alias {
        &self.pool().settings().alias
    }

    fn names(&self) -> Names {
        B::NAMES
    }

    fn begun(&self) -> bool {
        self.open.load(Ordering::Relaxed) > 0
    }

    fn release(&self, depth: u32) -> Result<()> {
        self.end_level(depth, |levels| levels.release(depth))
    }

    fn roll_back_to(&self, depth: u32) -> Result<()> {
        self.end_level(depth, |levels| levels.roll_back(depth))
    }

    fn commit(&self) -> Outcome {
        let mut state = match self.lock() {
            Ok(state) => state,
            // The connection is discarded with the cursor that holds it, which rolls back.
            Err(error) => return Outcome::RolledBack(error),
        };
        let mut lease = match std::mem::replace(&mut state.phase, Phase::Closed) {
            Phase::Open(lease) => lease,
            Phase::Lazy | Phase::Finished => return Outcome::Committed,
            // Ended already, and not by a commit of this transaction.
            Phase::Closed => return Outcome::RolledBack(Error::Closed { database: self.alias().clone() }),
        };
        if let Some(error) = self.gate.doomed() {
            // Found out only by taking the lock: a statement panicked.
            let _ = self.roll_back_open(lease, true);
            return Outcome::RolledBack(error);
        }
        if !lease.in_transaction() {
            self.gate.ended(self.alias());
            let _ = self.roll_back_open(lease, true);
            return Outcome::RolledBack(self.gate.doomed().expect("doomed above"));
        }
        if lease.aborted() {
            let text = "the database had aborted the transaction before COMMIT";
            self.gate.doom(1, Failure::new(FailureClass::Other, text));
            let _ = self.roll_back_open(lease, true);
            return Outcome::RolledBack(self.gate.doomed().expect("doomed above"));
        }
        match lease.control([Control::Commit(&self.start)]) {
            Ok(()) => {
                drop(lease);
                Outcome::Committed
            }
            Err(error) => self.commit_failed(lease, error),
        }
    }

    fn roll_back(&self) -> Result<()> {
        let mut state = self.lock()?;
        let begun = state.levels.begun();
        match std::mem::replace(&mut state.phase, Phase::Closed) {
            Phase::Open(lease) => self.roll_back_open(lease, begun),
            Phase::Lazy | Phase::Finished | Phase::Closed => Ok(()),
        }
    }

    fn reopen(&self) {
        self.open.store(0, Ordering::Relaxed);
        // A slot that a cursor still holds is not ended, and stays as it is.
        if let Ok(mut state) = self.lock()
            && matches!(state.phase, Phase::Closed | Phase::Finished)
        {
            state.phase = Phase::Lazy;
            state.levels = Levels::default();
        }
    }

    fn prepare(&self, gid: &Gid) -> Result<()> {
        let mut state = self.ready()?;
        let link = state.link();
        if link.aborted() {
            let text = "the database had aborted the transaction before PREPARE";
            self.gate.doom(1, Failure::new(FailureClass::Other, text));
            return Err(self.gate.doomed().expect("doomed above"));
        }
        // Dropped before the second phase, the connection must not be handed out.
        link.hold_for_branch(true);
        let result = link.control([Control::Prepare(gid)]);
        state.levels = Levels::default();
        result.map_err(Error::from)
    }

    fn finish_prepared(&self, gid: &Gid, commit: bool) -> Result<()> {
        let mut state = self.lock()?;
        let Phase::Open(mut lease) = std::mem::replace(&mut state.phase, Phase::Closed) else {
            return Err(Error::Closed { database: self.alias().clone() });
        };
        let control = if commit { Control::CommitPrepared(gid) } else { Control::RollbackPrepared(gid) };
        lease.control([control])?;
        lease.hold_for_branch(false);
        drop(lease);
        state.phase = Phase::Finished;
        Ok(())
    }

    fn detach(&mut self) -> bool {
        let free = self.state.try_lock().is_ok_and(|state| !matches!(state.phase, Phase::Open(_)));
        if free {
            self.pool = None;
        }
        free
    }

    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }
}
