use multidb::prelude::*;

#[derive(Model)]
struct Account;

#[transactional(Account)]
const fn debit(id: i64) -> Result<i64, multidb::Error> {
    Ok(id)
}

fn main() {
    debit(1).ok();
}
