//! Money moves between two accounts. Run it: `cargo run --example quickstart`

use diesel::prelude::*;
use multidb::prelude::*;

diesel::table! { accounts (id) { id -> BigInt, balance -> BigInt, } }
diesel::table! { entries (id) { id -> BigInt, account -> BigInt, cents -> BigInt, } }

#[derive(Queryable, Selectable, Model)]
#[diesel(table_name = accounts)]
#[model(app = "bank")]
struct Account {
    id: i64,
    balance: i64,
}

#[derive(Insertable, Model)]
#[diesel(table_name = entries)]
#[model(app = "ledger")]
struct Entry {
    account: i64,
    cents: i64,
}

#[derive(Debug, thiserror::Error)]
enum BankError {
    #[error("account {0} has not enough money")]
    InsufficientFunds(i64),
    #[error(transparent)]
    Database(#[from] multidb::Error),
}

impl From<diesel::result::Error> for BankError {
    fn from(error: diesel::result::Error) -> Self {
        Self::Database(error.into()) // also gives back an error of multidb's that came through a Diesel query
    }
}

struct BankRouter; // one router for each application, or one for all

impl Router for BankRouter {
    fn select_db(&self, request: &RouteRequest<'_>) -> Route {
        match request.app() {
            "bank" => Route::prefer("bank"), // its own database where one is configured, else `default`
            "ledger" => Route::prefer("ledger"),
            _ => Route::pass(), // no opinion: the next router is asked
        }
    }
}

#[transactional(Account)] // commits on Ok, rolls back on Err and on panic
fn debit(#[conn] conn: &mut SqliteConn, id: i64, cents: i64) -> Result<(), BankError> {
    let paid = diesel::update(accounts::table.filter(accounts::id.eq(id).and(accounts::balance.ge(cents))))
        .set(accounts::balance.eq(accounts::balance - cents))
        .execute(conn)?;
    if paid == 1 { Ok(()) } else { Err(BankError::InsufficientFunds(id)) }
}

#[transactional(Account)]
fn credit(#[conn] conn: &mut SqliteConn, id: i64, cents: i64) -> Result<(), BankError> {
    diesel::update(accounts::table.find(id)).set(accounts::balance.eq(accounts::balance + cents)).execute(conn)?;
    Ok(())
}

#[transactional(Entry)]
fn record(#[conn] conn: &mut SqliteConn, from: i64, to: i64, cents: i64) -> Result<(), BankError> {
    let entries = [Entry { account: from, cents: -cents }, Entry { account: to, cents }];
    diesel::insert_into(entries::table).values(&entries).execute(conn)?;
    Ok(())
}

#[transactional(Account, Entry)] // one transaction, and the three calls join it: nobody passes a connection
fn transfer(from: i64, to: i64, cents: i64) -> Result<(), BankError> {
    credit(to, cents)?;
    record(from, to, cents)?;
    debit(from, cents)
}

fn create_tables() -> Result<(), BankError> {
    connection::<Account, SqliteConn>()?.batch_execute(
        "CREATE TABLE accounts (id BIGINT PRIMARY KEY, balance BIGINT NOT NULL);
         INSERT INTO accounts VALUES (1, 1000), (2, 0);",
    )?;
    connection::<Entry, SqliteConn>()?.batch_execute(
        "CREATE TABLE entries (id INTEGER PRIMARY KEY, account BIGINT NOT NULL, cents BIGINT NOT NULL);",
    )?;
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    Databases::from_toml(include_str!("databases.toml"))?.router(BankRouter).install()?;
    create_tables()?;

    transfer(1, 2, 500)?;
    let refused = transfer(1, 2, 600).expect_err("there are 500 left");
    println!("second transfer: {refused}"); // its credit and its two entries are rolled back with it

    let conn = &mut connection::<Account, SqliteConn>()?; // outside of a scope: autocommit
    for account in accounts::table.select(Account::as_select()).load(conn)? {
        println!("account {} holds {}", account.id, account.balance);
    }
    Ok(())
}
