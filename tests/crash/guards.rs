//! What recovery, cleaning and `status` must not do, each where it would be wrong to.
//!
//! Some of it needs a PostgreSQL that says something else than it is. A function or a view of the system's is replaced there, in
//! the test's own database.

use diesel::prelude::*;
use multidb::fault::Stop;
use multidb::{
    AnyConn, DatabaseConfig, Databases, Error, Reason, RecoveryReport, Route, RouteRequest, Router, TransactionStatus,
    atomic, atomic_many,
};

use crate::child::{Work, kill_at, recover, recover_until, resume, start, transfer, until_stopped};
use crate::faked::{HAS_STANDBYS, fake, restore};
use crate::matrix::check;
use crate::places::{Account, Entry, Kind, Places, accounts, builder_of, entries};

use Kind::{MariaDb, Postgres, Sqlite};

/// An age beyond the retention, by each database's own clock, and none.
const OLD: &str = "UPDATE multidb_decision SET created = 0";
const YOUNG: &str = "UPDATE multidb_decision SET created = 4000000000";

/// Nobody listens there.
const UNREACHABLE: &str = "postgres://nobody@127.0.0.1:1/none";

fn reasons(report: &RecoveryReport) -> Vec<Reason> {
    report.left().iter().map(|left| left.reason).collect()
}

/// Recovers until no session of a killed process is in the way.
fn settle(databases: &Databases) -> RecoveryReport {
    recover_until(databases, |report| !reasons(report).contains(&Reason::NotFinished))
}

#[test]
fn a_home_that_is_a_standby_decides_nothing() {
    let Some(places) = Places::new(&[Postgres, Postgres]) else { return };
    let databases = places.databases();
    kill_at(&places, Work::Listed, "prepare.all_done");
    fake(&places, 0, "pg_is_in_recovery()", "RETURNS boolean LANGUAGE sql AS 'SELECT true'");
    let report = settle(&databases);
    assert_eq!((reasons(&report), places.prepared(1)), (vec![Reason::Standby], 1), "{report}");
    restore(&places, 0, "pg_is_in_recovery()");
    recover(&databases);
    assert_eq!(check(&places, "promoted"), Vec::<i64>::new());
}

#[test]
fn a_home_that_cannot_confirm_that_it_is_the_primary_decides_nothing() {
    let Some(places) = Places::new(&[Postgres, Postgres, Postgres]) else { return };
    let databases = places.databases();
    let _entered = databases.enter();
    kill_at(&places, Work::Listed, "prepare.all_done");
    // It has standbys to wait for, and a write on it fails.
    fake(&places, 0, "current_setting(text)", HAS_STANDBYS);
    places.execute(
        0,
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not here'; END $$; CREATE TRIGGER refuse BEFORE UPDATE ON multidb_meta \
         FOR EACH ROW EXECUTE FUNCTION refuse()",
    );
    for _ in 0..3 {
        let report = settle(&databases);
        assert_eq!(reasons(&report), [Reason::Alive], "{report}");
        // What failed there is not in the way of anything else.
        assert_eq!((places.prepared(1), places.prepared(2), report.problems().len()), (1, 1, 0), "{report}");
        assert_eq!(multidb::status(&report.left()[0].id).unwrap(), TransactionStatus::InDoubt);
    }
    places.execute(0, "DROP TRIGGER refuse ON multidb_meta");
    recover(&databases);
    assert_eq!(check(&places, "it confirms"), Vec::<i64>::new());
}

#[test]
fn a_database_whose_receipts_cannot_be_read_has_not_answered() {
    let Some(places) = Places::new(&[Postgres, Postgres, Postgres]) else { return };
    let databases = places.databases();
    places.prepare_by_hand(1, "0000000F");
    // Home was installed in that one.
    places.execute(0, "UPDATE multidb_meta SET incarnation = '0000000F'");
    databases.adopt("accounts").unwrap();
    places.execute(2, "ALTER TABLE multidb_receipt RENAME TO away");
    let report = databases.recover().unwrap();
    assert_eq!((reasons(&report), places.prepared(1)), (vec![Reason::Failover], 1), "{report}");
    places.execute(2, "ALTER TABLE away RENAME TO multidb_receipt");
    recover(&databases);
    assert_eq!((places.prepared(1), places.rows(1)), (0, vec![]));
}

