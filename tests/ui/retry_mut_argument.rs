use multidb::prelude::*;

#[derive(Model)]
struct Account;

fn touch(_conn: &mut SqliteConn, by: i64) -> Result<i64, multidb::Error> {
    if by > 0 { Ok(by) } else { Ok(0) }
}

#[transactional(Account, retry = 3)]
fn debit(#[conn] conn: &mut SqliteConn, ids: &mut Vec<i64>) -> Result<(), multidb::Error> {
    ids.push(touch(conn, 1)?);
    Ok(())
}

fn main() {
    debit(&mut Vec::new()).ok();
}
