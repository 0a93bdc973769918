//! Transactions over two databases: claims that only MariaDB can meet.

use std::sync::Barrier;

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sql_types::Text;
use multidb::{Databases, Error, MysqlConn, Reason, atomic, atomic_many, connection, schema};

use crate::mysql::*;
use crate::mysql_server::in_doubt::{COMMIT_PREPARED, Far, PREPARE, REPLY};
use crate::support::proxy::Loses;

#[derive(QueryableByName)]
struct Setting {
    #[diesel(sql_type = Text)]
    value: String,
}

fn installed(size: u32) -> Option<(Fixture, Databases)> {
    let fixture = fixture()?;
    let databases = fixture.builder(size).build().unwrap();
    schema::install(&databases).unwrap();
    Some((fixture, databases))
}

#[test]
fn a_ddl_on_a_home_that_began_plainly_leaves_nothing_prepared_and_no_decision() {
    let Some((fixture, databases)) = installed(2) else { return };
    let _entered = databases.enter();
    for late in [false, true] {
        let run = atomic::<Item>().run(|conn: &mut MysqlConn| {
            put(i64::from(late), 10)?;
            let ddl = format!("CREATE TABLE made_{late} (id BIGINT)");
            if !late {
                diesel::sql_query(&ddl).execute(conn)?;
            }
            put_record(i64::from(late), 20)?;
            if late {
                diesel::sql_query(&ddl).execute(conn)?;
            }
            Ok::<_, Error>(())
        });
        let error = run.unwrap_err();
        assert!(matches!(error, Error::ImplicitCommit { .. }), "{late}: {error}");
        // What the DDL has committed stays: the error says so.
        assert_eq!(fixture.rows("other"), [], "{late}");
        assert_eq!([across::own_rows(&fixture, "default"), across::own_rows(&fixture, "other")], [0, 0], "{late}");
        assert!(databases.recover().unwrap().is_clear(), "{late}");
        assert_eq!((in_use(&databases, "default"), in_use(&databases, "other")), (0, 0), "{late}");
    }
}

#[test]
fn a_ddl_inside_listed_databases_is_refused_by_the_server_and_nothing_is_kept() {
    let Some((fixture, databases)) = installed(2) else { return };
    let _entered = databases.enter();
    for on_home in [true, false] {
        let run = atomic_many::<(Item, Record)>().run(|scope| {
            put(1, 10)?;
            put_record(1, 20)?;
            let mut conn =
                if on_home { scope.conn::<Item, MysqlConn>()? } else { scope.conn::<Record, MysqlConn>()? };
            diesel::sql_query("CREATE TABLE made (id BIGINT)").execute(&mut conn)?;
            Ok::<_, Error>(())
        });
        is_explained(&run.unwrap_err(), on_home);
        assert_eq!((fixture.rows("default"), fixture.rows("other")), (vec![], vec![]));
        assert!(databases.recover().unwrap().is_clear());
    }
}

#[test]
fn the_limits_of_a_transaction_do_not_reach_the_connections_next_user() {
    let Some((fixture, databases)) = installed(1) else { return };
    let _entered = databases.enter();
    let limits = |conn: &mut MysqlConn| {
        let query = "SELECT CONCAT(@@innodb_lock_wait_timeout, ' ', @@wait_timeout, ' ', @@lock_wait_timeout) AS value";
        diesel::sql_query(query).get_result::<Setting>(conn).unwrap().value
    };
    let before = limits(&mut connection::<Record, MysqlConn>().unwrap());
    // A text of the body's makes the pool doubt the session, which may then end with its limits.
    for (fails, looks) in [(false, true), (true, true), (false, false), (true, false)] {
        let run = atomic_many::<(Item, Record)>().run(|scope| {
            put(1, 10)?;
            put_record(1, 20)?;
            if looks {
                assert_eq!(limits(&mut scope.conn::<Item, MysqlConn>()?), "5 60 5");
                assert_eq!(limits(&mut scope.conn::<Record, MysqlConn>()?), "5 60 5");
            }
            if fails { Err(Mishap::OnPurpose) } else { Ok(()) }
        });
        assert_eq!(run.is_err(), fails);
        assert_eq!(limits(&mut connection::<Record, MysqlConn>().unwrap()), before);
        assert_eq!(limits(&mut connection::<Item, MysqlConn>().unwrap()), before);
        for alias in ["default", "other"] {
            fixture.observer(alias).batch_execute("DELETE FROM items").unwrap();
        }
    }
}

#[test]
fn the_victim_of_a_deadlock_inside_xa_is_retryable_and_gets_through() {
    let Some((fixture, databases)) = installed(4) else { return };
    for alias in ["default", "other"] {
        fixture.observer(alias).batch_execute("INSERT INTO items VALUES (1, 0)").unwrap();
    }
    let barrier = Barrier::new(2);
    let bump = |conn: &mut MysqlConn| diesel::update(items::table).set(items::value.eq(items::value + 1)).execute(conn);
    std::thread::scope(|threads| {
        for home_first in [true, false] {
            let (databases, barrier) = (&databases, &barrier);
            threads.spawn(move || {
                let _entered = databases.enter();
                let mut attempts = 0;
                let run = atomic_many::<(Item, Record)>().retry(5).run(|scope| {
                    attempts += 1;
                    let (mut item, mut record) = (scope.conn::<Item, MysqlConn>()?, scope.conn::<Record, MysqlConn>()?);
                    let (first, second) = if home_first { (&mut item, &mut record) } else { (&mut record, &mut item) };
                    bump(first)?;
                    if attempts == 1 {
                        barrier.wait();
                    }
                    bump(second)?;
                    Ok::<_, Error>(())
                });
                run.unwrap();
            });
        }
    });
    assert_eq!((fixture.rows("default"), fixture.rows("other")), (vec![(1, 2)], vec![(1, 2)]));
    assert!(databases.recover().unwrap().is_clear());
}

