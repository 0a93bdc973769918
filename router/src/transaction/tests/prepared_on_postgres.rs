//! `PREPARE TRANSACTION` through the slot.

use super::*;
use crate::PgConn;

type Raw = diesel::PgConnection;

#[derive(QueryableByName)]
struct Count {
    #[diesel(sql_type = diesel::sql_types::BigInt)]
    n: i64,
}

fn prepared(url: &str, gid: &Gid) -> i64 {
    let query = format!("SELECT COUNT(*) AS n FROM pg_prepared_xacts WHERE gid = {}", gid.postgres());
    diesel::sql_query(query).get_result::<Count>(&mut Raw::establish(url).expect("the server")).expect("a count").n
}

fn database() -> Option<(Databases, String, String)> {
    let server = servers::postgres_url()?;
    let name = fresh_name();
    let create = format!("CREATE SCHEMA {name}; CREATE TABLE {name}.items (id BIGINT PRIMARY KEY)");
    Raw::establish(server).expect("the server").batch_execute(&create).expect("a schema");
    let url = format!("{server}?options=-csearch_path%3D{name}");
    let mut config = DatabaseConfig::new("a", url.clone());
    config.pool.max_size = Some(1);
    Some((Databases::builder().database(config).build().expect("the database"), url, name))
}

fn open(databases: &Databases) -> Ticket {
    let ticket =
        begin(databases, [(None, 0)], SITE, Kind::Scope, &Start::default(), &Terms::default()).expect("a transaction");
    let conn = &mut handle::<PgConn>(0);
    diesel::insert_into(items::table).values(items::id.eq(1)).execute(conn).expect("a row");
    ticket
}

fn rows(url: &str) -> Vec<i64> {
    items::table.select(items::id).load(&mut Raw::establish(url).expect("the server")).expect("its rows")
}

fn is_back(databases: &Databases) {
    let state = databases.at(0).pool_state();
    assert_eq!((state.connections, state.idle_connections), (1, 1), "the connection is fit for the pool");
}

#[test]
fn a_branch_is_prepared_and_then_committed_or_rolled_back_on_its_own_connection() {
    let Some((databases, url, name)) = database() else { return };
    for commit in [false, true] {
        let gid = Gid::new(&name, if commit { "1" } else { "0" }).expect("a plain name");
        let ticket = open(&databases);
        let slot = slot(0);
        slot.prepare(&gid).expect("prepared");
        assert_eq!((prepared(&url, &gid), rows(&url)), (1, vec![]));
        slot.finish_prepared(&gid, commit).expect("finished");
        assert_eq!((prepared(&url, &gid), rows(&url).len()), (0, usize::from(commit)));
        leave(ticket, Verdict::Keep).expect("nothing is left to commit");
        is_back(&databases);
    }
}

#[test]
fn a_prepared_branch_that_is_dropped_does_not_go_back_to_the_pool() {
    let Some((databases, url, name)) = database() else { return };
    let gid = Gid::new(&name, "0").expect("a plain name");
    let ticket = open(&databases);
    slot(0).prepare(&gid).expect("prepared");
    // As when the coordinator gives up: nobody knows the outcome, so the connection must be discarded.
    leave(ticket, Verdict::Undo).expect("left");
    assert_eq!(databases.at(0).pool_state().idle_connections, 0);
    assert_eq!(prepared(&url, &gid), 1, "leaving must not decide");
    let finish = format!("ROLLBACK PREPARED {}", gid.postgres());
    Raw::establish(&url).expect("the server").batch_execute(&finish).expect("rolled back");
}

#[test]
fn an_aborted_transaction_is_not_prepared() {
    let Some((databases, url, name)) = database() else { return };
    let gid = Gid::new(&name, "0").expect("a plain name");
    let ticket = open(&databases);
    let conn = &mut handle::<PgConn>(0);
    diesel::insert_into(items::table).values(items::id.eq(1)).execute(conn).expect_err("a duplicate");
    assert!(matches!(slot(0).prepare(&gid).expect_err("doomed").error, Error::Doomed { .. }));
    assert_eq!(prepared(&url, &gid), 0);
    leave(ticket, Verdict::Undo).expect("rolled back");
    is_back(&databases);
}
