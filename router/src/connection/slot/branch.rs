//! A slot as a branch of its transaction: how its levels and the transaction itself end.

use std::sync::atomic::Ordering;
use std::sync::{Arc, TryLockError};

use diesel::connection::SimpleConnection;
use diesel::result::{Error as DieselError, QueryResult};

use super::{AnySlot, NotPrepared, Outcome, Phase, Prepared, Slot, State};
use crate::alias::Alias;
use crate::connection::backend::{Dialect, Names};
use crate::connection::characteristics::{Characteristics, Limits};
use crate::connection::control::{Control, Gid, Joint, Start};
use crate::connection::identity::Identity;
use crate::connection::levels::{Ending, Levels};
use crate::connection::link::Link;
use crate::connection::own::{TextRow, explained};
use crate::connection::pool::Lease;
use crate::connection::text::Syntax;
use crate::error::{Error, Result};
use crate::failure::{Failure, FailureClass};
use crate::reported::named;
use crate::telemetry::TARGET;

/// Ends a transaction without a tripwire.
const PLAIN: Start =
    Start { tripwire: false, lock_limit: false, characteristics: Characteristics::PLAIN, across: None };

impl<B: Dialect> Slot<B> {
    /// Ends a level on the server.
    fn end_level(&self, depth: u32, widen: Option<Limits>, ending: impl FnOnce(&mut Levels) -> Ending) -> Result<()> {
        if self.open.load(Ordering::Relaxed) <= depth {
            return Ok(());
        }
        let mut state = self.lock().inspect_err(|error| {
            // A cursor has outlived its level. The level can't be ended, so the transaction must not be committed.
            self.doom(1, Failure::new(FailureClass::Other, error.to_string()));
        })?;
        let State { phase: Phase::Open(lease), levels, start, .. } = &mut *state else {
            return Ok(());
        };
        let ending = ending(levels);
        self.open.store(depth, Ordering::Relaxed);
        let undone = matches!(ending, Ending::RollbackTo(_));
        let widen = widen.map(|to| Control::Widen { to, undone, locks_limited: start.limits_locks() });
        // Limits are not undone by a RELEASE that waits.
        let defers = B::DEFERS_RELEASE && widen.is_none();
        let (first, second) = match ending {
            Ending::Local => return Ok(()),
            Ending::Release(_) if defers => return Ok(()),
            Ending::Release(level) => (Control::Release(level), None),
            Ending::RollbackTo(level) if defers => (Control::RollbackTo(level), None),
            Ending::RollbackTo(level) => (Control::RollbackTo(level), Some(Control::Release(level))),
        };
        match lease.control([Some(first), second, widen].into_iter().flatten()) {
            Ok(()) if defers => Ok(()),
            Ok(()) => {
                levels.released();
                Ok(())
            }
            Err(error) => Err(self.level_lost(lease, depth, error)),
        }
    }

    /// A level could not be ended, so the one below it holds what nobody can take out again.
    fn level_lost(&self, link: &mut Link<B>, depth: u32, error: DieselError) -> Error {
        link.note_stale(&error);
        let alive = link.alive();
        let level = if alive { depth } else { 1 };
        let failure = Failure::of(&error).unwrap_or_else(|| Failure::new(FailureClass::Other, error.to_string()));
        let implicit = B::is_implicit_commit(failure.message()) && self.gate.failure().is_none();
        // The level below holds what could not be undone, so the doom becomes its own.
        self.doom(if implicit { 1 } else { level }, failure);
        if implicit {
            self.gate.ended(self.alias());
            return Error::implicit_commit(self.alias().clone());
        }
        named(error, self.alias()).into()
    }

    /// Why a transaction that seemed fit for it must not be committed.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "each transaction that commits passes here")]
    fn objection(&self, link: &mut Link<B>) -> Option<Error> {
        let doomed = self.gate.doomed();
        if doomed.is_some() {
            // Found out only by taking the lock: a statement panicked.
            return doomed;
        }
        if !link.in_transaction() {
            self.gate.ended(self.alias());
        } else if link.aborted() {
            let text = "the database had aborted the transaction before COMMIT";
            self.doom(1, Failure::new(FailureClass::Other, text));
        }
        let doomed = self.gate.doomed();
        // In the transaction, where no other process can change a file's journal any more.
        if doomed.is_none() { link.examine().err() } else { doomed }
    }

