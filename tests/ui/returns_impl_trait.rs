use multidb::prelude::*;

#[derive(Model)]
struct Account;

fn touch(_conn: &mut SqliteConn) -> Result<i64, multidb::Error> {
    Ok(1)
}

#[transactional(Account)]
fn debit(#[conn] conn: &mut SqliteConn, id: i64) -> impl Iterator<Item = i64> {
    touch(conn).ok().into_iter().chain([id])
}

fn main() {
    debit(1).next();
}
