//! What the tests of an application need. Behind the feature `testing`.
//!
//! A test that begins with [`rolled_back`] leaves nothing behind: each of its databases gets one connection, in a transaction
//! that is never committed. Everything else is as in production, hooks and `durable` functions included, since what would be
//! a COMMIT there is the release of a savepoint here.
//!
//! ```
//! # use multidb::prelude::*;
//! # #[derive(Model)] #[model(app = "bank")] struct Account;
//! # let folder = tempfile::tempdir()?;
//! # let databases = Databases::builder().sqlite("default", folder.path().join("a.db")).build()?;
//! let test = multidb::testing::rolled_back(&databases)?;
//! atomic::<Account>().run(|conn: &mut SqliteConn| conn.batch_execute("CREATE TABLE accounts (id INTEGER)"))?;
//! drop(test); // and the table is gone
//! # let again = databases.enter();
//! # assert!(connection::<Account, SqliteConn>()?.batch_execute("SELECT id FROM accounts").is_err());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod captured;
pub(crate) mod idle;
mod layouts;

pub use captured::{CapturedHooks, capture_hooks};
#[doc(hidden)]
pub use idle::{Idle, before_pools_close, idle};
pub use layouts::{Layout, Layouts};

pub use crate::connection::fault::{Fault, Point};
pub use crate::layouts;

use std::fmt;
use std::sync::Arc;

use crate::databases::{Databases, Entered, FaultsByAlias};
use crate::error::Result;

/// The databases of one test, entered by its thread until this is dropped.
#[must_use = "the test's databases are gone when this is dropped"]
pub struct TestDatabases {
    // Left before the databases are dropped.
    _entered: Entered,
    databases: Databases,
    faults: FaultsByAlias,
}

/// Everything that this thread does until the result is dropped is rolled back: Django's `TestCase`, Spring's test-managed
/// transactions.
///
/// - There is one connection for each database, and it is shared: other threads that enter [`TestDatabases::databases`] wait
///   for it. So `requires_new`, `not_supported` and a handle from outside of a scope are [`Error::Busy`](crate::Error::Busy)
///   inside a scope on the same database: they need [`committed`].
/// - Scopes in it are outermost ones: hooks run at their end, `durable` is allowed, manual scopes commit, a doom ends with the
///   scope. Each statement outside of a scope is a transaction of its own.
/// - Isolation levels, `deferrable`, `immediate` and `exclusive` are taken as given: the test's transaction has begun already.
/// - A planned failure that loses the connection takes the open transaction with it and nothing that was committed before.
///   A connection that is really lost, by a killed server, say, takes all that the test did on that database; from then on
///   whatever uses it fails with [`Error::Config`](crate::Error::Config), which says so.
/// - `SET LOCAL`, `now()` and locks outlive a scope, since the test's transaction goes on.
/// - A database in memory that belongs to one connection is empty when the test begins.
/// - DDL on MySQL and MariaDB commits, as everywhere; the scope that does it gets
///   [`Error::ImplicitCommit`](crate::Error::ImplicitCommit).
/// - Migrations and [`schema::install`](crate::schema::install) run before the test begins.
///
/// # Errors
/// [`Error::Config`](crate::Error::Config).
pub fn rolled_back(databases: &Databases) -> Result<TestDatabases> {
    TestDatabases::new(databases, true, None)
}

/// As [`rolled_back`], and a call that uses any other database than these fails, with an error that says who did: Django's
/// `TestCase.databases`.
///
/// # Errors
/// [`Error::UnknownDatabase`](crate::Error::UnknownDatabase) for an alias that is not configured.
pub fn rolled_back_on(databases: &Databases, declared: &[&str]) -> Result<TestDatabases> {
    TestDatabases::new(databases, true, Some(declared))
}

/// Commits what the test commits: Django's `TransactionTestCase`. The test cleans up after itself, or uses databases of its
/// own.
///
/// # Errors
/// [`Error::Config`](crate::Error::Config).
pub fn committed(databases: &Databases) -> Result<TestDatabases> {
    TestDatabases::new(databases, false, None)
}

impl TestDatabases {
    fn new(databases: &Databases, rolled_back: bool, declared: Option<&[&str]>) -> Result<Self> {
        let (databases, faults) = databases.for_test(rolled_back, declared)?;
        Ok(Self { _entered: databases.enter(), databases, faults })
    }

    /// The registry, for threads that the test starts: each calls `enter` on it.
    pub fn databases(&self) -> &Databases {
        &self.databases
    }

    /// The next time that `point` is reached on the database, it fails like this.
    ///
    /// # Errors
    /// [`Error::UnknownDatabase`](crate::Error::UnknownDatabase).
    pub fn fail(&self, alias: &str, point: Point, fault: Fault) -> Result<()> {
        self.fail_after(alias, point, 0, fault)
    }

    /// As [`fail`](Self::fail), after the point was passed `skip` times.
    ///
    /// # Errors
    /// [`Error::UnknownDatabase`](crate::Error::UnknownDatabase).
    pub fn fail_after(&self, alias: &str, point: Point, skip: u32, fault: Fault) -> Result<()> {
        self.databases.database(alias)?;
        if let Some((_, faults)) = self.faults.iter().find(|(known, _)| known.as_str() == alias) {
            faults.plan(point, skip, fault);
        }
        Ok(())
    }

    /// How many planned failures have not happened: a test that planned one and never got there proves nothing.
    pub fn faults_left(&self) -> usize {
        // Two aliases of one database have one list.
        let is_first = |at: usize| !self.faults[..at].iter().any(|(_, known)| Arc::ptr_eq(known, &self.faults[at].1));
        (0..self.faults.len()).filter(|at| is_first(*at)).map(|at| self.faults[at].1.left()).sum()
    }
}

impl fmt::Debug for TestDatabases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestDatabases").field("databases", &self.databases).finish_non_exhaustive()
    }
}
