//! One line, one transfer.

use diesel::dsl::max;
use diesel::prelude::*;
use multidb::prelude::*;

use crate::crash;
use crate::error::{BankError, retry};
use crate::order::Order;
use crate::reason::Reason;
use crate::store::{Account, Entry, accounts, entries, lock_bank, lock_ledger};

/// Runs a transfer, again if another program's lock was in the way and nothing was committed.
pub fn run(order: Order) -> Result<(), BankError> {
    retry(|| transfer(order))?;
    crash::point("transfer.committed");
    Ok(())
}

/// Moves the money and records it: in both databases or in none.
#[transactional(Account, Entry)]
fn transfer(order: Order) -> Result<(), BankError> {
    lock_bank()?;
    both_exist(order.from, order.to)?;
    debit(order.from, order.cents)?;
    crash::point("transfer.debited");
    credit(order.to, order.cents)?;
    crash::point("transfer.credited");
    record(order)?;
    crash::point("transfer.recorded");
    Ok(())
}

#[transactional(Account)]
fn both_exist(#[conn] conn: &mut AnyConn, from: i64, to: i64) -> Result<(), BankError> {
    let found: Vec<i64> = accounts::table.filter(accounts::id.eq_any([from, to])).select(accounts::id).load(conn)?;
    match [from, to].into_iter().find(|id| !found.contains(id)) {
        Some(id) => Err(Reason::UnknownAccount(id).into()),
        None => Ok(()),
    }
}

#[transactional(Account)]
fn debit(#[conn] conn: &mut AnyConn, id: i64, cents: i64) -> Result<(), BankError> {
    let paid = diesel::update(accounts::table.filter(accounts::id.eq(id).and(accounts::balance.ge(cents))))
        .set(accounts::balance.eq(accounts::balance - cents))
        .execute(conn)?;
    if paid == 1 { Ok(()) } else { Err(Reason::InsufficientFunds(id).into()) }
}

#[transactional(Account)]
fn credit(#[conn] conn: &mut AnyConn, id: i64, cents: i64) -> Result<(), BankError> {
    let has_room = accounts::balance.le(i64::MAX - cents);
    let credited = diesel::update(accounts::table.filter(accounts::id.eq(id).and(has_room)))
        .set(accounts::balance.eq(accounts::balance + cents))
        .execute(conn)?;
    if credited == 1 { Ok(()) } else { Err(Reason::BalanceTooLarge(id).into()) }
}

/// Enters both sides of the transfer, under the next number.
#[transactional(Entry)]
fn record(#[conn] conn: &mut AnyConn, order: Order) -> Result<(), BankError> {
    lock_ledger()?;
    let Order { from, to, cents } = order;
    let last: Option<i64> = entries::table.select(max(entries::transfer)).first(conn)?;
    let transfer = last.unwrap_or(0) + 1;
    let sides = [Entry { transfer, account: from, cents: -cents }, Entry { transfer, account: to, cents }];
    // One by one: see `setup::insert`.
    for side in &sides {
        diesel::insert_into(entries::table).values(side).execute(conn)?;
    }
    Ok(())
}
