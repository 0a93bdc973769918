//! The only way to a real connection inside a transaction.

mod branch;

use std::any::Any;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use diesel::connection::{CacheSize, SimpleConnection};
use diesel::result::{Error as DieselError, QueryResult};

use super::backend::{Dialect, Names};
use super::characteristics::Limits;
use super::control::{Control, Gid, Start};
use super::gate::Gate;
use super::identity::Identity;
use super::instrument::{Payload, SharedInstrumentation, failure_of};
use super::levels::Levels;
use super::link::Link;
use super::own::TextRow;
use super::pool::{Lease, Pool};
use super::question::Breach;
use super::reach::BEFORE_TEXTS;
use crate::alias::Alias;
use crate::error::{Error, Result};
use crate::failure::{Failure, FailureClass};
use crate::fault;
use crate::reported::named;

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

/// Why a branch is not prepared.
#[derive(Debug)]
pub struct NotPrepared {
    /// What the database said.
    pub error: Error,
    /// The reply was lost, so that it may be prepared all the same.
    pub in_doubt: bool,
}

/// A prepared branch on the connection that has prepared it. Dropped, it stays prepared, and its connection is discarded.
pub trait Prepared: Send {
    /// The database.
    fn alias(&self) -> &Alias;
    /// Another thread will finish it: this one holds its connection no longer.
    fn hand_over(&self);
    /// Second phase; gives the connection back.
    fn finish(self: Box<Self>, gid: &Gid, commit: bool) -> Result<()>;
}

/// A slot, whatever its backend.
pub trait AnySlot: Any + Send + Sync {
    /// The database.
    fn alias(&self) -> &Alias;
    /// How errors name its backend.
    fn names(&self) -> Names;
    /// Whether the server has the transaction open.
    fn begun(&self) -> bool;
    /// Whether a statement or a cursor has the connection.
    fn is_in_use(&self) -> bool;
    /// The level above `depth` ended well. `widen` are the limits that hold again, if it had some of its own.
    fn release(&self, depth: u32, widen: Option<Limits>) -> Result<()>;
    /// Undoes the level above `depth`. Where that fails the gate is doomed at `depth`.
    fn roll_back_to(&self, depth: u32, widen: Option<Limits>) -> Result<()>;
    /// Why an open transaction could not be committed, as far as that is known without asking the server.
    fn can_commit(&self) -> Result<()>;
    /// Commits, and gives the connection back.
    fn commit(&self) -> Outcome;
    /// Rolls back, and gives the connection back. Where it fails the connection is discarded, which rolls back too.
    fn roll_back(&self) -> Result<()>;
    /// Gives lock waits of the transaction a limit where they have none, and takes it away again.
    fn limit_locks(&self, limited: bool) -> Result<()>;
    /// Runs a statement on the library's own tables, as a part of the transaction.
    fn execute_own(&self, sql: &str, binds: &[&str]) -> Result<usize>;
    /// Runs a query on the library's own tables, as a part of the transaction.
    fn load_own(&self, sql: &str, binds: &[&str]) -> Result<Vec<TextRow>>;
    /// The same in one of the files that the connection holds: its place in their order. Servers have one alone.
    fn execute_own_in(&self, file: usize, sql: &str, binds: &[&str]) -> Result<usize>;
    /// The same in one of the files that the connection holds: its place in their order. Servers have one alone.
    fn load_own_in(&self, file: usize, sql: &str, binds: &[&str]) -> Result<Vec<TextRow>>;
    /// Takes a connection ahead of the first statement, and begins nothing: always, or if the pool was `only_if_short` of them.
    fn take_ahead(&self, only_if_short: bool) -> Result<()>;
    /// Makes an ended slot ready for another transaction.
    fn reopen(&self);
    /// What the database is. Takes the connection, if there is none yet, and begins nothing.
    fn identity(&self) -> Result<Arc<Identity>>;
    /// The transaction is on several databases: see [`Start::across`]. `xa` names the branch where it must begin with its
    /// name. An open one gets its limits now.
    fn go_across(&self, name: &Arc<str>, xa: Option<Gid>) -> Result<()>;
    /// Whether the server may keep a secret of what the branch has done, such as a NOTIFY: it was sent what proves nothing.
    fn is_opaque(&self) -> bool;
    /// Whether the database is known to have changed no row in it. Servers are asked in the statement that would leave a row.
    fn has_only_read(&self) -> bool;
    /// As [`execute_own`](Self::execute_own), after the scope has ended: at the outermost level, and it begins the
    /// transaction where nothing has.
    fn execute_at_end(&self, sql: &str, binds: &[&str]) -> Result<usize>;
    /// Takes back the role that the connection was born with, before the branch is prepared: no other could finish it.
    fn put_back(&self) -> Result<()>;
    /// Makes home's open transaction ready to hold the decision.
    fn before_decision(&self) -> Result<()>;
    /// Makes home's commit durable where the database itself has not: the folder of a SQLite file.
    fn sync_folder(&self);
    /// First phase of a commit over several databases. After a failure the slot is closed.
    fn prepare(&self, gid: &Gid) -> Result<(), NotPrepared>;
    /// Takes the prepared branch out of the slot, which has ended with it.
    fn take_prepared(&self) -> Result<Box<dyn Prepared>>;
    /// Second phase; gives the connection back.
    fn finish_prepared(&self, gid: &Gid, commit: bool) -> Result<()> {
        self.take_prepared()?.finish(gid, commit)
    }
    /// Lets go of the pool, so that the slot can wait to be used again. `false` where it can't: a forgotten cursor keeps its
    /// lock for ever.
    fn detach(&mut self) -> bool;
}

