//! Transactions over several SQLite files, on one connection that holds all of them.

use std::path::{Path, PathBuf};

use super::*;
use crate::SqliteConn;
use crate::connection::attached::{FILES_LIMIT, OwnFile};
use crate::connection::slot::Slot;

mod changed;
mod commits;
#[cfg(target_os = "linux")]
mod refused;

type Raw = diesel::SqliteConnection;

/// Databases `a`, `b` and so on, each a file with a table `items_a`, `items_b` and so on.
struct Files {
    databases: Databases,
    paths: Vec<PathBuf>,
    _folder: tempfile::TempDir,
}

const NAMES: [&str; 11] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k"];

fn files(count: usize) -> Files {
    files_with(count, |_, _| ())
}

/// The configuration can be changed for each.
fn files_with(count: usize, change: impl Fn(usize, &mut DatabaseConfig)) -> Files {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &&str| folder.path().join(format!("{name}.db"));
    let paths: Vec<PathBuf> = NAMES[..count].iter().map(path).collect();
    let mut builder = Databases::builder();
    for (at, (name, path)) in NAMES.iter().zip(&paths).enumerate() {
        write(path, &format!("CREATE TABLE items_{name} (id BIGINT PRIMARY KEY)"));
        let mut config = DatabaseConfig::new(*name, path.to_str().expect("a plain path"));
        change(at, &mut config);
        builder = builder.database(config);
    }
    Files { databases: builder.build_lazy().expect("the databases"), paths, _folder: folder }
}

/// A connection of the test's own, to one file.
fn observer(path: &Path) -> Raw {
    Raw::establish(path.to_str().expect("a plain path")).expect("the file")
}

fn write(path: &Path, sql: &str) {
    observer(path).batch_execute(sql).expect("written");
}

#[derive(QueryableByName)]
struct Number {
    #[diesel(sql_type = diesel::sql_types::BigInt)]
    n: i64,
}

#[derive(QueryableByName)]
struct Word {
    #[diesel(sql_type = diesel::sql_types::Text)]
    word: String,
}

fn numbers(raw: &mut impl diesel::connection::LoadConnection<Backend = diesel::sqlite::Sqlite>, sql: &str) -> Vec<i64> {
    use diesel::query_dsl::methods::LoadQuery;
    let rows: Result<Vec<Number>, _> = diesel::sql_query(sql).internal_load(raw).and_then(Iterator::collect);
    rows.expect("numbers").into_iter().map(|number| number.n).collect()
}

fn words(raw: &mut Raw, sql: &str) -> Vec<String> {
    let rows: Vec<Word> = diesel::sql_query(sql).load(raw).expect("words");
    rows.into_iter().map(|word| word.word).collect()
}

impl Files {
    /// The ids in the table of one file.
    fn rows(&self, at: usize) -> Vec<i64> {
        numbers(&mut observer(&self.paths[at]), &format!("SELECT id AS n FROM items_{} ORDER BY id", NAMES[at]))
    }
}

/// A transaction over these databases, on the one slot that serves them all.
fn open(databases: &Databases, indices: &[usize]) -> Result<Ticket, Error> {
    open_with(databases, indices, &Start::default())
}

fn open_with(databases: &Databases, indices: &[usize], start: &Start) -> Result<Ticket, Error> {
    let (driver, order) = databases.attached(indices)?;
    let ticket = begin(databases, [(None, order[0])], SITE, Kind::Scope, start, &Terms::default())?;
    top(|open| open.branches[0].slot = driver.slot(None, &open.gate, start)).expect("a transaction");
    Ok(ticket)
}

/// The slot of the innermost transaction.
fn the_slot() -> Arc<dyn AnySlot> {
    top(|open| Arc::clone(&open.branches[0].slot)).expect("a transaction")
}

/// A handle on one of its databases.
fn conn(at: usize) -> SqliteConn {
    let slot = the_slot();
    let place = slot.alias().as_str().split('+').position(|name| name == NAMES[at]).unwrap_or(at);
    SqliteConn::in_scope(Slot::of(slot).expect("SQLite"), Some(Box::new(OwnFile { place, alias: NAMES[at].into() })))
}

fn put(at: usize, id: i64) -> Result<usize, Error> {
    Ok(diesel::sql_query(format!("INSERT INTO items_{} VALUES ({id})", NAMES[at])).execute(&mut conn(at))?)
}

/// What the refusal says: its reason and remedies.
fn refusal(databases: &Databases, indices: &[usize]) -> String {
    match databases.attached(indices).map(|(_, order)| order) {
        Err(error @ Error::NotAtomic { .. }) => error.to_string(),
        other => panic!("{other:?}"),
    }
}
