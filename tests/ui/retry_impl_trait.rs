use multidb::prelude::*;

#[derive(Model)]
struct Account;

fn touch(_conn: &mut SqliteConn, by: i64) -> Result<i64, multidb::Error> {
    if by > 0 { Ok(by) } else { Ok(0) }
}

#[transactional(Account, retry = 3)]
fn debit(#[conn] conn: &mut SqliteConn, ids: impl Iterator<Item = i64>) -> Result<i64, multidb::Error> {
    touch(conn, ids.sum())
}

fn main() {
    debit([1].into_iter()).ok();
}
