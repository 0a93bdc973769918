//! The two databases: their tables, their models, and the router that tells which model lives where.

use std::fs;
use std::io;
use std::path::Path;

use diesel::prelude::*;
use diesel::sql_types::Text;
use multidb::prelude::*;
use multidb::{Database, DatabaseConfig, connection_on, schema};

use crate::cli::Arguments;
use crate::error::{BankError, retry};
use crate::tables::LOCK;

diesel::table! { accounts (id) { id -> BigInt, owner -> Text, balance -> BigInt, } }
diesel::table! { settings (name) { name -> Text, value -> BigInt, } }
diesel::table! { ledger_locks (id) { id -> BigInt, value -> BigInt, } }
diesel::table! { entries (id) { id -> BigInt, transfer -> BigInt, account -> BigInt, cents -> BigInt, } }

/// What somebody owns.
#[derive(Insertable, Model)]
#[diesel(table_name = accounts)]
#[model(app = "bank")]
pub struct Account {
    pub id: i64,
    pub owner: String,
    pub balance: i64,
}

/// What must stay the same from run to run.
#[derive(Insertable, Model)]
#[diesel(table_name = settings)]
#[model(app = "bank")]
pub struct Setting {
    pub name: &'static str,
    pub value: i64,
}

/// One side of a transfer.
#[derive(Insertable, Model)]
#[diesel(table_name = entries)]
#[model(app = "ledger")]
pub struct Entry {
    pub transfer: i64,
    pub account: i64,
    pub cents: i64,
}

/// Each application has a database of its name.
struct AppRouter;

impl Router for AppRouter {
    fn select_db(&self, request: &RouteRequest<'_>) -> Route {
        match request.app() {
            "bank" => Route::to(BANK),
            "ledger" => Route::to(LEDGER),
            _ => Route::pass(),
        }
    }
}

const BANK: &str = "bank";
const LEDGER: &str = "ledger";

/// What each of the two databases is, such as `SQLite`.
pub struct Backends {
    pub bank: &'static str,
    pub ledger: &'static str,
}

pub const SQLITE: &str = "SQLite";

/// Makes what the URLs name the databases of this process, and where there is none, the files in the folder. Files that are
/// missing are created empty.
pub fn open(arguments: &Arguments) -> Result<(Databases, Backends), BankError> {
    let databases = Databases::builder()
        .database(config(BANK, arguments.url_bank.as_deref(), &arguments.dir)?)
        .database(config(LEDGER, arguments.url_ledger.as_deref(), &arguments.dir)?)
        .router(AppRouter)
        .models::<(Account, Setting, Entry)>()
        .install()?;
    let backend = |alias| databases.database(alias).map(Database::backend);
    let backends = Backends { bank: backend(BANK)?, ledger: backend(LEDGER)? };
    // The library's own tables, with what a commit on both databases needs.
    retry(|| Ok(schema::install(&databases).map(drop)?))?;
    for (alias, backend) in [(BANK, backends.bank), (LEDGER, backends.ledger)] {
        if backend == SQLITE {
            check_journal_mode(alias)?;
        }
    }
    Ok((databases, backends))
}

fn config(alias: &'static str, url: Option<&str>, dir: &Path) -> Result<DatabaseConfig, BankError> {
    let url = match url {
        Some(url) => url.to_owned(),
        None => file(alias, dir)?,
    };
    let mut config = DatabaseConfig::new(alias, url);
    config.sqlite.journal_mode = Some("delete".into());
    config.sqlite.busy_timeout = Some("1s".into());
    // One thread works, and never with two connections to one database.
    config.pool.max_size = Some(1);
    config.pool.connection_timeout = Some("5s".into());
    Ok(config)
}

/// The path of a file in the folder, which is created.
fn file(alias: &'static str, dir: &Path) -> Result<String, BankError> {
    let at = |source| BankError::Folder { path: dir.to_owned(), source };
    fs::create_dir_all(dir).map_err(at)?;
    // Absolute, so that no folder's name can be taken for the beginning of a URL.
    let absolute = fs::canonicalize(dir).map_err(at)?;
    let not_text = || at(io::Error::new(io::ErrorKind::InvalidInput, "its path is not UTF-8"));
    let folder = absolute.to_str().ok_or_else(not_text)?;
    Ok(format!("{folder}/{alias}.db"))
}

/// SQLite answers with the mode that it kept where it could not change it.
fn check_journal_mode(database: &'static str) -> Result<(), BankError> {
    let conn = &mut connection_on::<SqliteConn>(database)?;
    let mode: String = diesel::select(diesel::dsl::sql::<Text>("journal_mode FROM pragma_journal_mode")).first(conn)?;
    if mode == "delete" { Ok(()) } else { Err(BankError::JournalMode { database, mode }) }
}

/// Waits until what earlier transfers wrote into the ledger can be read.
///
/// A commit on two servers is done on one of them a moment before the other. Whoever has the lock of the bank by then would
/// not see the last entries of the ledger, which is still prepared. But it still holds this lock.
#[transactional(Entry)]
pub fn lock_ledger(#[conn] conn: &mut AnyConn) -> Result<(), BankError> {
    if !matches!(conn, AnyConn::Sqlite(_)) {
        let lock = diesel::update(ledger_locks::table.find(0));
        lock.set(ledger_locks::value.eq(ledger_locks::value + 1)).execute(conn)?;
    }
    Ok(())
}

/// Lets no other run work on the bank until the transaction ends.
///
/// A scope on a SQLite file holds the file's write lock from its first statement on. On a server it is the lock of a row,
/// taken by a write, since not every backend has a locking read.
#[transactional(Setting)]
pub fn lock_bank(#[conn] conn: &mut AnyConn) -> Result<(), BankError> {
    if !matches!(conn, AnyConn::Sqlite(_)) {
        let lock = diesel::update(settings::table.find(LOCK));
        lock.set(settings::value.eq(settings::value + 1)).execute(conn)?;
    }
    Ok(())
}
