use multidb::prelude::*;

#[derive(Model)]
struct Account;

#[derive(Model)]
struct Entry;

#[transactional(Account, Entry, commit = best_effort, acknowledge = decided)]
fn transfer(cents: i64) -> Result<i64, multidb::Error> {
    Ok(cents)
}

fn main() {
    transfer(1).ok();
}
