use multidb::prelude::*;

#[derive(Model)]
struct Account;

fn touch(_conn: &mut SqliteConn, by: i64) -> Result<i64, multidb::Error> {
    if by > 0 { Ok(by) } else { Ok(0) }
}

#[transactional(Account, acknowledge)]
fn debit(#[conn] conn: &mut SqliteConn, id: i64) -> Result<i64, multidb::Error> {
    touch(conn, id)
}

fn main() {
    debit(1).ok();
}
