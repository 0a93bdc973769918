//! Scopes as closures.

use std::any::type_name_of_val;
use std::fmt::Debug;
use std::marker::PhantomData;
use std::panic::Location;
use std::time::Duration;

use super::once::{Once, OnceKey, Stored};
use super::open::Target;
use super::open_scope::Scope;
use super::options::{Acknowledge, CommitMode, HookErrors, Options, Propagation};
use super::places::Owner;
use super::repeat::{Repetition, run_repeatedly, take};
use super::run::{Returned, run_scope};
use crate::alias::Alias;
use crate::connection::characteristics::Isolation;
use crate::databases::Databases;
use crate::error::{Error, Result};
use crate::handle::Handle;
use crate::model::{Model, Models};
use crate::site::{Call, Site};

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
    let site = Site::call(Call::AtomicMany);
    AtomicMany { site, options: Options::new(), repeat: Single, keyed: Always, models: PhantomData }
}

/// A body that is run at most once by each call, so it may consume what it captures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Single;

/// A body that may be run again, after `retry`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repeat {
    retries: u32,
}

/// A scope without an idempotency key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Always;

/// A scope with an idempotency key, after `once`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keyed<K> {
    key: K,
}

/// A scope to be run, with its options.
#[derive(Debug, Clone)]
#[must_use = "a scope does nothing until `run`"]
pub struct Atomic<R = Single, K = Always> {
    site: Site,
    target: Target,
    options: Options,
    repeat: R,
    keyed: K,
}

/// A scope over several models, to be run.
#[derive(Debug, Clone)]
#[must_use = "a scope does nothing until `run`"]
pub struct AtomicMany<M, R = Single, K = Always> {
    site: Site,
    options: Options,
    repeat: R,
    keyed: K,
    models: PhantomData<fn() -> M>,
}

impl Atomic {
    #[track_caller]
    fn new(target: Target) -> Self {
        Self { site: Site::call(Call::Atomic), target, options: Options::new(), repeat: Single, keyed: Always }
    }
}

/// The options that both kinds of scope have. Their meaning is that of the attribute's keys.
macro_rules! options {
    () => {
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

        /// The isolation level: SQL's `SET TRANSACTION ISOLATION LEVEL`. Inside a transaction of a weaker one, or of none that
        /// is declared, a level above `ReadCommitted` is [`Error::OptionConflict`].
        pub fn isolation(mut self, isolation: Isolation) -> Self {
            self.options = self.options.isolation(isolation);
            self
        }

        /// Nothing may be written: SQL's `READ ONLY`, Spring's `readOnly`. The database enforces it, so that a read replica
        /// would do; the routers are asked with [`Access::Read`](crate::Access::Read). Inside a transaction that writes, this
        /// scope alone is read-only; a scope that is not, inside one that is, is [`Error::OptionConflict`].
        pub fn read_only(mut self) -> Self {
            self.options = self.options.read_only();
            self
        }

        /// PostgreSQL's `DEFERRABLE`: with `Serializable` and `read_only`, BEGIN waits for a snapshot that can't fail.
        /// [`Error::Unsupported`] on other databases.
        pub fn deferrable(mut self) -> Self {
            self.options = self.options.deferrable();
            self
        }

        /// SQLite's `BEGIN IMMEDIATE`: takes the write lock at once. Every scope that may write does so anyway.
        /// [`Error::Unsupported`] on other databases.
        pub fn immediate(mut self) -> Self {
            self.options = self.options.immediate();
            self
        }

        /// SQLite's `BEGIN EXCLUSIVE`: with a rollback journal nobody reads meanwhile. [`Error::Unsupported`] on other
        /// databases.
        pub fn exclusive(mut self) -> Self {
            self.options = self.options.exclusive();
            self
        }

        /// How long the scope may take: Spring's `timeout`. Looked at before each statement and before COMMIT, which are
        /// refused with [`Error::Doomed`] after it; the server ends a single statement after as long, and on SQLite a lock
        /// wait ends then.
        pub fn timeout(mut self, timeout: Duration) -> Self {
            self.options = self.options.timeout(timeout);
            self
        }

        /// A hint for the routers, such as the key of a shard: for this scope and all that it calls, as
        /// [`with_hint`](crate::with_hint) around the call.
        pub fn hint(mut self, value: impl std::any::Any + Send + Sync) -> Self {
            self.options = self.options.hint(value);
            self
        }

        /// A name for spans and events.
        pub fn label(mut self, label: &'static str) -> Self {
            self.options = self.options.label(label);
            self
        }

        /// Writes a row of the library's own with the transaction, so that a lost reply to COMMIT can be resolved by asking for
        /// it. Needs [`schema::install`](crate::schema::install).
        pub fn verify_commit(mut self) -> Self {
            self.options = self.options.verify_commit();
            self
        }

        /// What becomes of the error of a hook. Counts on the scope that opens the transaction; a nested one has no say.
        pub fn hook_errors(mut self, hook_errors: HookErrors) -> Self {
            self.options = self.options.hook_errors(hook_errors);
            self
        }

        /// How the transaction commits once it has written to several databases. The scope that opens the transaction decides;
        /// one inside it that wants another mode, or that lists several models and says nothing, is
        /// [`Error::OptionConflict`]. `BestEffort` with `once` or `verify_commit` is [`Error::Config`].
        pub fn commit(mut self, commit: CommitMode) -> Self {
            self.options = self.options.commit(commit);
            self
        }

        /// When the scope returns, where its transaction is committed on several databases. Counts on the scope that opens the
        /// transaction; a nested one has no say. `Decided` with `CommitMode::BestEffort`, which decides nothing, is
        /// [`Error::Config`].
        pub fn acknowledge(mut self, acknowledge: Acknowledge) -> Self {
            self.options = self.options.acknowledge(acknowledge);
            self
        }

        /// Uses this registry in place of the entered or installed one.
        pub fn databases(mut self, databases: impl Into<Databases>) -> Self {
            self.options = self.options.databases(databases);
            self
        }
    };
}