#[test]
fn a_participant_that_cannot_be_listed_is_not_gone() {
    let Some(places) = Places::new(&[Postgres, Postgres]) else { return };
    let databases = places.databases();
    kill_at(&places, Work::Listed, "decide.after_commit");
    fake(&places, 1, "pg_prepared_xacts", "AS SELECT (1 / 0)::text AS gid, current_database() AS database");
    let report = databases.recover().unwrap();
    assert_eq!((report.problems().len(), report.heuristic().len(), report.closed()), (1, 0, 0), "{report}");
    assert_eq!(places.states(0), ["c"]);
    restore(&places, 1, "pg_prepared_xacts");
    recover(&databases);
    assert_eq!(check(&places, "listed"), [1]);
}

#[test]
fn a_participant_that_commits_while_it_is_asked_is_not_gone() {
    let Some(places) = Places::new(&[Postgres, Postgres]) else { return };
    let databases = places.databases();
    kill_at(&places, Work::Listed, "decide.after_commit");
    places.finish_by_hand(1, true);
    // Its receipt can be read from the second listing on: the first one finds out what is to be recovered.
    places.execute(
        1,
        "CREATE TABLE kept AS SELECT * FROM multidb_receipt; DELETE FROM multidb_receipt; CREATE SEQUENCE listings; CREATE \
         FUNCTION list() RETURNS text LANGUAGE plpgsql AS $$ BEGIN IF nextval('listings') = 2 THEN INSERT INTO \
         multidb_receipt SELECT * FROM kept; END IF; RETURN ''; END $$",
    );
    fake(&places, 1, "pg_prepared_xacts", "AS SELECT list() AS gid, current_database() AS database");
    let report = databases.recover().unwrap();
    assert_eq!((report.heuristic().len(), report.closed()), (0, 1), "{report}");
    assert_eq!(places.states(0), ["c"]);
    restore(&places, 1, "pg_prepared_xacts");
    assert_eq!(check(&places, "committed in between"), [1]);
}

#[test]
fn a_branch_that_a_living_session_holds_is_left_and_reported() {
    let Some(places) = Places::new(&[Postgres, MariaDb]) else { return };
    let databases = places.databases();
    let mut paused = start(&places, Work::Listed, "decide.after_commit", Stop::Pause);
    until_stopped(&paused);
    let report = databases.recover().unwrap();
    assert_eq!((reasons(&report), report.committed().len()), (vec![Reason::NotFinished], 0), "{report}");
    resume(&paused);
    assert!(paused.wait().unwrap().success());
    recover(&databases);
    assert_eq!(check(&places, "it has gone on"), [1]);
}

#[test]
fn a_decision_that_was_closed_meanwhile_is_not_marked() {
    let Some(places) = Places::new(&[Postgres, Postgres]) else { return };
    let databases = places.databases();
    kill_at(&places, Work::Listed, "decide.after_commit");
    let mut paused = start(&places, Work::Recovers, "recover.finish.before.0", Stop::Pause);
    until_stopped(&paused);
    recover(&databases);
    // The receipts go, and the decision stays for now.
    places.execute(0, OLD);
    kill_at(&places, Work::Recovers, "clean.receipts.after");
    places.execute(0, YOUNG);
    assert_eq!((places.own_rows(0), places.own_rows(1)), ([1, 0], [0, 0]));
    resume(&paused);
    assert!(paused.wait().unwrap().success());
    assert_eq!(places.states(0), ["c"]);
    assert_eq!(check(&places, "closed meanwhile"), [1]);
}

#[test]
fn on_sqlite_the_row_of_the_question_stays() {
    let Some(places) = Places::new(&[Sqlite, Postgres]) else { return };
    kill_at(&places, Work::Listed, "prepare.all_done");
    recover(&places.databases());
    assert_eq!((places.states(0), check(&places, "aborted")), (vec!["a".to_owned()], vec![]));
}