/// One database's place in a transaction: its connection, taken at the first statement, and how far its levels are.
pub struct Slot<B: Dialect> {
    /// `None` in a spare slot alone, which must not keep a pool alive.
    pool: Option<Arc<Pool<B>>>,
    gate: Arc<Gate>,
    /// The deepest level that the server has open: a copy that can be read while the lock is taken.
    open: AtomicU32,
    state: Mutex<State<B>>,
}

/// What the lock of a slot guards.
pub struct State<B: Dialect> {
    phase: Phase<B>,
    levels: Levels,
    start: Start,
    instrumentation: Option<SharedInstrumentation>,
    cache: Option<CacheSize>,
    /// A cursor was opened whose statement Diesel doesn't keep, so that it ends with the cursor alone.
    loose: bool,
    /// How many rows the connection had changed when a transaction over several databases began, if it counts them.
    changes: Option<i64>,
}

enum Phase<B: Dialect> {
    Lazy,
    Open(Lease<B>),
    /// Ended in two phases.
    Finished,
    Closed,
}

impl<B: Dialect> State<B> {
    fn fresh(start: Start) -> Self {
        Self {
            phase: Phase::Lazy,
            levels: Levels::default(),
            start,
            instrumentation: None,
            cache: None,
            loose: false,
            changes: None,
        }
    }

    /// Makes it as good as new, but for its start.
    #[inline]
    fn refresh(&mut self) {
        self.phase = Phase::Lazy;
        self.levels = Levels::default();
        (self.instrumentation, self.cache, self.loose) = (None, None, false);
        self.changes = None;
    }

    /// The connection, of a state that [`Slot::ready`] has given.
    pub fn link(&mut self) -> &mut Link<B> {
        match &mut self.phase {
            Phase::Open(lease) => lease,
            Phase::Lazy | Phase::Finished | Phase::Closed => unreachable!("ready() gives open slots only"),
        }
    }

    /// Takes note of a cursor, and whether Diesel keeps its statement.
    pub fn note_cursor(&mut self, is_kept: bool) {
        self.loose |= !is_kept || self.cache.is_some();
    }

    /// Takes over its connection.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "a connection is large to move")]
    fn open_on(&mut self, lease: Lease<B>) {
        self.phase = Phase::Open(lease);
        self.furnish();
    }

    /// Sets on a fresh connection what a handle has asked for before there was one.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "each transaction passes here, and mostly finds nothing to do")]
    fn furnish(&mut self) {
        if let Some(instrumentation) = self.instrumentation.clone() {
            self.link().instrument(instrumentation);
        }
        if let Some(size) = self.cache {
            self.link().cache_statements(size);
        }
    }
}

impl<B: Dialect> Slot<B> {
    /// A slot that has no connection yet.
    pub fn new(pool: Arc<Pool<B>>, gate: Arc<Gate>, start: Start) -> Self {
        Self { pool: Some(pool), gate, open: AtomicU32::new(0), state: Mutex::new(State::fresh(start)) }
    }

    /// Makes a detached slot fit for another transaction, of any pool of its backend.
    #[inline]
    pub fn refill(&mut self, pool: Arc<Pool<B>>, start: &Start) {
        self.pool = Some(pool);
        let own = &mut self.state.get_mut().unwrap_or_else(PoisonError::into_inner).start;
        (own.tripwire, own.lock_limit, own.characteristics) = (start.tripwire, start.lock_limit, start.characteristics);
        if own.across.is_some() | start.across.is_some() {
            own.across.clone_from(&start.across);
        }
    }

