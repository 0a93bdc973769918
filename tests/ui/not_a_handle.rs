use multidb::prelude::*;

#[derive(Model)]
struct Account;

#[transactional(Account)]
fn debit(#[conn] conn: &mut String, id: i64) -> Result<i64, multidb::Error> {
    conn.push('x');
    Ok(id)
}

fn main() {
    debit(1).ok();
}