#[test]
fn a_second_phase_that_the_server_refuses_is_left_to_recovery_with_its_connection() {
    let Some(far) = Far::new() else { return };
    far.put_both(100).result.unwrap();
    // The server doesn't understand it, so the session goes on, and the branch is its own.
    far.proxies[1].lose_once(b"XA COMMIT", Loses::Sense);
    let seen = far.put_both(1);
    assert!(seen.result.is_ok() && far.proxies[1].hit());
    assert_eq!(far.prepared(), 1);
    let state = far.databases.database("other").unwrap().pool_state();
    assert_eq!(state.connections, 0, "its connection is in the pool, and nobody else may finish the branch");
    assert!(far.agree(1, "refused"));
}

#[test]
fn a_branch_that_joins_again_beside_its_lost_session_has_another_name() {
    let Some(far) = Far::new() else { return };
    far.put_both(100).result.unwrap();
    let _entered = far.databases.enter();
    let run = atomic::<Item>().run(|_: &mut MysqlConn| {
        put(1, 10)?;
        far.proxies[1].lose_once(b"XA ROLLBACK", Loses::Client);
        let inner = atomic::<Record>().run(|_: &mut MysqlConn| {
            put_record(2, 20)?;
            Err::<(), _>(Mishap::OnPurpose)
        });
        assert!(inner.is_err() && far.proxies[1].hit());
        put_record(1, 20)
    });
    run.unwrap();
    far.proxies[1].let_go();
    far.recover();
    let ids = |alias| far.fixture.rows(alias).into_iter().map(|(id, _)| id).collect::<Vec<_>>();
    assert_eq!((ids("default"), ids("other"), far.prepared()), (vec![1, 100], vec![1, 100], 0));
}

/// What a server gets that is to end a branch, and what it gets instead: it says that it is done, and nothing is.
const IN_VAIN: [(&[u8], &[u8]); 2] = [(b"XA COMMIT ", b"DO 0   -- "), (b"XA ROLLBACK ", b"DO 0     -- ")];

#[test]
fn a_branch_that_the_server_says_to_have_ended_and_has_not_is_left_and_told_of() {
    let Some(far) = Far::new() else { return };
    far.put_both(100).result.unwrap();
    for (id, decided, (needle, instead)) in [(1, true, IN_VAIN[0]), (2, false, IN_VAIN[1])] {
        let lost = if decided { (COMMIT_PREPARED, Loses::Request) } else { (PREPARE, REPLY) };
        far.proxies[1].lose_once(lost.0, lost.1);
        let seen = far.put_both(id);
        assert_eq!((seen.result.is_ok(), far.prepared()), (decided, 1));
        far.proxies[1].lose_once(needle, Loses::Words(instead));
        let report = far.databases.recover().unwrap();
        assert!(far.proxies[1].hit());
        let [left] = report.left() else { panic!("{report}") };
        assert_eq!((&left.id, left.reason), (&seen.id, Reason::Held), "{report}");
        let said = left.said.as_deref().unwrap();
        assert!(said.starts_with("`other`: branch 2_") || said.starts_with("`other`: branch 1_"), "{said}");
        assert!(report.heuristic().is_empty() && report.committed().is_empty() && report.rolled_back().is_empty());
        assert_eq!(far.agree(id, "in vain"), decided);
    }
}

/// The error of a statement that commits, in a branch that began with its name.
fn is_explained(error: &Error, on_home: bool) {
    let told = error.to_string();
    let alias = if on_home { "database `default`" } else { "database `other`" };
    for part in [alias, "DDL or LOCK TABLES", "XAER_RMFAIL", "before or after the scope"] {
        assert!(told.contains(part), "{part} is missing in: {told}");
    }
    assert!(!error.is_in_doubt() && !error.is_retryable(), "{error:?}");
}

/// A way to send a statement that commits.
type Way = fn(&mut MysqlConn) -> Result<(), Error>;

#[test]
fn each_statement_that_commits_inside_listed_databases_is_told_with_its_database() {
    let Some((fixture, databases)) = installed(2) else { return };
    fixture.observer("other").batch_execute("CREATE PROCEDURE make() CREATE TABLE made (id BIGINT)").unwrap();
    let _entered = databases.enter();
    let ways: [Way; 6] = [
        |conn| Ok(conn.batch_execute("LOCK TABLES items WRITE")?),
        |conn| Ok(conn.batch_execute("TRUNCATE TABLE items")?),
        |conn| Ok(conn.batch_execute("ALTER TABLE items ADD COLUMN more INT")?),
        |conn| Ok(diesel::sql_query("CALL make()").execute(conn).map(drop)?),
        |conn| Ok(diesel::sql_query("ANALYZE TABLE items").load::<Setting>(conn).map(drop)?),
        |conn| conn.with_raw(|raw| Ok::<_, Error>(raw.batch_execute("CREATE TABLE made (id BIGINT)")?)),
    ];
    for (at, way) in ways.into_iter().enumerate() {
        for swallows in [false, true] {
            let run = atomic_many::<(Item, Record)>().run(|scope| {
                put(1, 10)?;
                put_record(1, 20)?;
                let done = way(&mut scope.conn::<Record, MysqlConn>()?);
                if swallows { Ok(()) } else { done }
            });
            let error = run.unwrap_err();
            match error {
                // The library hands a body's own use of the connection back as it was.
                Error::Query(_) if at == 5 && !swallows => {}
                error => is_explained(&error, false),
            }
            assert_eq!((fixture.rows("default"), fixture.rows("other")), (vec![], vec![]), "{at}");
            assert!(databases.recover().unwrap().is_clear());
        }
    }
}
