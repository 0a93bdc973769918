use multidb::prelude::*;

#[derive(Model)]
struct Account;

fn touch(_conn: &mut SqliteConn, by: i64) -> Result<i64, multidb::Error> {
    if by > 0 { Ok(by) } else { Ok(0) }
}

struct Counter(Vec<i64>);

impl Counter {
    #[transactional(Account, retry = 3)]
    fn finish(self, #[conn] conn: &mut SqliteConn) -> Result<Vec<i64>, multidb::Error> {
        touch(conn, 1)?;
        Ok(self.0)
    }
}

fn main() {
    Counter(Vec::new()).finish().ok();
}
