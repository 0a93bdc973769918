//! `XA START .. XA PREPARE .. XA COMMIT` through the slot.

use std::time::{Duration, Instant};

use super::*;
use crate::MysqlConn;
use crate::connection::control::Joint;

type Raw = diesel::MysqlConnection;

#[derive(QueryableByName)]
struct Branch {
    #[diesel(sql_type = diesel::sql_types::Text)]
    data: String,
}

fn prepared(url: &str, gid: &Gid) -> bool {
    let branches: Vec<Branch> =
        diesel::sql_query("XA RECOVER").load(&mut Raw::establish(url).expect("the server")).expect("the list");
    let wanted = gid.xa().to_string().replace(['\'', ','], "");
    branches.iter().any(|branch| branch.data == wanted)
}

fn database() -> Option<(Databases, String, String)> {
    let server = servers::mysql_url()?;
    let name = fresh_name();
    let (address, _) = server.rsplit_once('/')?;
    let url = format!("{address}/{name}");
    Raw::establish(server).expect("the server").batch_execute(&format!("CREATE DATABASE {name}")).expect("one");
    let table = "CREATE TABLE items (id BIGINT PRIMARY KEY)";
    Raw::establish(&url).expect("the database").batch_execute(table).expect("a table");
    let mut config = DatabaseConfig::new("a", url.clone());
    config.pool.max_size = Some(1);
    Some((Databases::builder().database(config).build().expect("the database"), url, name))
}

fn open(databases: &Databases, gid: &Gid) -> Ticket {
    let start =
        Start { across: Some(Box::new(Joint { name: "test".into(), xa: Some(gid.clone()) })), ..Start::default() };
    begin(databases, [(None, 0)], SITE, Kind::Scope, &start, &Terms::default()).expect("a transaction")
}

fn put(id: i64) -> QueryResult<usize> {
    diesel::insert_into(items::table).values(items::id.eq(id)).execute(&mut handle::<MysqlConn>(0))
}

fn rows(url: &str) -> Vec<i64> {
    items::table
        .select(items::id)
        .order(items::id)
        .load(&mut Raw::establish(url).expect("the server"))
        .expect("its rows")
}

/// Waits until the server knows of no session on a database.
fn until_nobody_is_there(name: &str) {
    const LIMIT: Duration = Duration::from_secs(30);
    let mut operator = Raw::establish(servers::mysql_url().expect("the server")).expect("the server");
    let sessions = format!("SELECT 'one' AS data FROM information_schema.processlist WHERE db = '{name}'");
    let begin = Instant::now();
    while !diesel::sql_query(&sessions).load::<Branch>(&mut operator).expect("the sessions").is_empty() {
        assert!(begin.elapsed() < LIMIT, "its session does not end");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn is_back(databases: &Databases) {
    let state = databases.at(0).pool_state();
    assert_eq!((state.connections, state.idle_connections), (1, 1), "the connection is fit for the pool");
}

#[test]
fn a_branch_begun_with_xa_is_prepared_and_finished_on_its_own_connection() {
    let Some((databases, url, name)) = database() else { return };
    for commit in [false, true] {
        let gid = Gid::new(&name, if commit { "1" } else { "0" }).expect("a plain name");
        let ticket = open(&databases, &gid);
        put(1).expect("a row");
        let inner = nest(SITE, Kind::Scope, Limits::NONE).expect("a level");
        put(2).expect("a row");
        leave(inner, Verdict::Undo).expect("savepoints work inside XA");
        let slot = slot(0);
        slot.prepare(&gid).expect("prepared");
        assert!(prepared(&url, &gid));
        assert_eq!(rows(&url), Vec::<i64>::new());
        slot.finish_prepared(&gid, commit).expect("finished");
        assert!(!prepared(&url, &gid));
        assert_eq!(rows(&url), if commit { vec![1] } else { vec![] });
        leave(ticket, Verdict::Keep).expect("nothing is left to commit");
        is_back(&databases);
    }
}

#[test]
fn a_branch_begun_with_xa_that_stays_alone_commits_in_one_phase_and_refuses_ddl() {
    let Some((databases, url, name)) = database() else { return };
    let gid = |branch| Gid::new(&name, branch).expect("a plain name");
    for (branch, verdict) in [("0", Verdict::Undo), ("1", Verdict::Keep)] {
        let ticket = open(&databases, &gid(branch));
        put(7).expect("a row");
        leave(ticket, verdict).expect("ended");
        assert!(!prepared(&url, &gid(branch)));
        is_back(&databases);
    }
    assert_eq!(rows(&url), [7]);
    let ticket = open(&databases, &gid("2"));
    put(8).expect("a row");
    let ddl = handle::<MysqlConn>(0).batch_execute("CREATE TABLE side (id INT)");
    assert!(ddl.is_err(), "an implicit commit is impossible inside XA");
    assert!(matches!(leave(ticket, Verdict::Keep), Err(Error::Doomed { .. })));
    assert_eq!(rows(&url), [7]);
    is_back(&databases);
}

#[test]
fn a_prepared_branch_that_is_dropped_does_not_go_back_to_the_pool() {
    let Some((databases, url, name)) = database() else { return };
    let gid = Gid::new(&name, "0").expect("a plain name");
    let ticket = open(&databases, &gid);
    put(1).expect("a row");
    slot(0).prepare(&gid).expect("prepared");
    leave(ticket, Verdict::Undo).expect("left");
    assert_eq!(databases.at(0).pool_state().idle_connections, 0);
    assert!(prepared(&url, &gid), "leaving must not decide");
    // The branch belongs to its session. While that ends, MariaDB may tell who finishes the branch that this is done, and it is
    // not.
    until_nobody_is_there(&name);
    let finish = format!("XA ROLLBACK {}", gid.xa());
    Raw::establish(&url).expect("the server").batch_execute(&finish).expect("its session has ended");
    assert!(!prepared(&url, &gid));
}
