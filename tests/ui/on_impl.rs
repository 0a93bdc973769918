use multidb::prelude::*;

struct Account;

#[transactional]
impl Account {
    fn debit(&self) {}
}

fn main() {
    Account.debit();
}
