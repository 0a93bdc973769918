//! A random program, run by the library.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;

use multidb::scope::{self, on_commit, on_rollback};
use multidb::{AnyConn, Propagation, atomic, atomic_many, connection};

use super::tree::{Action, End, Lists, Scope, Step};
use super::*;

/// Runs a program, and tells what happened in which order.
pub(super) fn run(program: &Scope) -> Vec<String> {
    let run = Rc::new(Run { journal: RefCell::default(), ids: Cell::new(0) });
    let result = catching(|| run.scope(program));
    run.note(&told(&result));
    run.journal.take()
}

struct Run {
    journal: RefCell<Vec<String>>,
    /// The last id that was given out, for rows and hooks.
    ids: Cell<i64>,
}

/// What a step panics with, so that no message is printed.
struct OnPurpose;

/// The outer result is an error where the body panicked.
fn catching(body: impl FnOnce() -> Ran) -> Result<Ran, ()> {
    catch_unwind(AssertUnwindSafe(body)).map_err(|panic| {
        if !panic.is::<OnPurpose>() {
            resume_unwind(panic);
        }
    })
}

fn told(result: &Result<Ran, ()>) -> String {
    result.as_ref().map_or_else(|()| "panic".into(), word)
}

impl Run {
    fn next(&self) -> i64 {
        self.ids.set(self.ids.get() + 1);
        self.ids.get()
    }

    /// Notes what happened, and how things are now.
    fn note(&self, what: &str) {
        let doomed = if scope::is_doomed() { " doomed" } else { "" };
        self.journal.borrow_mut().push(format!("{what} @{}{doomed}", scope::depth()));
    }

    fn steps(self: &Rc<Self>, steps: &[Step]) -> Ran {
        for step in steps {
            let result = catching(|| self.step(&step.action));
            self.note(&told(&result));
            match result {
                _ if step.tolerant => {}
                Ok(result) => result?,
                Err(()) => resume_unwind(Box::new(OnPurpose)),
            }
        }
        Ok(())
    }

    fn step(self: &Rc<Self>, action: &Action) -> Ran {
        match action {
            Action::Put(model) => self.put(*model),
            Action::Refused(model) => put(*model, TAKEN),
            Action::Hooks(model) => {
                self.hooks(*model);
                Ok(())
            }
            Action::SetRollback(undone) => Ok(scope::set_rollback(*undone)?),
            Action::Commit => Ok(scope::commit()?),
            Action::RollBack => Ok(scope::rollback()?),
            Action::Fail => Err(Mishap::OnPurpose),
            Action::Panic => resume_unwind(Box::new(OnPurpose)),
            Action::Scope(scope) => self.scope(scope),
            Action::Transaction(model, steps) => self.transaction(*model, steps),
            Action::Savepoint(end, steps) => self.savepoint(*end, steps),
        }
    }

    fn put(&self, model: usize) -> Ran {
        put(model, self.next())
    }

    fn hooks(self: &Rc<Self>, model: Option<usize>) {
        let name = self.next();
        let (committed, rolled_back) = (Rc::clone(self), Rc::clone(self));
        on_commit(move || {
            let put = model.map(|model| {
                word(&committed.scope(&Scope {
                    lists: Lists::One(model),
                    propagation: Propagation::Nested,
                    manual: false,
                    steps: vec![Step { action: Action::Put(model), tolerant: false }],
                }))
            });
            committed.note(&format!("c{name} {}", put.unwrap_or_default()));
        });
        on_rollback(move || rolled_back.note(&format!("r{name}")));
    }

    fn scope(self: &Rc<Self>, scope: &Scope) -> Ran {
        let Scope { lists, propagation, manual, steps } = scope;
        let scope = match lists {
            Lists::One(0) => atomic::<Account>(),
            Lists::One(1) => atomic::<Entry>(),
            Lists::One(_) => atomic::<Audit>(),
            Lists::All => {
                let scope = atomic_many::<(Account, Entry, Audit)>().propagation(*propagation);
                let scope = if *manual { scope.manual() } else { scope };
                return scope.run(|_| self.steps(steps));
            }
        };
        let scope = scope.propagation(*propagation);
        let scope = if *manual { scope.manual() } else { scope };
        scope.run(|_: &mut AnyConn| self.steps(steps))
    }

    fn transaction(self: &Rc<Self>, model: usize, steps: &[Step]) -> Ran {
        if scope::depth() == 0 {
            return Ok(());
        }
        handle(model)?.transaction(|_| self.steps(steps))
    }

    fn savepoint(self: &Rc<Self>, end: End, steps: &[Step]) -> Ran {
        let savepoint = scope::savepoint("a")?;
        self.steps(steps)?;
        match end {
            End::Release => Ok(savepoint.release()?),
            End::RollBack => Ok(savepoint.rollback()?),
            End::Drop => Ok(()),
        }
    }
}

fn put(model: usize, id: i64) -> Ran {
    match model {
        0 => insert::<Account>(id),
        1 => insert::<Entry>(id),
        _ => insert::<Audit>(id),
    }
}

fn handle(model: usize) -> Ran<AnyConn> {
    Ok(match model {
        0 => connection::<Account, AnyConn>()?,
        1 => connection::<Entry, AnyConn>()?,
        _ => connection::<Audit, AnyConn>()?,
    })
}
