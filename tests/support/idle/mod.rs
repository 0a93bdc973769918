//! What a connection must be like that lies idle in a pool: outside of any transaction, without a lock, and with the settings
//! that it was born with. It is asked itself, and about it through another connection.
//!
//! A connection that is dead is not idle, and passes: its pool finds that out when it is used.

mod mysql;
mod postgres;
mod sqlite;

use std::any::Any;
use std::cell::Cell;

use diesel::QueryableByName;
use diesel::r2d2::R2D2Connection;
use diesel::sql_types::{Nullable, Text};
use diesel::{MysqlConnection, PgConnection, SqliteConnection};
use multidb::testing::{Idle, before_pools_close};

/// What a session says of itself, in an order of its own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, QueryableByName)]
pub(crate) struct Said {
    #[diesel(sql_type = Text)]
    pub(crate) name: String,
    #[diesel(sql_type = Nullable<Text>)]
    pub(crate) value: Option<String>,
}

/// A connection that was made in the same way as others and used for nothing, with what it says of itself.
pub(crate) struct Newborn {
    raw: Box<dyn Any>,
    said: Vec<Said>,
}

/// Why a connection was not compared.
enum Unlike {
    /// It can't be asked.
    Dead,
    /// It is not what it must be.
    So(String),
}

impl Newborn {
    /// Opens one that is like an idle connection.
    pub(crate) fn like(idle: &Idle<'_>) -> Result<Self, String> {
        let mut raw = idle.fresh()?;
        let said = match Raw::of(&mut *raw) {
            Raw::Postgres(raw) => postgres::said(raw),
            Raw::Mysql(raw) => mysql::said(raw),
            Raw::Sqlite(raw) => sqlite::said(raw),
        };
        let said = said.map_err(|error| error.to_string())?;
        Ok(Self { raw, said })
    }

    /// What is wrong with an idle connection.
    pub(crate) fn compare(&mut self, idle: &mut Idle<'_>) -> Result<(), String> {
        let said = match (Raw::of(idle.raw), Raw::of(&mut *self.raw)) {
            (Raw::Postgres(raw), Raw::Postgres(other)) => postgres::rests(raw, other),
            (Raw::Mysql(raw), Raw::Mysql(_)) => mysql::rests(raw),
            (Raw::Sqlite(raw), Raw::Sqlite(_)) => sqlite::rests(raw),
            _ => unreachable!("both are made in the same way"),
        };
        let found = match said {
            Err(Unlike::Dead) => return Ok(()),
            Err(Unlike::So(what)) => what,
            Ok(said) if said == self.said => return Ok(()),
            Ok(said) => difference(&self.said, &said),
        };
        Err(format!("an idle connection of `{}` {found}", idle.alias))
    }

    /// Whether it can still be asked.
    pub(crate) fn is_alive(&mut self) -> bool {
        match Raw::of(&mut *self.raw) {
            Raw::Postgres(raw) => raw.ping().is_ok(),
            Raw::Mysql(raw) => raw.ping().is_ok(),
            Raw::Sqlite(_) => true,
        }
    }

    /// The branches of commits over several databases that are left prepared in this one.
    pub(crate) fn prepared(&mut self) -> Vec<String> {
        match Raw::of(&mut *self.raw) {
            Raw::Postgres(raw) => postgres::prepared(raw),
            Raw::Mysql(raw) => mysql::prepared(raw),
            Raw::Sqlite(_) => Vec::new(),
        }
    }
}

/// Diesel's connection of any kind.
enum Raw<'a> {
    Postgres(&'a mut PgConnection),
    Mysql(&'a mut MysqlConnection),
    Sqlite(&'a mut SqliteConnection),
}

impl<'a> Raw<'a> {
    fn of(raw: &'a mut dyn Any) -> Self {
        // One after the other, or the borrow would last.
        if raw.is::<PgConnection>() {
            Self::Postgres(raw.downcast_mut().unwrap())
        } else if raw.is::<MysqlConnection>() {
            Self::Mysql(raw.downcast_mut().unwrap())
        } else {
            Self::Sqlite(raw.downcast_mut().unwrap())
        }
    }
}

fn difference(born: &[Said], said: &[Said]) -> String {
    let list = |these: &[Said], others: &[Said]| {
        let own = these.iter().filter(|one| !others.contains(one));
        own.map(|Said { name, value }| format!("{name} = {value:?}")).collect::<Vec<_>>().join(", ")
    };
    format!("was born with [{}] and has [{}]", list(born, said), list(said, born))
}

/// From now on the process looks at the idle connections of each pool that closes, and panics where one is not as it must be.
/// With `branches`, also where one of a commit over several databases is left prepared.
pub(crate) fn watch(branches: bool) {
    let look_at_connections: fn(Idle<'_>) = |mut idle| drop(look_at(&mut idle));
    before_pools_close(if branches { look } else { look_at_connections });
}

thread_local! {
    static UNWATCHED: Cell<bool> = const { Cell::new(false) };
}

/// Pools that close meanwhile on this thread may be as they are.
pub(crate) fn unwatched<T>(body: impl FnOnce() -> T) -> T {
    let before = UNWATCHED.replace(true);
    let value = body();
    UNWATCHED.set(before);
    value
}

fn look(mut idle: Idle<'_>) {
    let Some(mut newborn) = look_at(&mut idle) else { return };
    let prepared = newborn.prepared();
    assert!(prepared.is_empty(), "`{}` still has {prepared:?}", idle.alias);
}

fn look_at(idle: &mut Idle<'_>) -> Option<Newborn> {
    if UNWATCHED.get() {
        return None;
    }
    // Where no connection can be made any more, the database is gone.
    let mut newborn = Newborn::like(idle).ok()?;
    if let Err(found) = newborn.compare(idle) {
        panic!("{found}");
    }
    Some(newborn)
}
