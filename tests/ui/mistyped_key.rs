use multidb::prelude::*;

fn touch(_conn: &mut SqliteConn) -> Result<i64, multidb::Error> {
    Ok(1)
}

#[transactional(usin = "orders")]
fn debit(#[conn] conn: &mut SqliteConn, id: i64) -> Result<i64, multidb::Error> {
    Ok(touch(conn)? + id)
}

fn main() {
    debit(1).ok();
}
