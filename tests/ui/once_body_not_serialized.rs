use multidb::prelude::*;

#[derive(Model)]
struct Account;

fn touch(_conn: &mut SqliteConn, by: i64) -> Result<i64, multidb::Error> {
    if by > 0 { Ok(by) } else { Ok(0) }
}

struct Order {
    id: i64,
}

#[transactional(Account, once = (order.id, &order))]
fn debit(#[conn] conn: &mut SqliteConn, order: Order) -> Result<i64, multidb::Error> {
    touch(conn, order.id)
}

fn main() {
    debit(Order { id: 1 }).ok();
}
