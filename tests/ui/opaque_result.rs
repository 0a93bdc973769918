use multidb::prelude::*;

#[derive(Model)]
struct Account;

fn touch(_conn: &mut SqliteConn) -> Result<i64, multidb::Error> {
    Ok(1)
}

#[transactional(Account, acknowledge = later)]
fn debit(#[conn] conn: &mut SqliteConn, id: i64) -> Result<impl Iterator<Item = i64>, multidb::Error> {
    Ok([touch(conn)?, id].into_iter())
}

fn main() {
    debit(1).ok();
}
