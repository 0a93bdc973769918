//! Scopes as closures.

use std::marker::PhantomData;

use super::open::Target;
use super::open_scope::Scope;
use super::options::{HookErrors, Options, Propagation};
use super::run::run_scope;
use crate::alias::Alias;
use crate::databases::Databases;
use crate::error::Error;
use crate::handle::Handle;
use crate::model::{Model, Models};
use crate::site::Site;

/// A scope on the database that `M` is routed to: the closure form of `#[transactional(M)]`.
///
/// ```no_run
/// # #[derive(multidb::Model)] #[model(app = "bank")] struct Account;
/// # fn pay(_: &mut multidb::SqliteConn) -> Result<(), multidb::Error> { Ok(()) }
/// use multidb::{SqliteConn, atomic};
///
/// atomic::<Account>().run(|conn: &mut SqliteConn| pay(conn))?;
/// # Ok::<(), multidb::Error>(())
/// ```
#[track_caller]
pub fn atomic<M: Model>() -> Atomic {
    Atomic::new(Target::model::<M>())
}

/// A scope on a database by its name.
#[track_caller]
pub fn atomic_on(alias: impl Into<Alias>) -> Atomic {
    Atomic::new(Target::alias(alias))
}

/// A scope on the database that an application is routed to.
#[track_caller]
pub fn atomic_app(app: &'static str) -> Atomic {
    Atomic::new(Target::app(app))
}

/// A scope over several models.
#[track_caller]
pub fn atomic_many<M: Models>() -> AtomicMany<M> {
    AtomicMany { site: Site::call("atomic_many"), options: Options::new(), models: PhantomData }
}

/// A scope to be run, with its options.
#[derive(Debug, Clone)]
#[must_use = "a scope does nothing until `run`"]
pub struct Atomic {
    site: Site,
    target: Target,
    options: Options,
}

impl Atomic {
    #[track_caller]
    fn new(target: Target) -> Self {
        Self { site: Site::call("atomic"), target, options: Options::new() }
    }

    /// How the scope relates to an open transaction.
    pub fn propagation(mut self, propagation: Propagation) -> Self {
        self.options = self.options.propagation(propagation);
        self
    }

    /// The body commits and rolls back by itself, with `scope::commit` and `scope::rollback`.
    pub fn manual(mut self) -> Self {
        self.options = self.options.manual();
        self
    }

    /// What becomes of the error of a hook.
    pub fn hook_errors(mut self, hook_errors: HookErrors) -> Self {
        self.options = self.options.hook_errors(hook_errors);
        self
    }

    /// Uses this registry in place of the entered or installed one.
    pub fn databases(mut self, databases: impl Into<Databases>) -> Self {
        self.options = self.options.databases(databases);
        self
    }

    /// Runs `body` and commits when it returns `Ok`; rolls back when it returns `Err` or panics.
    ///
    /// # Errors
    /// Those of `body`, and those of opening and committing the scope.
    pub fn run<H: Handle, T, E: From<Error>>(self, body: impl FnOnce(&mut H) -> Result<T, E>) -> Result<T, E> {
        run_scope(self.site, &[self.target], self.options, |scope| body(&mut scope.handle::<H>(0)?))
    }
}

/// A scope over several models, to be run.
#[derive(Debug, Clone)]
#[must_use = "a scope does nothing until `run`"]
pub struct AtomicMany<M> {
    site: Site,
    options: Options,
    models: PhantomData<fn() -> M>,
}

impl<M: Models> AtomicMany<M> {
    /// How the scope relates to an open transaction.
    pub fn propagation(mut self, propagation: Propagation) -> Self {
        self.options = self.options.propagation(propagation);
        self
    }

    /// The body commits and rolls back by itself, with `scope::commit` and `scope::rollback`.
    pub fn manual(mut self) -> Self {
        self.options = self.options.manual();
        self
    }

    /// What becomes of the error of a hook.
    pub fn hook_errors(mut self, hook_errors: HookErrors) -> Self {
        self.options = self.options.hook_errors(hook_errors);
        self
    }

    /// Uses this registry in place of the entered or installed one.
    pub fn databases(mut self, databases: impl Into<Databases>) -> Self {
        self.options = self.options.databases(databases);
        self
    }

    /// Runs `body` and commits when it returns `Ok`; rolls back when it returns `Err` or panics.
    ///
    /// # Errors
    /// Those of `body`, and those of opening and committing the scope.
    pub fn run<T, E: From<Error>>(self, body: impl FnOnce(&Scope<'_>) -> Result<T, E>) -> Result<T, E> {
        let targets: Vec<Target> = M::infos().into_iter().map(Target::Model).collect();
        run_scope(self.site, &targets, self.options, body)
    }
}
