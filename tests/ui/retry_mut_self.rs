use multidb::prelude::*;

#[derive(Model)]
struct Account;

fn touch(_conn: &mut SqliteConn, by: i64) -> Result<i64, multidb::Error> {
    if by > 0 { Ok(by) } else { Ok(0) }
}

struct Counter(i64);

impl Counter {
    #[transactional(Account, retry = 3)]
    fn add(&mut self, #[conn] conn: &mut SqliteConn, by: i64) -> Result<i64, multidb::Error> {
        self.0 += touch(conn, by)?;
        Ok(self.0)
    }
}

fn main() {
    Counter(1).add(1).ok();
}