impl<R, K> Atomic<R, K> {
    options!();

    /// Runs the body up to `retries` times more, where the database says that this may help: a serialization failure, a
    /// deadlock, a lock timeout, a locked SQLite file, or a connection that was lost before COMMIT was sent. Counts on the
    /// scope that opens the transaction; inside another one the error goes there.
    ///
    /// Before each repetition there is a short wait. Hooks of failed attempts are dropped. What the body does outside of the
    /// database is done again.
    pub fn retry(self, retries: u32) -> Atomic<Repeat, K> {
        let Self { site, target, options, keyed, .. } = self;
        Atomic { site, target, options, repeat: Repeat { retries }, keyed }
    }

    /// Runs the body once for each key: a later call with it, from any process, returns the stored result. Needs
    /// [`schema::install`](crate::schema::install); see [`OnceKey`]. A key belongs to the label of the scope, or without one
    /// to the function that the closure stands in; a second closure there needs a label.
    pub fn once<N: OnceKey>(self, key: N) -> Atomic<R, Keyed<N>> {
        let Self { site, target, options, repeat, .. } = self;
        Atomic { site, target, options, repeat, keyed: Keyed { key } }
    }
}

impl<M: Models, R, K> AtomicMany<M, R, K> {
    options!();

    /// As [`Atomic::retry`].
    pub fn retry(self, retries: u32) -> AtomicMany<M, Repeat, K> {
        let Self { site, options, keyed, models, .. } = self;
        AtomicMany { site, options, repeat: Repeat { retries }, keyed, models }
    }

    /// As [`Atomic::once`]. The key lives in the database of the first model.
    pub fn once<N: OnceKey>(self, key: N) -> AtomicMany<M, R, Keyed<N>> {
        let Self { site, options, repeat, models, .. } = self;
        AtomicMany { site, options, repeat, keyed: Keyed { key }, models }
    }

    fn targets() -> Vec<Target> {
        M::infos().into_iter().map(Target::Model).collect()
    }
}

impl Atomic {
    /// Runs `body` and commits when it returns `Ok`; rolls back when it returns `Err` or panics.
    ///
    /// # Errors
    /// Those of `body`, and those of opening and committing the scope.
    pub fn run<H: Handle, T, E: From<Error> + Debug>(self, body: impl FnOnce(&mut H) -> Result<T, E>) -> Result<T, E> {
        run_scope(self.site, &[self.target], &self.options, |scope| body(&mut scope.handle::<H>(0)?))
    }
}

impl Atomic<Repeat> {
    /// Runs `body`, again where that may help. See [`Atomic::run`].
    ///
    /// # Errors
    /// Those of the last attempt.
    pub fn run<H: Handle, T, E: From<Error> + Debug>(
        self,
        mut body: impl FnMut(&mut H) -> Result<T, E>,
    ) -> Result<T, E> {
        let again = Repetition { retries: self.repeat.retries, once: None };
        run_repeatedly(self.site, &[self.target], &self.options, &again, |scope| body(&mut scope.handle::<H>(0)?))
    }
}

