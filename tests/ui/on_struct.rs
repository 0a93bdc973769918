use multidb::prelude::*;

#[transactional]
struct Account;

fn main() {
    let _ = Account;
}
