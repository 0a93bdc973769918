//! The two databases: their tables, their models, and the router that tells which model lives where.

use std::fs;
use std::io;
use std::path::Path;

use diesel::prelude::*;
use diesel::sql_types::Text;
use multidb::prelude::*;
use multidb::{DatabaseConfig, connection_on};

use crate::error::BankError;

diesel::table! { accounts (id) { id -> BigInt, owner -> Text, balance -> BigInt, } }
diesel::table! { settings (name) { name -> Text, value -> BigInt, } }
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

/// Makes the files in `dir` the databases of this process. Files that are missing are created empty.
pub fn open(dir: &Path) -> Result<(), BankError> {
    let at = |source| BankError::Folder { path: dir.to_owned(), source };
    fs::create_dir_all(dir).map_err(at)?;
    // Absolute, so that no folder's name can be taken for the beginning of a URL.
    let absolute = fs::canonicalize(dir).map_err(at)?;
    let not_text = || at(io::Error::new(io::ErrorKind::InvalidInput, "its path is not UTF-8"));
    let folder = absolute.to_str().ok_or_else(not_text)?;
    Databases::builder()
        .database(file(folder, BANK))
        .database(file(folder, LEDGER))
        .router(AppRouter)
        .models::<(Account, Setting, Entry)>()
        .install()?;
    check_journal_mode(BANK)?;
    check_journal_mode(LEDGER)
}

fn file(folder: &str, alias: &'static str) -> DatabaseConfig {
    let mut config = DatabaseConfig::new(alias, format!("{folder}/{alias}.db"));
    config.sqlite.journal_mode = Some("delete".into());
    config.sqlite.busy_timeout = Some("1s".into());
    // One thread works, and never with two connections to one file.
    config.pool.max_size = Some(1);
    config.pool.connection_timeout = Some("5s".into());
    config
}

/// SQLite answers with the mode that it kept where it could not change it.
fn check_journal_mode(database: &'static str) -> Result<(), BankError> {
    let conn = &mut connection_on::<SqliteConn>(database)?;
    let mode: String = diesel::select(diesel::dsl::sql::<Text>("journal_mode FROM pragma_journal_mode")).first(conn)?;
    if mode == "delete" { Ok(()) } else { Err(BankError::JournalMode { database, mode }) }
}