    /// The slot itself, where it is one of this backend.
    #[inline]
    pub fn of(slot: Arc<dyn AnySlot>) -> Option<Arc<Self>> {
        let slot: Arc<dyn Any + Send + Sync> = slot;
        slot.downcast().ok()
    }

    fn pool(&self) -> &Pool<B> {
        self.pool.as_ref().expect("a slot in use has its pool")
    }

    /// Whether the server keeps a read-only level from writing.
    pub fn can_be_read_only(&self, level: u32) -> bool {
        // In a test whose work is rolled back the outermost level is a savepoint too.
        B::LEVELS_CAN_BE_READ_ONLY || level == 1 && !self.pool().settings().is_rolled_back()
    }

    /// The transaction's shared state.
    pub fn gate(&self) -> &Arc<Gate> {
        &self.gate
    }

    /// Runs a statement at the transaction's depth, after the levels that the server has not heard of.
    pub fn run<T>(&self, statement: impl FnOnce(&mut Link<B>) -> QueryResult<T>) -> QueryResult<T> {
        let mut state = self.ready()?;
        let result = statement(state.link());
        let panic = state.link().take_panic();
        let settled = self.settle(state.link(), result.as_ref().err());
        if let Some(panic) = panic {
            self.pass_on(state, panic);
        }
        settled?;
        result.map_err(|error| named(error, self.alias()))
    }

    fn doom(&self, level: u32, failure: Failure) {
        self.gate.doom(level, failure.on(self.alias()));
    }

    /// The instrumentation panicked at a statement, which has come back since. A body that catches the panic can't commit.
    #[cold]
    fn pass_on(&self, state: MutexGuard<'_, State<B>>, panic: Payload) -> ! {
        drop(state);
        self.doom(1, failure_of(&panic));
        resume_unwind(panic)
    }

