use multidb::prelude::*;

#[derive(Model)]
struct Account;

fn touch(_conn: &mut SqliteConn, by: i64) -> Result<i64, multidb::Error> {
    if by > 0 { Ok(by) } else { Ok(0) }
}

struct Order {
    id: i64,
}

#[transactional(Account, retry = 3)]
fn debit(#[conn] conn: &mut SqliteConn, order: crate::Order) -> Result<Order, multidb::Error> {
    touch(conn, order.id)?;
    Ok(order)
}

fn main() {
    debit(Order { id: 1 }).ok();
}
