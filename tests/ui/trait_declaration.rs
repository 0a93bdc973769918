use multidb::prelude::*;

#[derive(Model)]
struct Account;

trait Bank {
    #[transactional(Account)]
    fn debit(&self, #[conn] conn: &mut SqliteConn, id: i64) -> Result<i64, multidb::Error>;
}

impl Bank for Account {
    fn debit(&self, id: i64) -> Result<i64, multidb::Error> {
        Ok(id)
    }
}

fn main() {
    Account.debit(1).ok();
}