#[test]
fn on_sqlite_an_old_list_leaves_no_row() {
    let Some(places) = Places::new(&[Sqlite, Postgres]) else { return };
    let databases = places.databases();
    kill_at(&places, Work::Listed, "decide.after_commit");
    let mut paused = start(&places, Work::Recovers, "recover.list.after", Stop::Pause);
    until_stopped(&paused);
    recover(&databases);
    places.execute(0, OLD);
    databases.recover().unwrap();
    assert_eq!((places.own_rows(0), places.own_rows(1)), ([0, 0], [0, 0]));
    resume(&paused);
    assert!(paused.wait().unwrap().success());
    assert_eq!(places.states(0), Vec::<String>::new(), "it would speak of what was committed and deleted");
    assert_eq!(check(&places, "an old list"), [1]);
}

#[test]
fn a_receipt_without_a_decision_is_found_where_nothing_is_prepared() {
    for kinds in [[Postgres, Postgres], [Sqlite, MariaDb]] {
        let Some(places) = Places::new(&kinds) else { return };
        kill_at(&places, Work::Listed, "apply.all_done");
        places.execute(0, "DELETE FROM multidb_decision");
        let report = places.databases().recover().unwrap();
        assert_eq!((report.heuristic().len(), places.states(0)), (1, vec!["h".to_owned()]), "{places}: {report}");
    }
}

#[test]
fn a_decision_that_is_not_closed_is_not_deleted_however_old_it_is() {
    let Some(places) = Places::new(&[Postgres, Postgres]) else { return };
    let databases = places.databases();
    kill_at(&places, Work::Listed, "decide.after_commit");
    // The branch may not be finished for now.
    places.execute(0, "UPDATE multidb_decision SET created = 0; UPDATE multidb_meta SET environment = 'copy'");
    let report = databases.recover().unwrap();
    assert_eq!(
        (reasons(&report), places.states(0)),
        (vec![Reason::OtherEnvironment], vec!["c".to_owned()]),
        "{report}"
    );
    places.execute(0, "UPDATE multidb_meta SET environment = 'default'");
    recover(&databases);
    assert_eq!(check(&places, "old"), [1]);
}

#[test]
fn of_what_a_server_lists_a_database_takes_its_own_branches_alone() {
    for kinds in [[MariaDb, MariaDb], [Postgres, Postgres]] {
        let Some(places) = Places::new(&kinds) else { return };
        kill_at(&places, Work::Listed, "prepare.all_done");
        // The branch is on a database that this one doesn't know.
        let alone = builder_of([(0, &*places.urls[0])].into_iter()).build().unwrap();
        let report = alone.recover().unwrap();
        assert!(report.is_clear() && report.rolled_back().is_empty(), "{places}: {report}");
        assert_eq!(places.prepared(1), 1, "{places}");
        recover(&places.databases());
        assert_eq!(check(&places, "both are known"), Vec::<i64>::new());
    }
}

#[test]
fn a_participant_that_is_not_configured_gives_no_evidence() {
    let Some(places) = Places::new(&[Postgres, Postgres]) else { return };
    kill_at(&places, Work::Listed, "decide.after_commit");
    let alone = builder_of([(0, &*places.urls[0])].into_iter()).build().unwrap();
    let report = alone.recover().unwrap();
    assert_eq!((report.closed(), places.prepared(1)), (0, 1), "{report}");
    recover(&places.databases());
    assert_eq!(check(&places, "configured"), [1]);
}

