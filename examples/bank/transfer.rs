//! One line, one transfer.

use diesel::dsl::max;
use diesel::prelude::*;
use multidb::prelude::*;

use crate::error::{BankError, retry};
use crate::order::Order;
use crate::reason::Reason;
use crate::store::{Account, Entry, accounts, entries, lock_bank};

/// Runs a transfer, again if another program's lock was in the way and nothing was committed.
pub fn run(order: Order) -> Result<(), BankError> {
    retry(|| {
        let mut recorded = None;
        transfer(order, &mut recorded).map_err(|error| match recorded {
            // Another attempt would enter it twice. This error is not retried.
            Some(transfer) => BankError::HalfDone { transfer, source: Box::new(error) },
            None => error,
        })
    })
}

/// Moves the money and records it. `recorded` is the transfer's number from the moment at which the ledger has it.
///
/// `record` is last: it commits by itself, so nothing that may be rejected comes after it.
#[transactional(Account)]
fn transfer(order: Order, recorded: &mut Option<i64>) -> Result<(), BankError> {
    lock_bank()?;
    both_exist(order.from, order.to)?;
    debit(order.from, order.cents)?;
    credit(order.to, order.cents)?;
    *recorded = Some(record(order)?);
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

/// Enters both sides of the transfer and returns its number.
///
/// A transaction of its own, until one commit can cover both databases: see the text at the top of `main.rs`.
#[transactional(Entry, propagation = requires_new)]
fn record(#[conn] conn: &mut AnyConn, order: Order) -> Result<i64, BankError> {
    let Order { from, to, cents } = order;
    let last: Option<i64> = entries::table.select(max(entries::transfer)).first(conn)?;
    let transfer = last.unwrap_or(0) + 1;
    let sides = [Entry { transfer, account: from, cents: -cents }, Entry { transfer, account: to, cents }];
    // One by one: see `setup::insert`.
    for side in &sides {
        diesel::insert_into(entries::table).values(side).execute(conn)?;
    }
    Ok(transfer)
}
