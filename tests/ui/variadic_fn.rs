use multidb::prelude::*;

#[derive(Model)]
struct Account;

#[transactional(Account)]
unsafe extern "C" fn debit(id: i64, _: ...) -> Result<i64, multidb::Error> {
    Ok(id)
}

fn main() {}