#[test]
fn a_decision_that_waits_for_a_database_that_is_not_configured_is_named_in_each_pass_and_puts_nothing_in_doubt() {
    for home in [Postgres, MariaDb, Sqlite] {
        let Some(places) = Places::new(&[home, Postgres, MariaDb]) else { return };
        kill_at(&places, Work::Listed, "decide.after_commit");
        // One that is configured is finished meanwhile, and is not named.
        let some = builder_of([(0, &*places.urls[0]), (2, &*places.urls[2])].into_iter()).build().unwrap();
        assert_eq!(settle(&some).committed().len(), 1, "{places}");
        places.execute(0, OLD);
        let gid = places.gids(0).concat();
        let missing = places.meta(1, "database_id");
        for _ in 0..2 {
            let report = some.recover().unwrap();
            let told = report.to_string();
            let words = format!("stays open on `accounts`: `{missing}` is none of the configured databases");
            assert!(told.contains(&gid) && told.contains(&words), "{places}: {told}");
            let [open] = report.open() else { panic!("{places}: {told}") };
            assert_eq!((open.id.to_string(), open.home.as_str()), (gid.clone(), "accounts"), "{places}");
            assert_eq!((&open.missing[..], report.more_open()), (&[missing.clone()][..], 0), "{places}");
            assert!(report.is_clear(), "{places}: it is committed, and nothing is prepared here: {report}");
            assert_eq!((places.unfinished()[0], places.prepared(1), places.prepared(2)), (1, 1, 0), "{places}");
        }
        recover(&places.databases());
        assert!(some.recover().unwrap().open().is_empty(), "{places}: it is closed");
        assert_eq!(check(&places, "all are configured"), [1]);
    }
}

#[test]
fn a_decision_whose_coordinator_may_be_about_to_apply_it_is_not_named() {
    let Some(places) = Places::new(&[Postgres, Postgres]) else { return };
    let mut paused = start(&places, Work::Listed, "decide.after_commit", Stop::Pause);
    until_stopped(&paused);
    let alone = builder_of([(0, &*places.urls[0])].into_iter()).build().unwrap();
    let report = alone.recover().unwrap();
    assert!(report.open().is_empty() && report.is_clear(), "{report}");
    assert_eq!((places.unfinished()[0], places.prepared(1)), (1, 1));
    resume(&paused);
    assert!(paused.wait().unwrap().success());
    recover(&places.databases());
    assert_eq!(check(&places, "it has applied it"), [1]);
}

#[test]
fn of_many_decisions_that_stay_open_the_oldest_are_named_and_the_rest_is_counted() {
    let Some(places) = Places::new(&[Sqlite]) else { return };
    let row = |at: usize| format!("('m1_default_0123456789AB_00000001_{at:025}0', 'c', '1_0123456789AC', 0, NULL)");
    let rows: Vec<String> = (0..50).map(row).collect();
    places.execute(0, &format!("INSERT INTO multidb_decision VALUES {}", rows.join(", ")));
    let report = places.databases().recover().unwrap();
    let told = report.to_string();
    assert_eq!((report.open().len(), report.more_open()), (20, 30));
    assert_eq!(told.matches("`0123456789AC`").count(), 20);
    assert!(told.contains(&format!("{:025}0, ", 19)) && told.ends_with("; 30 more decisions stay open"), "{told}");
    assert_eq!(places.unfinished()[0], 50);
}

#[test]
fn cleaning_that_is_killed_anywhere_is_taken_for_no_disagreement() {
    for point in ["clean.close.after", "clean.receipts.after", "clean.decisions.after"] {
        let Some(places) = Places::new(&[Postgres, Postgres]) else { return };
        kill_at(&places, Work::Hundred, point);
        let report = places.databases().recover().unwrap();
        assert!(report.is_clear(), "{point}: {report}");
        assert!(places.states(0).iter().all(|state| state == "c"), "{point}: {:?}", places.states(0));
    }
}

#[test]
fn nothing_is_deleted_while_a_database_cannot_be_asked_that_may_hold_a_receipt() {
    let Some(places) = Places::new(&[Postgres, Postgres]) else { return };
    let databases = places.databases();
    kill_at(&places, Work::Listed, "decide.after_commit");
    recover(&databases);
    places.execute(0, OLD);
    let without = builder_of([(0, &*places.urls[0]), (1, UNREACHABLE)].into_iter()).build_lazy().unwrap();
    without.recover().unwrap();
    assert_eq!((places.own_rows(0), places.own_rows(1)), ([1, 0], [0, 1]));
    databases.recover().unwrap();
    assert_eq!((places.own_rows(0), places.own_rows(1)), ([0, 0], [0, 0]));
}

