//! Runs a program with the library, and writes down what happened.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;

use diesel::connection::{Connection, SimpleConnection};
use multidb::{
    AnyConn, Error, Isolation, MysqlConn, PgConn, Propagation, SqliteConn, atomic_many, atomic_on, connection_on, scope,
};

use super::ground::{ALIASES, Bank, Ground, Ledger};
use super::history::{Came, History, Hook, Kind, OUTSIDE, Sent, Verb, says};
use super::program::{Action, Ending, Mark, Moment, On, Program, Scope, Step};
use super::trouble::{Grenade, Holder};
use crate::fixture;

/// An error type as users write them.
#[derive(Debug, thiserror::Error)]
pub(super) enum Mishap {
    #[error("on purpose")]
    OnPurpose,
    #[error(transparent)]
    Database(#[from] Error),
}

impl From<diesel::result::Error> for Mishap {
    fn from(error: diesel::result::Error) -> Self {
        // One of the library's may be carried inside.
        Self::Database(error.into())
    }
}

pub(super) type Ran<T = ()> = Result<T, Mishap>;

/// What a step panics with, so that no message is printed.
pub(super) struct OnPurpose;

pub(super) struct Run<'a> {
    pub(super) ground: &'a Ground,
    history: Rc<RefCell<History>>,
    /// The level that the program is in.
    here: Cell<usize>,
    next: &'a Cell<i64>,
    /// The first id of the program.
    first: i64,
}

/// With `$conn`, a handle that fits the site, whatever its kind.
macro_rules! handle {
    ($run:expr, $site:expr, $conn:ident => $body:expr) => {
        match $run.ground.sites[$site].kind {
            fixture::Kind::Postgres => {
                let $conn = &mut connection_on::<PgConn>(ALIASES[$site])?;
                $body
            }
            fixture::Kind::Mysql => {
                let $conn = &mut connection_on::<MysqlConn>(ALIASES[$site])?;
                $body
            }
            fixture::Kind::Sqlite => {
                let $conn = &mut connection_on::<SqliteConn>(ALIASES[$site])?;
                $body
            }
        }
    };
}
pub(super) use handle;

/// Runs a program. The ids of its rows come from `next`.
pub(super) fn run(ground: &Ground, program: &Program, next: &Cell<i64>) -> History {
    let history = Rc::new(RefCell::new(History::new()));
    let run = Run { ground, history: Rc::clone(&history), here: Cell::new(OUTSIDE), next, first: next.get() };
    // Its result is in the history.
    let _ = catching(|| run.steps(&program.steps));
    drop(run);
    // Hooks that never ran are gone with their transactions.
    Rc::try_unwrap(history).expect("no transaction is open any more").into_inner()
}

/// The outer result is an error where the body panicked on purpose.
pub(super) fn catching<T>(body: impl FnOnce() -> Ran<T>) -> Result<Ran<T>, ()> {
    catch_unwind(AssertUnwindSafe(body)).map_err(|panic| {
        if !panic.is::<OnPurpose>() {
            resume_unwind(panic);
        }
    })
}

fn came<T>(result: &Result<Ran<T>, ()>) -> Came {
    match result {
        Ok(Ok(_)) => Came::Ok,
        Ok(Err(Mishap::OnPurpose)) => Came::Err(super::history::Says::Nothing, "on purpose".into()),
        Ok(Err(Mishap::Database(error))) => Came::Err(says(error), error.to_string()),
        Err(()) => Came::Panic,
    }
}

fn passed_on<T>(result: Result<Ran<T>, ()>) -> Ran<T> {
    result.unwrap_or_else(|()| resume_unwind(Box::new(OnPurpose)))
}

