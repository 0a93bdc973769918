use multidb::prelude::*;

#[derive(Model)]
struct Account;

fn touch(_conn: &mut SqliteConn) -> Result<i64, multidb::Error> {
    Ok(1)
}

type Balance = i64;

#[transactional(Account)]
fn debit(#[conn] conn: &mut SqliteConn, id: i64) -> Balance {
    touch(conn).map_or(0, |by| by + id)
}

fn main() {
    debit(1);
}
