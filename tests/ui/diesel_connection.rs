use multidb::prelude::*;

#[derive(Model)]
struct Account;

#[transactional(Account)]
fn debit(#[conn] conn: &mut diesel::SqliteConnection, id: i64) -> Result<i64, multidb::Error> {
    let _ = conn;
    Ok(id)
}

fn main() {
    debit(1).ok();
}
