//! Commits that can be verified.

use std::cell::Cell;
use std::rc::Rc;

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sql_types::Text;
use multidb::{Error, FailureClass, atomic, atomic_many, schema, scope};

use super::lost::COMMIT;
use super::witness::behind_proxy;
use super::*;
use crate::fixture::Kind;
use crate::support::proxy::Loses;

#[derive(QueryableByName)]
struct Decision {
    #[diesel(sql_type = Text)]
    gid: String,
}

fn decisions(fixture: &Fixture) -> Vec<String> {
    let sql = "SELECT CAST(gid AS CHAR(64)) AS gid FROM multidb_decision WHERE state = 'c' ORDER BY gid";
    let rows: Vec<Decision> = diesel::sql_query(sql).load(&mut fixture.observer("default")).unwrap();
    rows.into_iter().map(|row| row.gid.trim().to_owned()).collect()
}

fn put_verified(id: i64) -> Result<(), Error> {
    atomic::<Item>().verify_commit().run(|_: &mut H| put(id, 0))
}

#[test]
fn a_lost_reply_to_a_verified_commit_is_ok_where_the_server_has_committed() {
    let Some(fixture) = fixture() else { return };
    let (proxy, databases) = behind_proxy(&fixture, 2);
    schema::install(&databases).unwrap();
    let _entered = databases.enter();
    proxy.drop_replies_when(COMMIT);
    let (id, hooks) = (Rc::new(Cell::new(None)), Rc::new(Cell::new(0)));
    let run = atomic::<Item>().verify_commit().run(|_: &mut H| {
        id.set(scope::current());
        let hooks = Rc::clone(&hooks);
        scope::on_commit(move || hooks.set(hooks.get() + 1));
        put(1, 10)
    });
    assert!(proxy.hit());
    proxy.clear();
    run.unwrap();
    assert_eq!((hooks.get(), fixture.rows("default")), (1, vec![(1, 10)]));
    assert_eq!(decisions(&fixture), [id.take().unwrap().to_string()]);
    assert_eq!(in_use(&databases, "default"), 0);
}

#[test]
fn a_lost_request_of_a_verified_commit_is_rolled_back_and_may_be_run_again() {
    let Some(fixture) = fixture() else { return };
    let (proxy, databases) = behind_proxy(&fixture, 2);
    schema::install(&databases).unwrap();
    let _entered = databases.enter();
    let undone = Rc::new(Cell::new(0));
    proxy.drop_requests_when(COMMIT);
    let run = atomic::<Item>().verify_commit().run(|_: &mut H| {
        let undone = Rc::clone(&undone);
        scope::on_rollback(move || undone.set(undone.get() + 1));
        put(1, 10)
    });
    assert!(proxy.hit());
    let Err(Error::Doomed { first, .. }) = &run else { panic!("{run:?}") };
    assert_eq!((first.class(), undone.get()), (FailureClass::NotCommitted, 1));
    assert!(run.unwrap_err().is_retryable());
    assert_eq!((fixture.rows("default"), decisions(&fixture)), (vec![], vec![]));

    let mut attempts = 0;
    let run = atomic::<Item>().verify_commit().retry(1).run(|_: &mut H| {
        attempts += 1;
        if attempts == 2 {
            proxy.clear();
        }
        put(attempts, 0)
    });
    run.unwrap();
    assert_eq!((fixture.rows("default"), decisions(&fixture).len()), (vec![(2, 0)], 1));
}

#[test]
fn while_the_lost_session_lives_the_outcome_stays_unknown() {
    let Some(fixture) = fixture() else { return };
    let (proxy, databases) = behind_proxy(&fixture, 2);
    schema::install(&databases).unwrap();
    let _entered = databases.enter();
    proxy.lose_always(COMMIT, Loses::Client);
    let error = put_verified(1).unwrap_err();
    assert!(proxy.hit());
    proxy.clear();
    assert!(error.is_in_doubt() && !error.is_retryable(), "{error}");
    assert_eq!(fixture.rows("default"), [], "the server has got no COMMIT");
}

