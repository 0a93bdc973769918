use multidb::prelude::*;

#[derive(Model)]
struct Account;

fn touch(_conn: &mut SqliteConn) -> Result<i64, multidb::Error> {
    Ok(1)
}

#[transactional(Account)]
async fn debit(#[conn] conn: &mut SqliteConn, id: i64) -> Result<i64, multidb::Error> {
    std::future::ready(()).await;
    Ok(touch(conn)? + id)
}

fn main() {
    drop(debit(1));
}
