use multidb::prelude::*;

#[derive(Model)]
struct Account;

fn touch(_conn: &mut SqliteConn) -> Result<i64, multidb::Error> {
    Ok(1)
}

#[transactional(Account)]
fn debit(#[conn = "orders"] conn: &mut SqliteConn, id: i64) -> Result<i64, multidb::Error> {
    Ok(touch(conn)? + id)
}

fn main() {
    debit(1).ok();
}