#[test]
fn nothing_is_deleted_by_who_does_not_know_all_databases_that_may_hold_a_receipt() {
    for home in [Postgres, MariaDb, Sqlite] {
        let Some(places) = Places::new(&[home, Postgres]) else { return };
        let databases = places.databases();
        kill_at(&places, Work::Listed, "decide.after_commit");
        recover(&databases);
        places.execute(0, OLD);
        let alone = builder_of([(0, &*places.urls[0])].into_iter()).build().unwrap();
        alone.recover().unwrap();
        assert_eq!((places.own_rows(0), places.own_rows(1)), ([1, 0], [0, 1]), "{places}");
        let report = databases.recover().unwrap();
        assert!(report.is_clear(), "{places}: {report}");
        assert_eq!((places.own_rows(0), places.own_rows(1)), ([0, 0], [0, 0]), "{places}");
    }
}

#[test]
fn nothing_is_deleted_that_no_standby_would_know_to_be_gone() {
    let Some(places) = Places::new(&[Postgres, Postgres]) else { return };
    let databases = places.databases();
    kill_at(&places, Work::Listed, "decide.after_commit");
    recover(&databases);
    places.execute(0, OLD);
    // The participant has standbys to wait for, and none confirms the first question and the third one.
    fake(&places, 1, "current_setting(text)", HAS_STANDBYS);
    places.execute(
        1,
        "CREATE SEQUENCE questions; CREATE \
         FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF nextval('questions') IN (1, 3) THEN RAISE 'not \
         here'; END IF; RETURN NEW; END $$; CREATE TRIGGER refuse BEFORE UPDATE ON multidb_meta FOR EACH ROW EXECUTE FUNCTION \
         refuse()",
    );
    for (decisions, receipts, what) in [(1, 1, "receipts"), (1, 0, "the decision"), (0, 0, "all is confirmed")] {
        databases.recover().unwrap();
        assert_eq!((places.own_rows(0), places.own_rows(1)), ([decisions, 0], [0, receipts]), "{what}");
    }
}

#[test]
fn where_the_mark_cannot_rise_no_decision_is_deleted() {
    let Some(places) = Places::new(&[Postgres, Postgres]) else { return };
    let databases = places.databases();
    kill_at(&places, Work::Listed, "decide.after_commit");
    recover(&databases);
    places.execute(
        0,
        "UPDATE multidb_decision SET created = 0; CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
         RAISE 'not here'; END $$; CREATE TRIGGER refuse BEFORE UPDATE ON multidb_meta FOR EACH ROW EXECUTE FUNCTION refuse()",
    );
    databases.recover().unwrap();
    assert_eq!(places.states(0), ["c"]);
    places.execute(0, "DROP TRIGGER refuse ON multidb_meta");
    databases.recover().unwrap();
    assert_eq!(places.states(0), Vec::<String>::new());
}

#[test]
fn a_disagreement_about_a_complete_transaction_is_never_deleted() {
    let Some(places) = Places::new(&[Postgres, MariaDb]) else { return };
    let databases = places.databases();
    let entered = databases.enter();
    transfer(1, 1, 1, None).unwrap();
    drop(entered);
    // Somebody takes its receipt away before it is closed.
    places.execute(1, "DELETE FROM multidb_receipt");
    let report = places.databases().recover().unwrap();
    assert_eq!(report.heuristic().len(), 1, "{report}");
    // The coordinator, which has seen no disagreement, deletes what is complete.
    databases.recover().unwrap();
    assert_eq!(places.states(0), ["h"]);
}