#[test]
fn each_verified_commit_has_its_row_and_what_wrote_nothing_has_none() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.databases();
    schema::install(&databases).unwrap();
    let _entered = databases.enter();
    put_verified(1).unwrap();
    let _ = atomic::<Item>().verify_commit().run(|_: &mut H| put_and_fail(2));
    atomic::<Item>().verify_commit().run(|_: &mut H| Ok::<_, Error>(())).unwrap();
    let read_only = atomic::<Item>().verify_commit().read_only();
    read_only.run(|conn: &mut H| items::table.count().get_result::<i64>(conn)).unwrap();
    assert_eq!(decisions(&fixture).len(), 1);
    // Each segment of a manual scope is a transaction of its own.
    let run = atomic::<Item>().verify_commit().manual().run(|_: &mut H| {
        put(3, 0)?;
        scope::commit()?;
        put(4, 0)?;
        scope::commit()
    });
    run.unwrap();
    assert_eq!((decisions(&fixture).len(), fixture.rows("default").len()), (3, 3));
}

#[test]
fn without_its_table_a_verified_commit_keeps_nothing_and_says_what_to_do() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.databases();
    let _entered = databases.enter();
    let error = put_verified(1).unwrap_err();
    assert!(error.is_config() && error.to_string().contains("multidb::schema::install"), "{error}");
    assert_eq!(fixture.rows("default"), []);
    fixture.observer("default").batch_execute("SELECT 1").unwrap();
    assert_eq!(in_use(&databases, "default"), 0);
}

#[test]
fn a_key_makes_a_lost_commit_safe_to_repeat_whoever_repeats_it() {
    for (verified, request) in [(false, false), (false, true), (true, false), (true, true)] {
        let Some(fixture) = fixture() else { return };
        let (proxy, databases) = behind_proxy(&fixture, 2);
        schema::install(&databases).unwrap();
        let _entered = databases.enter();
        let runs = Cell::new(0);
        let call = || {
            let scope = atomic::<Item>().label("call").retry(2).once("a");
            let scope = if verified { scope.verify_commit() } else { scope };
            scope.run(|_: &mut H| {
                runs.set(runs.get() + 1);
                put(runs.get(), 0)?;
                Ok::<_, Error>(runs.get())
            })
        };
        proxy.lose_once(COMMIT, if request { Loses::Request } else { Loses::ReplyAfter(0) });
        let first = call();
        assert!(proxy.hit());
        if verified {
            assert_eq!(first.unwrap(), if request { 2 } else { 1 });
        } else {
            assert!(matches!(first, Err(Error::OutcomeUnknown { .. })), "{first:?}");
            assert_eq!(runs.get(), 1);
        }
        let expected = if request { 2 } else { 1 };
        assert_eq!(call().unwrap(), expected);
        assert_eq!((runs.get(), fixture.rows("default")), (expected, vec![(expected, 0)]));
        assert_eq!(in_use(&databases, "default"), 0);
    }
}

#[test]
fn a_verified_commit_whose_connection_is_gone_before_its_proof_is_rolled_back() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.databases();
    schema::install(&databases).unwrap();
    let _entered = databases.enter();
    let undone = Rc::new(Cell::new(0));
    let [own, end] = match KIND {
        Kind::Mysql => ["SELECT CAST(CONNECTION_ID() AS CHAR(64)) AS gid", "KILL "],
        _ => ["SELECT CAST(pg_backend_pid() AS TEXT) AS gid", "SELECT pg_terminate_backend("],
    };
    let run = atomic_many::<(Item, Record)>().verify_commit().run(|scope| {
        let undone = Rc::clone(&undone);
        scope::on_rollback(move || undone.set(undone.get() + 1));
        put(1, 10)?;
        let session: Decision = diesel::sql_query(own).get_result(&mut scope.conn::<Item, H>()?)?;
        let close = if KIND == Kind::Mysql { "" } else { ")" };
        fixture.observer("default").batch_execute(&format!("{end}{}{close}", session.gid)).unwrap();
        Ok::<_, Error>(())
    });
    let error = run.unwrap_err();
    assert!(!error.is_in_doubt(), "{error}");
    assert_eq!((undone.get(), fixture.rows("default"), decisions(&fixture)), (1, vec![], vec![]), "{error}");
    assert_eq!((in_use(&databases, "default"), in_use(&databases, "other")), (0, 0));
}