impl Run<'_> {
    pub(super) fn id(&self) -> i64 {
        self.next.set(self.next.get() + 1);
        self.next.get()
    }

    fn steps(&self, steps: &[Step]) -> Ran {
        for step in steps {
            let result = catching(|| self.step(&step.action));
            match result {
                _ if step.tolerant => {}
                Ok(result) => result?,
                Err(()) => resume_unwind(Box::new(OnPurpose)),
            }
        }
        Ok(())
    }

    fn step(&self, action: &Action) -> Ran {
        match action {
            Action::Insert(site, how) => self.insert(*site, *how),
            Action::Send(site, channel, text) => self.send(*site, *channel, text),
            Action::PanicInBind(site) => self.panic_in_bind(*site),
            Action::Panic => resume_unwind(Box::new(OnPurpose)),
            Action::Fail => Err(Mishap::OnPurpose),
            Action::Stumble(site) => self.stumble(*site),
            Action::Scope(scope, steps) => self.scope(scope, steps),
            Action::Transaction(site, steps) => self.transaction(*site, steps),
            Action::Savepoint(ending, steps) => self.savepoint(*ending, steps),
            Action::Stream(site, steps) => self.stream(*site, || self.steps(steps)),
            Action::SetRollback(undone) => self.set_rollback(*undone),
            Action::Commit => self.end(Verb::Commit),
            Action::RollBack => self.end(Verb::RollBack),
            Action::Hooks => {
                self.hooks();
                Ok(())
            }
            Action::Explode(site, moment) => self.explode(*site, *moment),
            Action::Wait(site, relief, steps) => {
                let site = &self.ground.sites[*site];
                let _holder = (!site.in_memory).then(|| Holder::of(site, *relief));
                self.steps(steps)
            }
            Action::Kill(site) => {
                self.ground.kill(*site);
                Ok(())
            }
        }
    }

    fn explode(&self, site: usize, moment: Moment) -> Ran {
        let id = self.id();
        let sql = self.ground.sites[site].fill("INSERT INTO {t} (id) VALUES ({0})", &[id]);
        self.sent(site, &sql, true, vec![(id, Mark::Put)], || {
            handle!(self, site, conn => {
                conn.set_instrumentation(Grenade(moment));
                conn.batch_execute(&sql)?;
            });
            Ok(())
        })
    }

    /// Writes a statement down, with what it returned.
    pub(super) fn sent(
        &self,
        site: usize,
        what: &str,
        single: bool,
        marks: Vec<(i64, Mark)>,
        body: impl FnOnce() -> Ran,
    ) -> Ran {
        let at = {
            let mut history = self.history.borrow_mut();
            let (at, level) = (history.tick(), self.here.get());
            history.sent.push(Sent { at, level, site, what: what.to_owned(), single, marks, came: Came::Not });
            history.sent.len() - 1
        };
        let result = catching(body);
        self.history.borrow_mut().sent[at].came = came(&result);
        passed_on(result)
    }

    /// Fails in the first attempt of the transaction in a way that may pass.
    fn stumble(&self, site: usize) -> Ran {
        let first = {
            let history = self.history.borrow();
            let transaction = history.transaction_of(self.here.get());
            let parent = transaction.map(|level| history.levels[level].parent);
            !history.levels.iter().any(|level| level.repeated && Some(level.parent) == parent)
        };
        if !first {
            return Ok(());
        }
        let sql = match self.ground.sites[site].kind {
            fixture::Kind::Postgres => "DO $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '40001'; END $$",
            fixture::Kind::Mysql => {
                "SIGNAL SQLSTATE '40001' SET MYSQL_ERRNO = 1213, MESSAGE_TEXT = 'Deadlock found when trying to get lock'"
            }
            fixture::Kind::Sqlite => "INSERT INTO {t}_trap VALUES (1)",
        };
        let sql = self.ground.sites[site].fill(sql, &[]);
        self.sent(site, &sql, true, Vec::new(), || handle!(self, site, conn => Ok(conn.batch_execute(&sql)?)))
    }

    /// Whether a scope that is opened here is a transaction of its own, or another kind of level; `None` where it is refused.
    fn kind(&self, propagation: Propagation) -> Option<Kind> {
        let inside = self.history.borrow().transaction_of(self.here.get()).is_some();
        Some(match (propagation, inside) {
            (Propagation::Nested, true) => Kind::Nested,
            (Propagation::Join | Propagation::Mandatory | Propagation::Supports, true) => Kind::Joined,
            (Propagation::Durable | Propagation::Never, true) | (Propagation::Mandatory, false) => return None,
            (Propagation::Supports | Propagation::Never, false) | (Propagation::NotSupported, _) => Kind::Autocommit,
            _ => Kind::Transaction,
        })
    }

    fn scope(&self, scope: &Scope, steps: &[Step]) -> Ran {
        // What is refused has no level: if its body runs all the same, its rows must be those of no transaction.
        let kind = self.kind(scope.propagation).unwrap_or(Kind::Autocommit);
        let manual = scope.manual && kind == Kind::Transaction;
        let ran = Cell::new(None);
        let result = catching(|| {
            self.levelled(kind, scope.read_only, manual, |body| {
                self.open(scope, manual, || {
                    ran.set(Some(self.history.borrow().levels.len()));
                    body(&|| self.steps(steps))
                })
            })
        });
        if let Some(key) = scope.key {
            // Each database has keys of its own.
            let key = format!("{key} on {:?}", scope.on);
            self.history.borrow_mut().keyed.push((key, ran.get(), came(&result)));
        }
        passed_on(result)
    }

    fn open(&self, scope: &Scope, manual: bool, mut body: impl FnMut() -> Ran) -> Ran {
        macro_rules! options {
            ($scope:expr) => {{
                let mut opened = $scope.propagation(scope.propagation);
                if manual {
                    opened = opened.manual();
                }
                if scope.read_only {
                    opened = opened.read_only();
                }
                if scope.serializable {
                    opened = opened.isolation(Isolation::Serializable);
                }
                if scope.verified {
                    opened = opened.verify_commit();
                }
                opened
            }};
        }
        let repeats = scope.retry > 0 && !manual;
        let key = scope.key.map(|key| format!("{}-{key}", self.first));
        match scope.on {
            On::One(site) => {
                let opened = options!(atomic_on(ALIASES[site]));
                match key {
                    Some(key) => opened.retry(scope.retry).once(key).run(|_: &mut AnyConn| body()),
                    None if repeats => opened.retry(scope.retry).run(|_: &mut AnyConn| body()),
                    None => opened.run(|_: &mut AnyConn| body()),
                }
            }
            On::Both => {
                let opened = options!(atomic_many::<(Bank, Ledger)>()).commit(scope.commit);
                match key {
                    Some(key) => opened.retry(scope.retry).once(key).run(|_| body()),
                    None if repeats => opened.retry(scope.retry).run(|_| body()),
                    None => opened.run(|_| body()),
                }
            }
        }
    }

    /// Runs what opens a level, and gives it a body that it may run several times. Each time is a level of its own.
    fn levelled(
        &self,
        kind: Kind,
        read_only: bool,
        manual: bool,
        open: impl FnOnce(&mut dyn FnMut(&dyn Fn() -> Ran) -> Ran) -> Ran,
    ) -> Ran {
        let parent = self.here.get();
        let last = Cell::new(None);
        let result = catching(|| {
            open(&mut |steps| {
                let level = {
                    let mut history = self.history.borrow_mut();
                    if let Some(earlier) = last.get() {
                        let earlier: usize = earlier;
                        history.levels[earlier].repeated = true;
                    }
                    history.open(parent, kind, read_only, manual)
                };
                last.set(Some(level));
                self.here.set(level);
                let ran = catching(steps);
                self.here.set(parent);
                passed_on(ran)
            })
        });
        self.here.set(parent);
        if let Some(level) = last.get() {
            self.history.borrow_mut().close(level, came(&result));
        }
        passed_on(result)
    }

    fn transaction(&self, site: usize, steps: &[Step]) -> Ran {
        let kind = self.kind(Propagation::Nested).unwrap_or(Kind::Nested);
        let allows_ddl = kind == Kind::Transaction && self.ground.sites[site].kind == fixture::Kind::Mysql;
        self.levelled(kind, false, false, |body| {
            handle!(self, site, conn => conn.transaction(|_| body(&|| {
                self.history.borrow_mut().levels[self.here.get()].allows_ddl = allows_ddl;
                self.steps(steps)
            })))
        })
    }

    fn savepoint(&self, ending: Ending, steps: &[Step]) -> Ran {
        let savepoint = scope::savepoint("a")?;
        self.levelled(Kind::Savepoint, false, false, |body| {
            body(&|| self.steps(steps))?;
            match ending {
                Ending::Release => savepoint.release()?,
                Ending::RollBack => savepoint.rollback()?,
                Ending::Drop => {}
            }
            Ok(())
        })?;
        if ending == Ending::RollBack {
            let mut history = self.history.borrow_mut();
            let last = history
                .levels
                .iter()
                .rposition(|level| level.kind == Kind::Savepoint && level.parent == self.here.get());
            history.levels[last.unwrap()].undone = true;
        }
        Ok(())
    }

    fn set_rollback(&self, undone: bool) -> Ran {
        scope::set_rollback(undone)?;
        let mut history = self.history.borrow_mut();
        let here = self.here.get();
        if matches!(history.levels[here].kind, Kind::Joined | Kind::Savepoint) {
            let around: Vec<usize> = history.all_around(here).collect();
            for at in around {
                history.levels[at].unsure = true;
            }
        } else {
            history.levels[here].undone = undone;
        }
        Ok(())
    }

    fn end(&self, verb: Verb) -> Ran {
        let result = catching(|| match verb {
            Verb::Commit => Ok(scope::commit()?),
            Verb::RollBack => Ok(scope::rollback()?),
        });
        let mut history = self.history.borrow_mut();
        if let Some(transaction) = history.transaction_of(self.here.get()) {
            let when = history.tick();
            let came = came(&result);
            if came.is_ok() {
                history.levels[transaction].undone = false;
            }
            history.ends.push((when, transaction, verb, came));
        }
        drop(history);
        passed_on(result)
    }

    fn hooks(&self) {
        let at = {
            let mut history = self.history.borrow_mut();
            let (at, level) = (history.tick(), self.here.get());
            history.hooks.push(Hook { at, level, ran: [0, 0] });
            history.hooks.len() - 1
        };
        let (committed, rolled_back) = (Rc::clone(&self.history), Rc::clone(&self.history));
        scope::on_commit(move || committed.borrow_mut().hooks[at].ran[0] += 1);
        scope::on_rollback(move || rolled_back.borrow_mut().hooks[at].ran[1] += 1);
    }
}