    /// The lock of a slot whose connection is open at the transaction's depth.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "each statement passes here, and mostly finds nothing to do")]
    pub fn ready(&self) -> Result<MutexGuard<'_, State<B>>> {
        let depth = self.gate.admit(self.alias())?;
        let poisoned = self.state.is_poisoned();
        let mut state = self.lock()?;
        if poisoned {
            // Taking the lock has doomed the transaction only now.
            self.gate.admit(self.alias())?;
        }
        if !matches!(state.phase, Phase::Open(_)) || !state.levels.ready(depth) || self.gate.is_covered() {
            self.make_ready(&mut state, depth)?;
        }
        Ok(state)
    }

    /// Does what has to be done before a statement may run at `depth`.
    #[inline(never)]
    fn make_ready(&self, state: &mut State<B>, depth: u32) -> Result<()> {
        if depth == 0 || matches!(state.phase, Phase::Finished | Phase::Closed) {
            return Err(Error::Closed { database: self.alias().clone() });
        }
        if !state.levels.ready(depth) {
            self.materialise(state, depth)?;
        }
        if self.gate.is_covered() { self.limit_waits(state) } else { Ok(()) }
    }

    /// Limits lock waits of a transaction that has another one above it on its thread: one may wait for the other, and no
    /// server sees that. Sent with each statement meanwhile, since a level that is undone undoes it.
    fn limit_waits(&self, state: &mut State<B>) -> Result<()> {
        let Some([limit, _]) = B::LOCAL_LOCK_LIMIT else { return Ok(()) };
        let link = state.link();
        link.note_limits();
        let result = link.raw().batch_execute(limit);
        self.settle(link, result.as_ref().err())?;
        Ok(result?)
    }

    /// Records what a statement did to the transaction.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "each statement passes here, and mostly finds nothing to record")]
    pub fn settle(&self, link: &mut Link<B>, error: Option<&DieselError>) -> QueryResult<()> {
        if let Some(error) = error {
            self.record(link, error);
        }
        match link.take_breach() {
            None if let Some(error) = error => self.refused_in_branch(error),
            None if link.in_transaction() => Ok(()),
            None | Some(Breach::Ended) => Err(self.has_ended(link)),
            Some(Breach::Writable) => Err(self.gate.allowed_to_write(self.alias()).into()),
        }
    }

    /// The error in place of a statement's that the database refuses in a part of a transaction over several databases.
    #[cold]
    fn refused_in_branch(&self, error: &DieselError) -> QueryResult<()> {
        self.not_in_branch(&error.to_string()).map_or(Ok(()), |ours| Err(ours.into()))
    }

    fn not_in_branch(&self, message: &str) -> Option<Error> {
        let (what, remedy) = B::not_in_branch(message)?;
        let problem = format!("{what} ({message})");
        Some(Error::NotPreparable { database: self.alias().clone(), problem, remedy: remedy.into() })
    }

    /// The failure with our words, if the database refuses the statement in a part of a transaction over several databases.
    fn in_our_words(&self, failure: Failure) -> Failure {
        match self.not_in_branch(failure.message()) {
            Some(ours) => Failure::new(failure.class(), ours.to_string()),
            None => failure,
        }
    }

    /// A statement has ended the transaction.
    #[cold]
    fn has_ended(&self, link: &mut Link<B>) -> DieselError {
        // Not to be undone any more.
        self.gate.ended(self.alias());
        link.leave_ended();
        self.gate.doomed().map_or(DieselError::NotInTransaction, DieselError::from)
    }

    /// Dooms the level in which the database refused a statement.
    #[cold]
    pub fn record(&self, link: &mut Link<B>, error: &DieselError) {
        link.note_stale(error);
        let failure = Failure::of(error);
        if failure.is_none() && !link.aborted() {
            return;
        }
        let mut failure = failure.unwrap_or_else(|| Failure::new(FailureClass::Other, error.to_string()));
        // Only the server knows: the words may be a user's own, and what was never sent has lost nothing.
        if failure.class() == FailureClass::ConnectionLost && link.alive() {
            failure = Failure::new(FailureClass::Other, error.to_string());
        }
        let failure = self.in_our_words(failure);
        let level = if failure.class() == FailureClass::ConnectionLost { 1 } else { self.gate.depth() };
        self.doom(level, failure);
    }

    /// Whether its connection holds several files.
    pub fn has_files(&self) -> bool {
        !self.pool().settings().files.is_empty()
    }

    /// Lends Diesel's connection to a handle on the file at this place, and finds out afterwards what was done with it.
    pub fn with_raw<T, E: From<Error>>(
        &self,
        file: usize,
        body: impl FnOnce(&mut B::Raw) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut state = self.ready()?;
        let before = state.instrumentation.clone();
        let has_files = self.has_files();
        if has_files {
            state.link().raw().batch_execute(BEFORE_TEXTS).map_err(Error::from)?;
        }
        let (mut result, seen) = state.link().watch(before, body).map_err(Error::from)?;
        if has_files {
            let link = state.link();
            link.reach.aim(file);
            link.reach.forget();
            let refused = link.look_back(seen.texts.as_ref());
            // If the body has ended the transaction, or failed, that is found below.
            let _ = link.end_texts(refused.is_err());
            link.reach.forget();
            if let Err(error) = refused {
                result = Err(Error::from(error).into());
            }
        }
        if let Some(failure) = seen.failure {
            self.doom(self.gate.depth(), self.in_our_words(failure));
        }
        if seen.left_open {
            let text = "a transaction begun inside `with_raw` was never ended";
            self.doom(self.gate.depth(), Failure::new(FailureClass::Other, text));
        }
        let link = state.link();
        if link.aborted() {
            let text = "the database aborted the transaction inside `with_raw`";
            self.doom(self.gate.depth(), Failure::new(FailureClass::Other, text));
        }
        let panic = link.take_panic();
        // What follows must not run in autocommit, nor in a transaction that the scope knows nothing of.
        let settled = self.settle(link, None);
        if let Some(panic) = panic {
            self.pass_on(state, panic);
        }
        settled.map_err(Error::from)?;
        if let Err(error) = seen.answer {
            self.record(link, &error);
            return Err(Error::from(named(error, self.alias())).into());
        }
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
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "each transaction begins here")]
    fn materialise(&self, state: &mut State<B>, depth: u32) -> Result<()> {
        let mut left = self.pool().settings().pool.max_size;
        loop {
            // Nothing was sent that counts.
            let fresh = !state.levels.begun();
            if fresh {
                self.pool().give_way();
            }
            if matches!(state.phase, Phase::Lazy) {
                self.take_connection(state)?;
            }
            let State { phase, levels, start, changes, .. } = &mut *state;
            let controls = levels.send(depth, start);
            let Phase::Open(lease) = phase else { unreachable!("opened above") };
            // Limits go with the BEGIN itself, or with a savepoint.
            let sent = if depth == 1 {
                lease.control_alone(Control::Begin(start))
            } else if self.gate.is_watched() {
                let (limits, locks_limited) = (self.gate.limited_levels(1), start.limits_locks());
                let narrow = |control| narrowing(control, &limits, locks_limited);
                lease.control(controls.flat_map(|control| [Some(control), narrow(control)]).flatten())
            } else {
                lease.control(controls)
            };
            let Err(error) = sent else {
                if fresh {
                    tracing::debug!(target: crate::telemetry::TARGET, alias = %self.alias(), "begun");
                    fault::point("enlist.after_begin");
                }
                levels.confirm();
                self.open.store(depth, Ordering::Relaxed);
                if fresh && start.across.is_some() {
                    *changes = lease.changes();
                }
                return Ok(());
            };
            levels.fail();
            lease.note_stale(&error);
            let alive = lease.alive();
            if fresh && !alive && left > 0 {
                left -= 1;
                tracing::debug!(target: crate::telemetry::TARGET, alias = %self.alias(), "replaced a dead idle connection");
                *phase = Phase::Lazy;
                continue;
            }
            let class = if fresh && !alive { Some(FailureClass::NotConnected) } else { None };
            let only_begin = fresh && depth == 1 && B::begins_at_once(start);
            self.could_not_open(phase, only_begin, class, &error);
            return Err(named(error, self.alias()).into());
        }
    }

    /// Takes a connection.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "a connection is large to move")]
    fn take_connection(&self, state: &mut State<B>) -> Result<()> {
        if self.gate.is_arranged() {
            self.take_those_before()?;
        }
        let lease = self.pool().lease(self.gate.site())?;
        state.open_on(lease);
        Ok(())
    }

    /// Takes the connections that come before this one in the order of all databases, if their pools are short: a thread that
    /// waits for one then holds none that comes after it, so that no two wait for each other.
    #[cold]
    fn take_those_before(&self) -> Result<()> {
        let before = self.gate.before(std::ptr::from_ref(self).cast());
        before.iter().try_for_each(|slot| slot.take_ahead(true))
    }

    /// A control statement failed: nothing of this transaction can be committed.
    fn could_not_open(&self, phase: &mut Phase<B>, only_begin: bool, class: Option<FailureClass>, error: &DieselError) {
        let found = Failure::of(error).unwrap_or_else(|| Failure::new(FailureClass::Other, error.to_string()));
        let failure = class.map_or(found, |class| Failure::new(class, error.to_string()));
        self.doom(1, failure);
        // A BEGIN that stood alone and failed has left the connection as it was; otherwise part of the batch may stand.
        if !only_begin && let Phase::Open(lease) = phase {
            lease.break_off();
        }
    }

    /// Locks without waiting: a conflict is an error.
    #[inline]
    fn lock(&self) -> Result<MutexGuard<'_, State<B>>> {
        self.state.try_lock().or_else(|conflict| self.not_locked(conflict))
    }

    #[cold]
    fn not_locked<'a>(&self, conflict: TryLockError<MutexGuard<'a, State<B>>>) -> Result<MutexGuard<'a, State<B>>> {
        match conflict {
            TryLockError::Poisoned(poisoned) => {
                // A statement panicked half-way, so nobody knows what the connection waits for.
                self.doom(1, Failure::new(FailureClass::Other, "a statement panicked"));
                let mut state = poisoned.into_inner();
                if let Phase::Open(lease) = &mut state.phase {
                    lease.note_panic();
                    if lease.take_breach() == Some(Breach::Ended) {
                        self.gate.ended(self.alias());
                    }
                }
                Ok(state)
            }
            TryLockError::WouldBlock => {
                self.gate.no_stream(self.alias())?;
                let reason = "another statement is running on this connection; give each thread a scope of its own, \
                              and don't use a handle inside `with_raw`";
                Err(Error::Busy { database: self.alias().clone(), reason })
            }
        }
    }
}

impl<B: Dialect> Drop for Slot<B> {
    fn drop(&mut self) {
        // The slot is not used any more, so a lock that is held belongs to a cursor that was forgotten.
        let is_forgotten = matches!(self.state.try_lock(), Err(TryLockError::WouldBlock));
        if is_forgotten
            && let State { phase: Phase::Open(lease), loose: true, .. } =
                self.state.get_mut().unwrap_or_else(PoisonError::into_inner)
        {
            lease.abandon();
        }
    }
}

/// The control statement that tells the server of the limits of a level that has just been opened.
fn narrowing<'a>(opened: Control<'_>, limits: &[(u32, Limits)], locks_limited: bool) -> Option<Control<'a>> {
    let Control::Savepoint(level) = opened else { return None };
    let found = limits.iter().find(|(own, _)| *own == level);
    found.map(|(_, limits)| Control::Narrow { to: *limits, locks_limited })
}
