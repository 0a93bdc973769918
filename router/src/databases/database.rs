//! One database.

use std::any::Any;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use super::identity::file_of;
use super::named::Named;
use crate::alias::Alias;
use crate::connection::backend::{Dialect, Names};
use crate::connection::characteristics::Characteristics;
use crate::connection::control::Start;
use crate::connection::decision;
use crate::connection::gate::Gate;
use crate::connection::identity;
use crate::connection::link::Link;
use crate::connection::migrations::{Migrations, Ran};
use crate::connection::pool::{PendingSurvey, Pool};
use crate::connection::settings::Settings;
use crate::connection::slot::{AnySlot, Slot};
use crate::error::{Error, Result};
use crate::site::{Function, Site};
#[cfg(feature = "testing")]
use crate::testing::Idle;
use crate::transaction_id::TransactionId;

/// A kind of database, as configuration names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Postgres,
    Mysql,
    Sqlite,
}

impl Kind {
    pub(crate) fn feature(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Mysql => "mysql",
            Self::Sqlite => "sqlite",
        }
    }

    /// The driver, where the feature of the backend is on.
    #[cfg_attr(
        all(feature = "sqlite", feature = "postgres", feature = "mysql"),
        expect(clippy::unnecessary_wraps, reason = "it fails where a backend's feature is off")
    )]
    pub(super) fn driver(self, settings: Settings) -> Result<Arc<dyn Driver>> {
        match self {
            #[cfg(feature = "postgres")]
            Self::Postgres => Ok(open::<crate::Postgres>(settings)),
            #[cfg(feature = "mysql")]
            Self::Mysql => Ok(open::<crate::Mysql>(settings)),
            #[cfg(feature = "sqlite")]
            Self::Sqlite => Ok(open::<crate::Sqlite>(settings)),
            #[cfg(not(all(feature = "sqlite", feature = "postgres", feature = "mysql")))]
            off => Err(Error::Config {
                alias: Some(settings.alias),
                key: Some("url".into()),
                problem: format!("it is a URL of the backend `{}`, which is not built in", off.feature()),
                remedy: format!("write `multidb = {{ features = [\"{}\"] }}` in Cargo.toml", off.feature()),
            }),
        }
    }
}

fn open<B: Dialect>(settings: Settings) -> Arc<dyn Driver> {
    Arc::new(Arc::new(Pool::<B>::new(settings)))
}

