use multidb::prelude::*;

#[derive(Model)]
struct Account;

fn touch(_conn: &mut SqliteConn) -> Result<i64, multidb::Error> {
    Ok(1)
}

#[transactional(Account)]
fn debit(#[conn] conn: &mut SqliteConn, id: i64) -> Option<i64> {
    Some(touch(conn).ok()? + id)
}

fn main() {
    debit(1);
}