#[test]
fn the_age_of_a_lost_decision_deletes_neither_it_nor_its_receipts() {
    let Some(places) = Places::new(&[Postgres, Postgres]) else { return };
    let databases = places.databases();
    kill_at(&places, Work::Listed, "apply.all_done");
    places.execute(0, "DELETE FROM multidb_decision");
    databases.recover().unwrap();
    places.execute(0, OLD);
    databases.recover().unwrap();
    assert_eq!((places.states(0), places.own_rows(1)), (vec!["h".to_owned()], [0, 1]));
}

#[test]
fn an_old_primary_tells_nothing_of_what_its_successor_has_named() {
    let Some(places) = Places::new(&[Postgres, Postgres]) else { return };
    let id = places.prepare_by_hand(1, "0000000F");
    // As its successor has decided.
    places.finish_by_hand(1, true);
    let databases = places.databases();
    let _entered = databases.enter();
    assert_eq!(multidb::status(&id).unwrap(), TransactionStatus::InDoubt);
    assert_eq!(places.states(0), Vec::<String>::new());
}

#[test]
fn a_home_of_another_environment_is_not_asked_for_a_status() {
    let Some(places) = Places::new(&[Postgres, Postgres]) else { return };
    let databases = places.databases();
    let _entered = databases.enter();
    let id = places.prepare_by_hand(1, &places.meta(0, "incarnation"));
    places.execute(0, "UPDATE multidb_meta SET environment = 'copy'");
    assert_eq!(multidb::status(&id).unwrap(), TransactionStatus::Unknown);
    places.execute(0, "UPDATE multidb_meta SET environment = 'default'");
    recover(&databases);
    assert_eq!(multidb::status(&id).unwrap(), TransactionStatus::RolledBack);
}

struct ByApp;

impl Router for ByApp {
    fn select_db(&self, request: &RouteRequest<'_>) -> Route {
        Route::to(request.app().to_owned())
    }
}

/// What a transaction on the first database, a file, has for `synchronous`: 2 is FULL, 3 is EXTRA.
fn synchronous(conn: &mut AnyConn) -> i32 {
    #[derive(QueryableByName)]
    struct Synchronous {
        #[diesel(sql_type = diesel::sql_types::Integer)]
        synchronous: i32,
    }
    diesel::sql_query("PRAGMA synchronous").get_result::<Synchronous>(conn).unwrap().synchronous
}

#[test]
fn a_file_that_holds_decisions_is_synced_enough_or_refused() {
    for configured in [None, Some("normal")] {
        let Some(places) = Places::new(&[Sqlite, Postgres]) else { return };
        let mut file = DatabaseConfig::new("accounts", places.urls[0].clone());
        file.sqlite.synchronous = configured.map(Into::into);
        let builder = Databases::builder().router(ByApp).database(file);
        let databases = builder.postgres("entries", &places.urls[1]).build().unwrap();
        let _entered = databases.enter();
        let account =
            |conn: &mut AnyConn| diesel::insert_into(accounts::table).values(accounts::id.eq(1)).execute(conn);
        let entry = |conn: &mut AnyConn| diesel::insert_into(entries::table).values(entries::id.eq(1)).execute(conn);
        let late = atomic::<Account>().run(|conn: &mut AnyConn| {
            account(conn)?;
            atomic::<Entry>().run(|conn: &mut AnyConn| entry(conn).map_err(Error::from))
        });
        if configured.is_none() {
            late.unwrap();
        } else {
            let text = late.unwrap_err().to_string();
            assert!(text.contains("`accounts` would hold the decision") && text.contains("synchronous"), "{text}");
        }
        for at in 0..2 {
            places.execute(at, ["DELETE FROM accounts", "DELETE FROM entries"][at]);
        }
        let listed = atomic_many::<(Account, Entry)>().run(|scope| {
            let mut conn = scope.conn::<Account, AnyConn>()?;
            account(&mut conn)?;
            assert_eq!(synchronous(&mut conn), 3, "{configured:?}");
            entry(&mut scope.conn::<Entry, AnyConn>()?)?;
            Ok::<_, Error>(())
        });
        listed.unwrap();
        assert_eq!(check(&places, "both"), [1]);
    }
}