    /// COMMIT failed: finds out what that means.
    #[cold]
    fn commit_failed(&self, mut lease: Lease<B>, error: DieselError) -> Outcome {
        lease.note_stale(&error);
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
            return Outcome::RolledBack(Error::implicit_commit(self.alias().clone()));
        }
        Outcome::RolledBack(named(error, self.alias()).into())
    }

    /// Runs what belongs to the end of the transaction. Its gate is closed by then.
    fn at_end<T>(&self, work: impl FnOnce(&mut Link<B>) -> QueryResult<T>) -> Result<T> {
        let mut state = self.lock()?;
        if matches!(state.phase, Phase::Finished | Phase::Closed) {
            return Err(Error::Closed { database: self.alias().clone() });
        }
        if state.levels.begun() {
            if let Some(error) = self.objection(state.link()) {
                return Err(error);
            }
        } else {
            self.materialise(&mut state, 1)?;
        }
        let link = state.link();
        let result = work(link);
        self.settle(link, result.as_ref().err())?;
        result.map_err(|error| explained(named(error, self.alias()).into(), self.alias()))
    }

    fn roll_back_open(&self, mut lease: Lease<B>, begun: bool, start: &Start) -> Result<()> {
        if !begun && !lease.in_transaction() {
            drop(lease);
            return Ok(());
        }
        if lease.may_have_ended() {
            let is_undone = lease.roll_back_what_is_left();
            drop(lease);
            if !is_undone {
                self.gate.ended_by_ddl();
                let alias = self.alias();
                tracing::error!(target: TARGET, %alias, "a DDL has committed a transaction that was to be rolled back");
            }
            return Ok(());
        }
        let result = lease.control([Control::Rollback(start)]);
        let Err(error) = result else {
            drop(lease);
            return Ok(());
        };
        let message = error.to_string();
        // Without the tripwire this one succeeds, and leaves the connection fit for the pool. SQLite may have rolled back
        // by itself, and Diesel has found that out by now; a database in memory would be lost with its connection.
        let is_over =
            |lease: &mut Lease<B>| !lease.in_transaction() || lease.control([Control::Rollback(&PLAIN)]).is_ok();
        if !lease.alive() || start.xa().is_some() || !is_over(&mut lease) {
            lease.break_off();
        }
        drop(lease);
        // A deadlock takes the savepoint away as well; then the transaction was undone, which is what was wanted.
        let first = self.gate.failure().map(|first| first.class());
        let undone = first.is_some_and(|class| B::FAILURES_MAY_UNDO_ALL || class.undoes_all());
        if B::is_implicit_commit(&message) && !undone {
            // What ran before it may be permanent: it is not run again, and no hook runs.
            self.gate.ended(self.alias());
            return Err(Error::implicit_commit(self.alias().clone()));
        }
        Err(named(error, self.alias()).into())
    }
}

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

    fn is_in_use(&self) -> bool {
        matches!(self.state.try_lock(), Err(TryLockError::WouldBlock))
    }

    fn release(&self, depth: u32, widen: Option<Limits>) -> Result<()> {
        self.end_level(depth, widen, |levels| levels.release(depth))
    }

    fn roll_back_to(&self, depth: u32, widen: Option<Limits>) -> Result<()> {
        self.end_level(depth, widen, |levels| levels.roll_back(depth))
    }

    fn can_commit(&self) -> Result<()> {
        self.at_end(|_| Ok(()))
    }

    fn commit(&self) -> Outcome {
        let mut state = match self.lock() {
            Ok(state) => state,
            // The connection is discarded with the cursor that holds it, which rolls back.
            Err(error) => return Outcome::RolledBack(error),
        };
        let State { phase, levels, start, .. } = &mut *state;
        let failed = match phase {
            // Used where it is, since it is large to move. Nothing of the user's can panic here.
            Phase::Open(lease) if levels.begun() || lease.holds_branch() => match self.objection(lease) {
                Some(objection) => Err(Ok(objection)),
                None => lease.control_alone(Control::Commit(start)).map_err(Err),
            },
            // Or it was only asked what its database is.
            Phase::Open(_) | Phase::Lazy | Phase::Finished => Ok(()),
            // Ended already, and not by a commit of this transaction.
            Phase::Closed => return Outcome::RolledBack(Error::Closed { database: self.alias().clone() }),
        };
        let Err(failure) = failed else {
            *phase = Phase::Closed;
            return Outcome::Committed;
        };
        let Phase::Open(lease) = std::mem::replace(phase, Phase::Closed) else {
            unreachable!("only an open one has failed")
        };
        match failure {
            Ok(objection) => {
                let _ = self.roll_back_open(lease, true, start);
                Outcome::RolledBack(objection)
            }
            Err(error) => self.commit_failed(lease, error),
        }
    }

    fn roll_back(&self) -> Result<()> {
        let mut state = self.lock()?;
        let begun = state.levels.begun();
        if begun && self.gate.failure().is_some_and(|first| first.class() == FailureClass::LockTimeout) {
            self.pool().congest();
        }
        let State { phase, start, .. } = &mut *state;
        match std::mem::replace(phase, Phase::Closed) {
            Phase::Open(lease) => self.roll_back_open(lease, begun, start),
            Phase::Lazy | Phase::Finished | Phase::Closed => Ok(()),
        }
    }

    fn limit_locks(&self, limited: bool) -> Result<()> {
        let Some([limit, free]) = B::LOCAL_LOCK_LIMIT else { return Ok(()) };
        // It comes with a scope's `timeout` there, and goes with it.
        let by_timeout = B::SYNTAX == Syntax::Mysql && self.gate.limits().0.timeout.is_some();
        if by_timeout || self.lock().is_ok_and(|state| state.start.limits_locks()) {
            // It has one for as long as it is open, and must keep it.
            return Ok(());
        }
        let sql = if limited { limit } else { free };
        let set = |link: &mut Link<B>| {
            link.note_limits();
            link.raw().batch_execute(sql)
        };
        self.run(set).map_err(Error::from)
    }

    fn execute_own(&self, sql: &str, binds: &[&str]) -> Result<usize> {
        self.execute_own_in(0, sql, binds)
    }

    fn load_own(&self, sql: &str, binds: &[&str]) -> Result<Vec<TextRow>> {
        self.load_own_in(0, sql, binds)
    }

    fn execute_own_in(&self, file: usize, sql: &str, binds: &[&str]) -> Result<usize> {
        self.run(|link| link.own(|raw, born| B::execute_own_in(raw, born, file, sql, binds))).map_err(Error::from)
    }

    fn load_own_in(&self, file: usize, sql: &str, binds: &[&str]) -> Result<Vec<TextRow>> {
        self.run(|link| link.own(|raw, born| B::load_own_in(raw, born, file, sql, binds))).map_err(Error::from)
    }

    fn take_ahead(&self, only_if_short: bool) -> Result<()> {
        // One that is in use has its connection.
        let Ok(mut state) = self.state.try_lock() else { return Ok(()) };
        if !matches!(state.phase, Phase::Lazy) {
            return Ok(());
        }
        if !only_if_short {
            return self.take_connection(&mut state);
        }
        if let Some(lease) = self.pool().lease_if_short(self.gate.site())? {
            state.open_on(lease);
        }
        Ok(())
    }

    fn reopen(&self) {
        self.open.store(0, Ordering::Relaxed);
        // A slot that a cursor still holds is not ended, and stays as it is.
        if let Ok(mut state) = self.lock()
            && matches!(state.phase, Phase::Closed | Phase::Finished)
        {
            state.phase = Phase::Lazy;
            state.levels = Levels::default();
            // A name is never used again.
            state.start.tripwire = true;
            if let Some(joint) = &mut state.start.across {
                joint.xa = None;
            }
        }
    }

    fn identity(&self) -> Result<Arc<Identity>> {
        let mut state = self.lock()?;
        let mut left = self.pool().settings().pool.max_size;
        loop {
            let fresh = !state.levels.begun();
            match state.phase {
                Phase::Lazy => self.take_connection(&mut state)?,
                Phase::Open(_) => {}
                Phase::Finished | Phase::Closed => return Err(Error::Closed { database: self.alias().clone() }),
            }
            let link = state.link();
            let error = match link.identity() {
                Ok(identity) => return Ok(identity),
                Err(error) => error,
            };
            if !fresh {
                self.record(link, &error);
            } else if !link.alive() && left > 0 {
                // As at a BEGIN: nothing was lost.
                left -= 1;
                state.phase = Phase::Lazy;
                continue;
            }
            return Err(explained(named(error, self.alias()).into(), self.alias()));
        }
    }

    fn go_across(&self, name: &Arc<str>, xa: Option<Gid>) -> Result<()> {
        let mut state = self.lock()?;
        let begun = state.levels.begun();
        let State { phase, start, .. } = &mut *state;
        let joint = Joint { name: Arc::clone(name), xa: xa.filter(|_| !begun) };
        start.across = Some(Box::new(joint));
        match phase {
            Phase::Open(lease) if begun => {
                if let Some(reason) = B::indecisive(lease.raw())? {
                    let databases = vec![self.alias().clone()];
                    let remedies = "list the models of all its databases in the outermost scope, or set \
                                    `sqlite.synchronous` to `full`";
                    return Err(Error::NotAtomic {
                        databases,
                        reason: format!("`{}` would hold the decision, and {reason}", self.alias()),
                        remedies: remedies.into(),
                    });
                }
                let result = lease.control([Control::Across(name)]);
                self.settle(lease, result.as_ref().err())?;
                Ok(result?)
            }
            _ => Ok(()),
        }
    }

    fn is_opaque(&self) -> bool {
        match self.lock() {
            Ok(state) => matches!(&state.phase, Phase::Open(lease) if lease.is_opaque()),
            Err(_) => true,
        }
    }

    fn has_only_read(&self) -> bool {
        let Ok(mut state) = self.lock() else { return false };
        let State { phase: Phase::Open(lease), changes: Some(before), .. } = &mut *state else { return false };
        lease.changes().is_some_and(|now| now == *before)
    }

    fn execute_at_end(&self, sql: &str, binds: &[&str]) -> Result<usize> {
        self.at_end(|link| link.own(|raw, born| B::execute_own(raw, born, sql, binds)))
    }

    fn put_back(&self) -> Result<()> {
        self.at_end(Link::put_back)
    }

    fn before_decision(&self) -> Result<()> {
        self.at_end(|_| Ok(()))?;
        let mut state = self.lock()?;
        let State { phase: Phase::Open(lease), start, .. } = &mut *state else {
            return Err(Error::Closed { database: self.alias().clone() });
        };
        let result = lease.control([Control::Decide(start)]);
        start.tripwire = false;
        let Err(error) = result else { return Ok(()) };
        self.settle(lease, Some(&error))?;
        if B::is_implicit_commit(&error.to_string()) {
            self.gate.ended(self.alias());
            return Err(Error::implicit_commit(self.alias().clone()));
        }
        Err(error.into())
    }

    fn sync_folder(&self) {
        if let Err(error) = B::sync_folder(self.pool().settings()) {
            tracing::error!(target: crate::telemetry::TARGET, alias = %self.alias(), %error, "the folder of the file could not be synced");
        }
    }

    fn prepare(&self, gid: &Gid) -> Result<(), NotPrepared> {
        let refused = |error| NotPrepared { error, in_doubt: false };
        let mut state = self.lock().map_err(refused)?;
        let State { phase: Phase::Open(lease), levels, start, .. } = &mut *state else {
            return Err(refused(Error::Closed { database: self.alias().clone() }));
        };
        if let Some(error) = self.objection(lease) {
            return Err(refused(error));
        }
        // Dropped before the second phase, the connection must not be handed out.
        lease.hold_for_branch(true);
        let result = lease.control([Control::Prepare(gid)]);
        *levels = Levels::default();
        let Err(error) = result else { return Ok(()) };
        let in_doubt = !lease.alive();
        let over = if in_doubt {
            false
        } else if start.xa().is_some() {
            lease.control([Control::RollbackPrepared(gid)]).is_ok()
        } else {
            lease.control([Control::Rollback(start)]).is_ok()
        };
        lease.hold_for_branch(!over);
        state.phase = Phase::Closed;
        let failure = Failure::of(&error).unwrap_or_else(|| Failure::new(FailureClass::Other, error.to_string()));
        let refused = if failure.class() == FailureClass::Other { B::not_prepared(failure.message()) } else { None };
        let error = match refused {
            Some(remedy) => Error::NotPreparable {
                database: self.alias().clone(),
                problem: format!("{}, so all of it was rolled back", failure.message()),
                remedy: remedy.into(),
            },
            None => explained(named(error, self.alias()).into(), self.alias()),
        };
        self.doom(1, failure);
        Err(NotPrepared { error, in_doubt })
    }

    fn take_prepared(&self) -> Result<Box<dyn Prepared>> {
        let mut state = self.lock()?;
        match std::mem::replace(&mut state.phase, Phase::Finished) {
            Phase::Open(lease) => Ok(Box::new(PreparedLease { lease, alias: self.alias().clone() })),
            ended => {
                state.phase = ended;
                Err(Error::Closed { database: self.alias().clone() })
            }
        }
    }

    fn detach(&mut self) -> bool {
        // A cursor that keeps the lock, even a forgotten one, keeps the connection open too.
        match self.state.get_mut() {
            // What it begins with is set when it is used again.
            Ok(state) if !matches!(state.phase, Phase::Open(_)) => state.refresh(),
            _ => return false,
        }
        *self.open.get_mut() = 0;
        self.pool = None;
        true
    }
}

/// The connection of a prepared branch, taken out of its slot.
struct PreparedLease<B: Dialect> {
    lease: Lease<B>,
    alias: Alias,
}

impl<B: Dialect> Prepared for PreparedLease<B> {
    fn alias(&self) -> &Alias {
        &self.alias
    }

    fn hand_over(&self) {
        self.lease.hand_over();
    }

    fn finish(mut self: Box<Self>, gid: &Gid, commit: bool) -> Result<()> {
        let control = if commit { Control::CommitPrepared(gid) } else { Control::RollbackPrepared(gid) };
        self.lease.control([control])?;
        self.lease.hold_for_branch(false);
        Ok(())
    }
}
