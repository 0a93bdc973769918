//! Settings and accounts: made in the first run, found in the next one.

use diesel::dsl::max;
use diesel::prelude::*;
use multidb::prelude::*;

use crate::cli::{DEFAULT_ACCOUNTS, DEFAULT_OPENING};
use crate::error::BankError;
use crate::store::{Account, Entry, Setting, accounts, lock_bank, settings};
use crate::tables::{BANK_TABLES, LEDGER_TABLES};

const OPENING: &str = "opening";
/// How many accounts one statement adds: databases limit the values of a statement.
const ACCOUNTS_AT_ONCE: i64 = 1_000;

/// The bank as this run finds it or makes it.
pub struct Bank {
    /// What each account held at first.
    pub opening: i64,
    pub accounts: i64,
    pub added: i64,
}

pub fn set_up_bank(accounts: Option<i64>, opening: Option<i64>) -> Result<Bank, BankError> {
    BANK_TABLES.create_on_server(&mut connection::<Account, AnyConn>()?)?;
    fill_bank(accounts, opening)
}

/// All or nothing: a bank that is found has its settings and its accounts, and in a file its tables.
#[transactional(Account, Setting)]
fn fill_bank(
    #[conn(Account)] conn: &mut AnyConn,
    accounts: Option<i64>,
    opening: Option<i64>,
) -> Result<Bank, BankError> {
    BANK_TABLES.create_in_file(conn)?;
    lock_bank()?;
    let opening = agree_on_opening(opening)?;
    let (accounts, added) = add_accounts(accounts, opening)?;
    Ok(Bank { opening, accounts, added })
}

pub fn set_up_ledger() -> Result<(), BankError> {
    LEDGER_TABLES.create_on_server(&mut connection::<Entry, AnyConn>()?)?;
    set_up_ledger_file()
}

#[transactional(Entry)]
fn set_up_ledger_file(#[conn] conn: &mut AnyConn) -> Result<(), BankError> {
    LEDGER_TABLES.create_in_file(conn)
}

/// The amount that is stored, or `asked` in a new bank. Balances could not be checked if it changed.
#[transactional(Setting)]
fn agree_on_opening(#[conn] conn: &mut AnyConn, asked: Option<i64>) -> Result<i64, BankError> {
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
fn add_accounts(#[conn] conn: &mut AnyConn, asked: Option<i64>, opening: i64) -> Result<(i64, i64), BankError> {
    let last: Option<i64> = accounts::table.select(max(accounts::id)).first(conn)?;
    let last = last.unwrap_or(0);
    let wanted = asked.unwrap_or(if last == 0 { DEFAULT_ACCOUNTS } else { last });
    let mut first = last + 1;
    while first <= wanted {
        let end = wanted.min(first + ACCOUNTS_AT_ONCE - 1);
        let new = (first..=end).map(|id| Account { id, owner: format!("owner {id}"), balance: opening });
        insert(conn, &new.collect::<Vec<_>>())?;
        first = end + 1;
    }
    Ok((wanted.max(last), (wanted - last).max(0)))
}

/// The statement is the same for each handle, but `AnyConn` itself can't insert several rows at once.
fn insert(conn: &mut AnyConn, new: &[Account]) -> QueryResult<usize> {
    let insert = diesel::insert_into(accounts::table).values(new);
    match conn {
        AnyConn::Sqlite(conn) => insert.execute(conn),
        #[cfg(feature = "postgres")]
        AnyConn::Postgres(conn) => insert.execute(conn),
        #[cfg(feature = "mysql")]
        AnyConn::Mysql(conn) => insert.execute(conn),
    }
}
