//! Tables, settings and accounts: made in the first run, found in the next one.

use diesel::dsl::max;
use diesel::prelude::*;
use multidb::prelude::*;

use crate::cli::{DEFAULT_ACCOUNTS, DEFAULT_OPENING};
use crate::error::BankError;
use crate::store::{Account, Entry, Setting, accounts, settings};

// STRICT: SQLite would otherwise store a sum that does not fit as a float, and say nothing.
const BANK_TABLES: &str = "
    CREATE TABLE IF NOT EXISTS accounts (
        id INTEGER PRIMARY KEY, owner TEXT NOT NULL, balance INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE IF NOT EXISTS settings (
        name TEXT PRIMARY KEY, value INTEGER NOT NULL
    ) STRICT;";
const LEDGER_TABLES: &str = "
    CREATE TABLE IF NOT EXISTS entries (
        id INTEGER PRIMARY KEY, transfer INTEGER NOT NULL, account INTEGER NOT NULL, cents INTEGER NOT NULL,
        UNIQUE (transfer, account)
    ) STRICT;";

const OPENING: &str = "opening";
/// How many accounts one statement adds: SQLite limits the values of a statement.
const ACCOUNTS_AT_ONCE: i64 = 1_000;

/// The bank as this run finds it or makes it.
pub struct Bank {
    /// What each account held at first.
    pub opening: i64,
    pub accounts: i64,
    pub added: i64,
}

/// All or nothing: a bank that is found has its tables, its settings and its accounts.
#[transactional(Account, Setting)]
pub fn set_up_bank(
    #[conn(Account)] conn: &mut SqliteConn,
    accounts: Option<i64>,
    opening: Option<i64>,
) -> Result<Bank, BankError> {
    conn.batch_execute(BANK_TABLES)?;
    let opening = agree_on_opening(opening)?;
    let (accounts, added) = add_accounts(accounts, opening)?;
    Ok(Bank { opening, accounts, added })
}

#[transactional(Entry)]
pub fn set_up_ledger(#[conn] conn: &mut SqliteConn) -> Result<(), BankError> {
    Ok(conn.batch_execute(LEDGER_TABLES)?)
}

/// The amount that is stored, or `asked` in a new bank. Balances could not be checked if it changed.
#[transactional(Setting)]
fn agree_on_opening(#[conn] conn: &mut SqliteConn, asked: Option<i64>) -> Result<i64, BankError> {
    let stored = settings::table.find(OPENING).select(settings::value).first(conn).optional()?;
    match (stored, asked) {
        (Some(stored), Some(asked)) if stored != asked => Err(BankError::OtherOpening { stored, asked }),
        (Some(stored), _) => Ok(stored),
        (None, asked) => {
            let value = asked.unwrap_or(DEFAULT_OPENING);
            diesel::insert_into(settings::table).values(Setting { name: OPENING, value }).execute(conn)?;
            Ok(value)
        }
    }
}

/// Adds what is missing to the accounts that were asked for; none is ever taken away. How many there are, and how many
/// of them are new.
#[transactional(Account)]
fn add_accounts(#[conn] conn: &mut SqliteConn, asked: Option<i64>, opening: i64) -> Result<(i64, i64), BankError> {
    let last: Option<i64> = accounts::table.select(max(accounts::id)).first(conn)?;
    let last = last.unwrap_or(0);
    let wanted = asked.unwrap_or(if last == 0 { DEFAULT_ACCOUNTS } else { last });
    let mut first = last + 1;
    while first <= wanted {
        let end = wanted.min(first + ACCOUNTS_AT_ONCE - 1);
        let new = (first..=end).map(|id| Account { id, owner: format!("owner {id}"), balance: opening });
        diesel::insert_into(accounts::table).values(&new.collect::<Vec<_>>()).execute(conn)?;
        first = end + 1;
    }
    Ok((wanted.max(last), (wanted - last).max(0)))
}
