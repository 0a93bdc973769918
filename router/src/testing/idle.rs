//! A door for the library's own tests: the idle connections, as they lie in their pools.

use std::any::Any;
use std::sync::OnceLock;

use crate::databases::Databases;

/// One idle connection. Nothing has cleaned it up since it was given back.
#[doc(hidden)]
pub struct Idle<'a> {
    /// The database.
    pub alias: &'a str,
    /// Where it is.
    pub url: &'a str,
    /// Diesel's connection: a `PgConnection`, a `MysqlConnection` or a `SqliteConnection`.
    pub raw: &'a mut dyn Any,
    pub(crate) connect: &'a dyn Fn() -> Result<Box<dyn Any>, String>,
}

impl Idle<'_> {
    /// Opens a connection in the same way, beside the pool.
    ///
    /// # Errors
    /// What the driver says.
    pub fn fresh(&self) -> Result<Box<dyn Any>, String> {
        (self.connect)()
    }
}

/// Lends each idle connection of these databases, and puts it back as it is. Takes none that is held, and opens none unless
/// `min_idle` asks for one. In a test whose work is rolled back there are none.
#[doc(hidden)]
pub fn idle(databases: &Databases, mut ask: impl FnMut(Idle<'_>)) {
    databases.idle(&mut ask);
}

static LAST_LOOK: OnceLock<fn(Idle<'_>)> = OnceLock::new();

/// From now on each idle connection of each pool of the process is lent when the pool is dropped, unless its thread panics.
/// Counts once for a process.
#[doc(hidden)]
pub fn before_pools_close(ask: fn(Idle<'_>)) {
    let _ = LAST_LOOK.set(ask);
}

/// What is to be asked before a pool closes.
pub(crate) fn last_look() -> Option<fn(Idle<'_>)> {
    LAST_LOOK.get().copied().filter(|_| !std::thread::panicking())
}