/// Makes slots for one pool, whatever its backend.
pub(crate) trait Driver: Send + Sync {
    /// A slot of a transaction; takes no connection yet. `spare` is one that nobody uses, with the same gate.
    fn slot(&self, spare: Option<Arc<dyn AnySlot>>, gate: &Arc<Gate>, start: &Start) -> Arc<dyn AnySlot>;
    /// The pool, to find its backend.
    fn pool(&self) -> Arc<dyn Any + Send + Sync>;
    fn names(&self) -> Names;
    fn settings(&self) -> &Settings;
    /// What the database can't enforce of these.
    fn lacks(&self, characteristics: &Characteristics) -> Option<&'static str>;
    fn state(&self) -> PoolState;
    /// Runs what is missing of these migrations, or of the library's own.
    fn migrate(&self, source: Option<&dyn Migrations>) -> Result<Ran>;
    /// Writes what the database is, if nobody has before.
    fn install(&self, environment: &str) -> Result<()>;
    /// Runs a statement on the library's own tables in autocommit, with a limit for lock waits.
    fn execute_own(&self, sql: &str, binds: &[&str]) -> Result<usize>;
    fn check(&self) -> Result<()>;
    /// Begins to open a connection beside the pool, for recovery.
    fn begin_survey(&self) -> Result<PendingSurvey>;
    /// Whether it prepares transactions, as far as that is known.
    fn prepares(&self) -> Option<bool>;
    /// Refuses several files that can't be committed as one. Gives their paths.
    fn inspect(&self) -> Result<Vec<PathBuf>>;
    /// What became of a transaction whose reply was lost.
    fn probe(&self, id: &TransactionId) -> decision::Verdict;
    /// Lends each idle connection as it is.
    #[cfg(feature = "testing")]
    fn idle(&self, ask: &mut dyn FnMut(Idle<'_>));
}

impl<B: Dialect> Driver for Arc<Pool<B>> {
    fn slot(&self, spare: Option<Arc<dyn AnySlot>>, gate: &Arc<Gate>, start: &Start) -> Arc<dyn AnySlot> {
        if let Some(mut spare) = spare
            && let Some(slot) = Arc::get_mut(&mut spare)
            && let Some(slot) = (slot as &mut dyn Any).downcast_mut::<Slot<B>>()
        {
            slot.refill(Self::clone(self), start);
            return spare;
        }
        Arc::new(Slot::new(Self::clone(self), Arc::clone(gate), start.clone()))
    }

    fn pool(&self) -> Arc<dyn Any + Send + Sync> {
        Self::clone(self)
    }

    fn names(&self) -> Names {
        B::NAMES
    }

    fn settings(&self) -> &Settings {
        Pool::settings(self)
    }

    fn lacks(&self, characteristics: &Characteristics) -> Option<&'static str> {
        B::lacks(characteristics)
    }

    fn state(&self) -> PoolState {
        let (connections, idle_connections) = Pool::state(self);
        let (max_size, waiting) = (self.settings().pool.max_size, self.waiting());
        PoolState { connections, idle_connections, max_size, waiting }
    }

    fn migrate(&self, source: Option<&dyn Migrations>) -> Result<Ran> {
        Pool::migrate(self, OWN, source)
    }

    fn execute_own(&self, sql: &str, binds: &[&str]) -> Result<usize> {
        let run = |link: &mut Link<B>| {
            link.limit_locks()?;
            link.own(|raw, born| B::execute_own(raw, born, sql, binds))
        };
        Ok(self.run(OWN, None, run)?)
    }

    fn install(&self, environment: &str) -> Result<()> {
        Ok(self.run(OWN, None, |link| link.own(|raw, born| identity::install::<B>(raw, born, environment)))?)
    }

    fn probe(&self, id: &TransactionId) -> decision::Verdict {
        Pool::probe(self, id)
    }

    fn prepares(&self) -> Option<bool> {
        Pool::prepares(self)
    }

    fn begin_survey(&self) -> Result<PendingSurvey> {
        Pool::begin_survey(self)
    }

    fn check(&self) -> Result<()> {
        Pool::check(self)
    }

    fn inspect(&self) -> Result<Vec<PathBuf>> {
        Pool::inspect(self)
    }

    #[cfg(feature = "testing")]
    fn idle(&self, ask: &mut dyn FnMut(Idle<'_>)) {
        Pool::idle(self, ask);
    }
}

/// Who holds a connection for the library's own tables.
const OWN: Site = Site::of(&Function::new("multidb", "multidb", "the library itself", 0));

/// One database of the registry.
pub struct Database {
    pub(super) alias: Alias,
    pub(super) kind: Kind,
    pub(super) driver: Arc<dyn Driver>,
    /// The alias that it is the same as, where the configuration says so.
    pub(super) same_as: Option<Alias>,
    /// The variable of the environment, if nothing else names the database.
    pub(super) named: Option<Named>,
}

/// How many connections a pool has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolState {
    /// Open connections, idle or not.
    pub connections: u32,
    /// Open connections that nobody holds.
    pub idle_connections: u32,
    /// The most that there may be.
    pub max_size: u32,
    /// How many threads wait for one.
    pub waiting: u32,
}

impl Database {
    /// The name of the database.
    pub fn alias(&self) -> &Alias {
        &self.alias
    }

    /// What kind of database it is: `"PostgreSQL"`, `"MySQL or MariaDB"` or `"SQLite"`.
    pub fn backend(&self) -> &'static str {
        self.driver.names().backend
    }

    /// How many connections its pool has at this moment.
    pub fn pool_state(&self) -> PoolState {
        self.driver.state()
    }

    pub(crate) fn driver(&self) -> &dyn Driver {
        &*self.driver
    }

    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether it is a SQLite database in memory.
    pub(crate) fn is_in_memory(&self) -> bool {
        self.is_sqlite() && file_of(&self.driver.settings().url).is_none()
    }

    pub(crate) fn is_mysql(&self) -> bool {
        self.kind == Kind::Mysql
    }

    pub(crate) fn is_sqlite(&self) -> bool {
        self.kind == Kind::Sqlite
    }

    /// The error of an option that the database can't enforce.
    pub(crate) fn unsupported(&self, option: &'static str, asked: String) -> Error {
        let remedy = match option {
            "deferrable" => "drop it, or route the model to PostgreSQL",
            _ => "drop it, or route the model to SQLite",
        };
        Error::Unsupported { asked, option, database: self.alias.clone(), backend: self.driver.names().backend, remedy }
    }

    /// The error of a handle that doesn't fit.
    pub(crate) fn wrong_backend(&self, handle: &'static str, asked: String) -> Error {
        let names = self.driver.names();
        Error::WrongBackend {
            database: self.alias.clone(),
            actual: names.backend,
            handle,
            fitting: names.handle,
            asked,
        }
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database").field("alias", &self.alias).field("backend", &self.backend()).finish_non_exhaustive()
    }
}