impl<N: OnceKey> Atomic<Single, Keyed<N>> {
    /// Runs `body` if its key is new. See [`Atomic::run`].
    ///
    /// # Errors
    /// As [`Atomic::run`], and [`Error::OnceMismatch`].
    #[track_caller]
    pub fn run<H: Handle, T, E>(self, body: impl FnOnce(&mut H) -> Result<T, E>) -> Result<T, E>
    where
        E: From<Error> + Debug,
        Result<T, E>: Stored,
    {
        let Self { site, target, options, keyed, .. } = self;
        let once = key(&keyed, &options, type_name_of_val(&body), Location::caller())?;
        let mut body = Some(body);
        run_keyed(site, &[target], &options, 0, once, |scope| take(&mut body)(&mut scope.handle::<H>(0)?))
    }
}

impl<N: OnceKey> Atomic<Repeat, Keyed<N>> {
    /// Runs `body` if its key is new, again where that may help. See [`Atomic::run`].
    ///
    /// # Errors
    /// Those of the last attempt, and [`Error::OnceMismatch`].
    #[track_caller]
    pub fn run<H: Handle, T, E>(self, mut body: impl FnMut(&mut H) -> Result<T, E>) -> Result<T, E>
    where
        E: From<Error> + Debug,
        Result<T, E>: Stored,
    {
        let Self { site, target, options, keyed, repeat } = self;
        let once = key(&keyed, &options, type_name_of_val(&body), Location::caller())?;
        run_keyed(site, &[target], &options, repeat.retries, once, |scope| body(&mut scope.handle::<H>(0)?))
    }
}

impl<M: Models> AtomicMany<M> {
    /// Runs `body` and commits when it returns `Ok`; rolls back when it returns `Err` or panics.
    ///
    /// # Errors
    /// Those of `body`, and those of opening and committing the scope.
    pub fn run<T, E: From<Error> + Debug>(self, body: impl FnOnce(&Scope<'_>) -> Result<T, E>) -> Result<T, E> {
        run_scope(self.site, &Self::targets(), &self.options, body)
    }
}

impl<M: Models> AtomicMany<M, Repeat> {
    /// Runs `body`, again where that may help. See [`Atomic::run`].
    ///
    /// # Errors
    /// Those of the last attempt.
    pub fn run<T, E: From<Error> + Debug>(self, body: impl FnMut(&Scope<'_>) -> Result<T, E>) -> Result<T, E> {
        let again = Repetition { retries: self.repeat.retries, once: None };
        run_repeatedly(self.site, &Self::targets(), &self.options, &again, body)
    }
}

impl<M: Models, N: OnceKey> AtomicMany<M, Single, Keyed<N>> {
    /// Runs `body` if its key is new. See [`Atomic::run`].
    ///
    /// # Errors
    /// As [`Atomic::run`], and [`Error::OnceMismatch`].
    #[track_caller]
    pub fn run<T, E>(self, body: impl FnOnce(&Scope<'_>) -> Result<T, E>) -> Result<T, E>
    where
        E: From<Error> + Debug,
        Result<T, E>: Stored,
    {
        let Self { site, options, keyed, .. } = self;
        let once = key(&keyed, &options, type_name_of_val(&body), Location::caller())?;
        let mut body = Some(body);
        run_keyed(site, &Self::targets(), &options, 0, once, |scope| take(&mut body)(scope))
    }
}

impl<M: Models, N: OnceKey> AtomicMany<M, Repeat, Keyed<N>> {
    /// Runs `body` if its key is new, again where that may help. See [`Atomic::run`].
    ///
    /// # Errors
    /// Those of the last attempt, and [`Error::OnceMismatch`].
    #[track_caller]
    pub fn run<T, E>(self, body: impl FnMut(&Scope<'_>) -> Result<T, E>) -> Result<T, E>
    where
        E: From<Error> + Debug,
        Result<T, E>: Stored,
    {
        let Self { site, options, keyed, repeat, .. } = self;
        let once = key(&keyed, &options, type_name_of_val(&body), Location::caller())?;
        run_keyed(site, &Self::targets(), &options, repeat.retries, once, body)
    }
}

fn run_keyed<R: Returned>(
    site: Site,
    targets: &[Target],
    options: &Options,
    retries: u32,
    once: Once<R>,
    body: impl FnMut(&Scope<'_>) -> R,
) -> R {
    run_repeatedly(site, targets, options, &Repetition { retries, once: Some(once) }, body)
}

/// The key of a closure, whose type's name is `path`, in a scope that is run `at` this place.
fn key<N: OnceKey, R: Stored>(
    keyed: &Keyed<N>,
    options: &Options,
    path: &str,
    at: &'static Location<'static>,
) -> Result<Once<R>> {
    Once::new(&keyed.key, Owner::closure(path, options.label, at).name()?)
}
