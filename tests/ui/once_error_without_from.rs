use multidb::prelude::*;

#[derive(Model)]
struct Account;

struct BankError;

#[transactional(Account, once = id)]
fn debit(id: i64) -> Result<i64, BankError> {
    if id > 0 { Ok(id) } else { Err(BankError) }
}

fn main() {
    debit(1).ok();
}
