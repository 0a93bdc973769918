use multidb::prelude::*;

#[derive(Model)]
struct Account;

fn touch(_conn: &mut SqliteConn, by: i64) -> Result<i64, multidb::Error> {
    if by > 0 { Ok(by) } else { Ok(0) }
}

#[transactional(Account, retry = 3)]
fn debit<T>(#[conn] conn: &mut SqliteConn, item: T) -> Result<T, multidb::Error> {
    touch(conn, 1)?;
    Ok(item)
}

fn main() {
    debit(1).ok();
}
