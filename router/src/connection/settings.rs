//! What a pool needs to open its connections.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::attached::File;
use super::right_of_way::RightOfWay;
use crate::alias::Alias;

/// How long SQLite waits for a lock of another connection, unless configured otherwise.
pub const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// How many connections a pool may have, unless configured otherwise: r2d2's own default.
pub const POOL_MAX_SIZE: u32 = 10;
/// How long a thread that holds no connection waits for one, unless configured otherwise: r2d2's own default.
pub const POOL_TIMEOUT: Duration = Duration::from_secs(30);

/// Everything that a pool is made from.
#[derive(Clone)]
pub struct Settings {
    /// The database's name.
    pub alias: Alias,
    /// Where it is. Never printed: it may hold a password.
    pub url: String,
    /// The pool, in r2d2's own words.
    pub pool: PoolSettings,
    /// The pool's one connection is the database itself, and another one would be another database.
    pub private: bool,
    /// SQLite's session.
    pub sqlite: SqliteSettings,
    /// SQLite: the files that each connection holds together, `main` first. None where it is one file alone.
    pub files: Vec<File>,
    /// Who comes first at the file, if it is SQLite's.
    pub right_of_way: Arc<RightOfWay>,
    /// Whether statements that Diesel would parse anew each time are kept prepared from their second use on.
    pub prepare_repeated: bool,
    /// How its connections serve a test, if they do.
    #[cfg(feature = "testing")]
    pub test: Option<super::rehearsal::Test>,
}

/// r2d2's settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolSettings {
    /// The most connections that the pool opens.
    pub max_size: u32,
    /// How many idle connections it keeps ready.
    pub min_idle: u32,
    /// How long a checkout waits.
    pub connection_timeout: Duration,
    /// After which time an idle connection is closed.
    pub idle_timeout: Option<Duration>,
    /// After which time a connection is replaced.
    pub max_lifetime: Option<Duration>,
}

impl Default for PoolSettings {
    fn default() -> Self {
        Self {
            max_size: POOL_MAX_SIZE,
            min_idle: 0,
            connection_timeout: POOL_TIMEOUT,
            idle_timeout: Some(Duration::from_mins(10)),
            max_lifetime: Some(Duration::from_mins(30)),
        }
    }
}

/// SQLite's session settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqliteSettings {
    /// How long to wait for another connection's lock.
    pub busy_timeout: Duration,
    /// `PRAGMA journal_mode`; `None` leaves the file as it is.
    pub journal_mode: Option<&'static str>,
    /// `PRAGMA synchronous`; `None` leaves SQLite's default.
    pub synchronous: Option<&'static str>,
    /// `PRAGMA foreign_keys`: on, unlike in SQLite itself, so that all backends check what the schema says.
    pub foreign_keys: bool,
    /// The variable of the environment that alone names the file, which must be there then.
    pub must_exist: Option<std::sync::Arc<str>>,
}

impl Default for SqliteSettings {
    fn default() -> Self {
        Self { busy_timeout: BUSY_TIMEOUT, journal_mode: None, synchronous: None, foreign_keys: true, must_exist: None }
    }
}

impl Settings {
    /// Whether its connections serve a test whose work is rolled back.
    #[cfg_attr(
        not(feature = "testing"),
        expect(clippy::unused_self, reason = "without the feature there are no such tests")
    )]
    pub fn is_rolled_back(&self) -> bool {
        #[cfg(feature = "testing")]
        return self.test.as_ref().is_some_and(|test| test.rolled_back);
        #[cfg(not(feature = "testing"))]
        false
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("alias", &self.alias)
            .field("url", &crate::databases::mask(&self.url))
            .field("pool", &self.pool)
            .field("sqlite", &self.sqlite)
            .field("files", &self.files.len())
            .field("prepare_repeated", &self.prepare_repeated)
            .finish_non_exhaustive()
    }
}
