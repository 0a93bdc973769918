use multidb::prelude::*;

#[derive(Model)]
struct Account;

#[transactional(Account)]
fn debit(id: i64) -> () {
    let _ = id;
}

fn main() {
    debit(1);
}
