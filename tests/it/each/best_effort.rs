//! Transactions on two databases that commit one after the other.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use diesel::connection::{Instrumentation, InstrumentationEvent};
use diesel::prelude::*;
use multidb::testing::{Fault, Point, TestDatabases, committed, rolled_back};
use multidb::{
    CommitMode, CrossDatabase, Databases, Error, Propagation, TransactionStatus, atomic, atomic_many, connection,
    scope, transactional,
};

use super::*;
use crate::fixture::Kind;
use crate::recorder::Recorder;

/// The library's tables are not there: nothing of it is written.
fn fresh() -> Option<(Fixture, Databases)> {
    let fixture = fixture()?;
    let databases = fixture.databases();
    Some((fixture, databases))
}

#[transactional(Item, Record, commit = best_effort)]
fn put_both(id: i64, fails: bool) -> Result<(), Mishap> {
    put(id, 10)?;
    put_record(id, 20)?;
    if fails { Err(Mishap::OnPurpose) } else { Ok(()) }
}

impl Fixture {
    /// The ids in each database.
    fn ids(&self) -> [Vec<i64>; 2] {
        ["default", "other"].map(|alias| self.rows(alias).into_iter().map(|row| row.0).collect())
    }
}

/// Every connection is back in its pool.
fn all_are_back(databases: &Databases) {
    assert_eq!((in_use(databases, "default"), in_use(databases, "other")), (0, 0));
}

/// Puts a row into each database, and tells which hooks have run.
fn put_with_hooks(id: i64) -> (Result<(), Error>, Vec<&'static str>) {
    let ran = Rc::new(RefCell::new(Vec::new()));
    let [committed, rolled_back] = [Rc::clone(&ran), Rc::clone(&ran)];
    let run = atomic_many::<(Item, Record)>().commit(CommitMode::BestEffort).run(|_| {
        scope::on_commit(move || committed.borrow_mut().push("committed"));
        scope::on_rollback(move || rolled_back.borrow_mut().push("rolled back"));
        put(id, 10)?;
        put_record(id, 20)
    });
    let ran = ran.take();
    (run, ran)
}

/// Two files of SQLite could not be one atomic transaction: they have a table of one name.
#[test]
fn databases_that_are_listed_or_join_later_are_committed_each_and_a_body_that_fails_undoes_both() {
    let Some((fixture, databases)) = fresh() else { return };
    let _entered = databases.enter();
    put_both(1, false).unwrap();
    assert!(matches!(put_both(2, true), Err(Mishap::OnPurpose)));
    let late = |id: i64, fails: bool| {
        atomic::<Item>().commit(CommitMode::BestEffort).run(|_: &mut H| {
            put(id, 10)?;
            put_record(id, 20)?;
            assert_eq!(fixture.ids()[1], [1], "not committed by itself");
            if fails { Err(Mishap::OnPurpose) } else { Ok(()) }
        })
    };
    late(3, true).unwrap_err();
    late(4, false).unwrap();
    assert_eq!(fixture.ids(), [[1, 4], [1, 4]]);
    all_are_back(&databases);
}

#[test]
fn a_level_that_fails_is_undone_on_both_databases_and_takes_the_one_with_it_that_joined_in_it() {
    let Some((fixture, databases)) = fresh() else { return };
    let _entered = databases.enter();
    let run = atomic::<Item>().commit(CommitMode::BestEffort).run(|_: &mut H| {
        put(1, 10)?;
        let joined = atomic::<Item>().run(|_: &mut H| {
            put(2, 10)?;
            put_record(2, 20)?;
            Err::<(), _>(Mishap::OnPurpose)
        });
        assert!(matches!(joined, Err(Mishap::OnPurpose)));
        assert_eq!(in_use(&databases, "other"), 0, "it is no part of the transaction any more");
        put_record(3, 20)?;
        let both = atomic_many::<(Item, Record)>().commit(CommitMode::BestEffort).run(|_| {
            put(4, 10)?;
            put_record(4, 20)?;
            Err::<(), _>(Mishap::OnPurpose)
        });
        assert!(matches!(both, Err(Mishap::OnPurpose)));
        Ok::<_, Mishap>(())
    });
    run.unwrap();
    assert_eq!(fixture.ids(), [[1], [3]]);
    all_are_back(&databases);
}

#[test]
fn the_last_listed_commits_first_and_nothing_is_prepared() {
    let Some((fixture, databases)) = fresh() else { return };
    let _entered = databases.enter();
    let recorder = Recorder::default();
    let run = atomic_many::<(Item, Record)>().commit(CommitMode::BestEffort).run(|scope| {
        for mut conn in [scope.conn::<Item, H>()?, scope.conn::<Record, H>()?] {
            let alias = if in_use(&databases, "default") == 0 { "default" } else { "other" };
            conn.set_instrumentation(Named { alias, recorder: recorder.clone() });
            diesel::insert_into(items::table).values((items::id.eq(1), items::value.eq(0))).execute(&mut conn)?;
        }
        assert!(scope::current().is_some_and(|id| !id.to_string().starts_with("m1_")), "no decision to ask for");
        Ok::<_, Mishap>(())
    });
    run.unwrap();
    let sent = recorder.take();
    let ends: Vec<&str> = sent.iter().filter(|text| text.contains("COMMIT")).map(|text| &text[..5]).collect();
    assert_eq!(ends, ["other", "defau"], "{sent:#?}");
    assert!(!sent.iter().any(|text| text.contains("PREPARE") || text.contains("XA ")), "{sent:#?}");
    assert_eq!(fixture.ids(), [[1], [1]]);
}

/// Writes down who has sent a statement, too.
struct Named {
    alias: &'static str,
    recorder: Recorder,
}

impl Instrumentation for Named {
    fn on_connection_event(&mut self, event: InstrumentationEvent<'_>) {
        if let InstrumentationEvent::StartQuery { query, .. } = event {
            self.recorder.add(format!("{}: {query}", self.alias));
        }
    }
}

#[test]
fn where_the_first_commit_fails_nothing_is_committed_and_the_error_is_that_of_one_database() {
    let Some((fixture, databases)) = fresh() else { return };
    let test = committed(&databases).unwrap();
    for (id, fault) in [(1, Fault::Refused), (2, Fault::Deadlock)] {
        test.fail("other", Point::Commit, fault).unwrap();
        let (run, hooks) = put_with_hooks(id);
        assert_eq!(test.faults_left(), 0);
        let error = run.unwrap_err();
        assert!(matches!(error, Error::Query(_)), "{fault:?}: {error}");
        assert_eq!((error.is_retryable(), error.is_in_doubt()), (fault == Fault::Deadlock, false), "{fault:?}");
        assert_eq!((hooks, fixture.ids()), (vec!["rolled back"], [vec![], vec![]]), "{fault:?}");
        all_are_back(test.databases());
    }
    assert_eq!(put_with_hooks(3).1, ["committed"]);
    assert_eq!(fixture.ids(), [[3], [3]]);
}

#[test]
fn where_a_later_commit_fails_the_error_says_which_databases_have_committed_and_no_hook_runs() {
    let Some((fixture, databases)) = fresh() else { return };
    let test = committed(&databases).unwrap();
    let faults = [Fault::Refused, Fault::Deadlock, Fault::ConnectionLost, Fault::ReplyLost];
    for (id, fault) in (1..).zip(faults) {
        test.fail("default", Point::Commit, fault).unwrap();
        let (run, hooks) = put_with_hooks(id);
        assert_eq!(test.faults_left(), 0);
        let error = run.unwrap_err();
        assert_eq!((error.is_retryable(), error.is_committed(), error.is_config()), (false, false, false), "{fault:?}");
        assert!(error.is_in_doubt(), "{fault:?}: a part of it is committed");
        let told = error.to_string();
        assert!(told.contains("`other` committed") && told.contains("`default` did not"), "{told}");
        let Error::PartialCommit { committed, failed } = error else { panic!("{fault:?}: {told}") };
        assert_eq!((committed, failed), (vec!["other".into()], vec!["default".into()]), "{fault:?}");
        assert!(hooks.is_empty(), "{fault:?}: {hooks:?}");
        let has = fixture.ids().map(|ids| ids.contains(&id));
        assert_eq!(has, [fault == Fault::ReplyLost, true], "{fault:?}");
        all_are_back(test.databases());
    }
    assert_eq!(put_with_hooks(9).1, ["committed"]);
}

#[test]
fn where_the_reply_to_the_first_commit_is_lost_the_outcome_of_that_database_is_unknown_and_the_other_is_rolled_back() {
    let Some((fixture, databases)) = fresh() else { return };
    let test = committed(&databases).unwrap();
    for (id, fault) in [(1, Fault::ConnectionLost), (2, Fault::ReplyLost)] {
        test.fail("other", Point::Commit, fault).unwrap();
        let (run, hooks) = put_with_hooks(id);
        let error = run.unwrap_err();
        assert!(error.is_in_doubt() && !error.is_retryable(), "{fault:?}: {error}");
        let Error::OutcomeUnknown { id: named, databases } = error else { panic!("{fault:?}: {error}") };
        assert_eq!(databases, ["other"], "{fault:?}");
        assert_eq!(multidb::status(&named).unwrap(), TransactionStatus::Unknown, "{fault:?}");
        assert!(hooks.is_empty(), "{fault:?}: {hooks:?}");
        let has = fixture.ids().map(|ids| ids.contains(&id));
        assert_eq!(has, [false, fault == Fault::ReplyLost], "{fault:?}");
    }
    all_are_back(test.databases());
}

#[test]
fn a_database_that_nothing_was_sent_to_has_neither_committed_nor_failed() {
    let Some((fixture, databases)) = fresh() else { return };
    let test = committed(&databases).unwrap();
    for (alias, fault) in [("default", Fault::Refused), ("other", Fault::Deadlock)] {
        test.fail(alias, Point::Commit, fault).unwrap();
        let run = atomic_many::<(Item, Record)>().commit(CommitMode::BestEffort).run(|scope| {
            let mut conn = if alias == "default" { scope.conn::<Item, H>()? } else { scope.conn::<Record, H>()? };
            diesel::insert_into(items::table).values((items::id.eq(1), items::value.eq(0))).execute(&mut conn)?;
            Ok::<_, Error>(())
        });
        assert!(matches!(run, Err(Error::Query(_))), "{alias}: {run:?}");
    }
    // Nor has one that was only read.
    test.fail("default", Point::Commit, Fault::Refused).unwrap();
    let run = atomic_many::<(Item, Record)>().commit(CommitMode::BestEffort).read_only().run(|scope| {
        for mut conn in [scope.conn::<Item, H>()?, scope.conn::<Record, H>()?] {
            items::table.count().get_result::<i64>(&mut conn)?;
        }
        Ok::<_, Error>(())
    });
    assert!(matches!(run, Err(Error::Query(_))), "{run:?}");
    assert_eq!((test.faults_left(), fixture.ids()), (0, [vec![], vec![]]));
    all_are_back(test.databases());
}

#[test]
fn what_was_committed_in_part_is_never_run_again_and_what_was_not_is() {
    let Some((fixture, databases)) = fresh() else { return };
    let test = committed(&databases).unwrap();
    let runs = Cell::new(0);
    let put_again = |id: i64| {
        runs.set(0);
        atomic_many::<(Item, Record)>().commit(CommitMode::BestEffort).retry(3).run(|_| {
            runs.set(runs.get() + 1);
            put(id, 10)?;
            put_record(id, 20)
        })
    };
    test.fail("other", Point::Commit, Fault::Deadlock).unwrap();
    put_again(1).unwrap();
    assert_eq!((runs.get(), fixture.ids()), (2, [vec![1], vec![1]]));
    for (alias, fault) in [("default", Fault::Deadlock), ("default", Fault::ReplyLost), ("other", Fault::ReplyLost)] {
        test.fail(alias, Point::Commit, fault).unwrap();
        let error = put_again(runs.get() + 1).map_or_else(|error| error, |()| panic!("{alias}, {fault:?}"));
        assert!(error.is_in_doubt(), "{alias}, {fault:?}: {error}");
        assert_eq!(runs.get(), 1, "{alias}, {fault:?}");
        for mut raw in ["default", "other"].map(|alias| fixture.observer(alias)) {
            diesel::delete(items::table).execute(&mut raw).unwrap();
        }
    }
}

/// Lets COMMIT take until the time of the scope is over.
struct Slow(Instant);

impl Instrumentation for Slow {
    fn on_connection_event(&mut self, event: InstrumentationEvent<'_>) {
        if matches!(event, InstrumentationEvent::StartQuery { query, .. } if query.to_string().contains("COMMIT")) {
            while Instant::now() <= self.0 {
                std::thread::yield_now();
            }
        }
    }
}

#[test]
fn a_time_that_ends_between_two_commits_stops_nothing() {
    const TIME: Duration = Duration::from_secs(1);
    let Some((fixture, databases)) = fresh() else { return };
    let _entered = databases.enter();
    // The time includes the opening of connections.
    put(9, 10).unwrap();
    put_record(9, 20).unwrap();
    let scope = || atomic_many::<(Item, Record)>().commit(CommitMode::BestEffort).timeout(TIME);
    let run = scope().run(|scope| {
        put(1, 10)?;
        put_record(1, 20)?;
        scope.conn::<Record, H>()?.set_instrumentation(Slow(Instant::now() + TIME));
        Ok::<_, Error>(())
    });
    run.unwrap();
    // In a manual scope it still holds afterwards.
    let run = scope().manual().run(|opened| {
        put(2, 10)?;
        put_record(2, 20)?;
        opened.conn::<Record, H>()?.set_instrumentation(Slow(Instant::now() + TIME));
        scope::commit()?;
        let late = put(3, 10);
        assert!(matches!(late, Err(Error::Doomed { .. })), "{late:?}");
        scope::rollback()
    });
    assert!(matches!(run, Err(Error::Doomed { .. })), "{run:?}");
    assert_eq!(fixture.ids(), [[1, 2, 9], [1, 2, 9]]);
    all_are_back(&databases);
}

#[test]
fn a_manual_scope_commits_in_parts_and_goes_on_after_one_that_was_committed_in_part() {
    let Some((fixture, databases)) = fresh() else { return };
    let test = committed(&databases).unwrap();
    let put_both = |id: i64| {
        put(id, 10)?;
        put_record(id, 20)
    };
    let run = atomic_many::<(Item, Record)>().manual().commit(CommitMode::BestEffort).run(|_| {
        put_both(1)?;
        scope::commit()?;
        put_both(2)?;
        scope::rollback()?;
        put_both(3)?;
        test.fail("default", Point::Commit, Fault::Refused)?;
        let error = scope::commit().unwrap_err();
        assert!(matches!(error, Error::PartialCommit { .. }), "{error}");
        put_both(4)?;
        test.fail("other", Point::Commit, Fault::Refused)?;
        let error = scope::commit().unwrap_err();
        assert!(matches!(error, Error::Query(_)), "{error}");
        put_both(5)?;
        scope::commit()?;
        put_both(6)?;
        Ok::<_, Error>(())
    });
    assert!(matches!(run, Err(Error::PendingWork { .. })), "{run:?}");
    assert_eq!((test.faults_left(), fixture.ids()), (0, [vec![1, 5], vec![1, 3, 5]]));
    all_are_back(test.databases());
}

fn conflict(result: Result<(), Error>, named: &[&str]) {
    let error = result.unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, Error::OptionConflict { .. }), "{text}");
    for named in named.iter().chain(&["`commit = best_effort`", "requires_new"]) {
        assert!(text.contains(named), "{named} is missing in: {text}");
    }
}

#[transactional(Item, Record)]
fn put_both_as_one(id: i64) -> Result<(), Error> {
    put(id, 10)?;
    put_record(id, 20)
}

#[transactional(Item, commit = best_effort)]
fn put_one_in_parts(id: i64) -> Result<(), Error> {
    put(id, 10)
}

#[test]
fn the_outermost_scope_decides_and_one_inside_that_wants_something_else_is_refused() {
    let Some(fixture) = fixture() else { return };
    // Whether the models share a database must not matter.
    for databases in [fixture.databases(), fixture.databases().with_router(multidb::StaticRouter::new())] {
        let _entered = databases.enter();
        let run = atomic::<Item>().run(|_: &mut H| {
            conflict(put_one_in_parts(1), &["`put_one_in_parts`", "no `commit = best_effort` of `atomic`"]);
            put(1, 10)
        });
        run.unwrap();
        let run = atomic::<Item>().commit(CommitMode::BestEffort).run(|_: &mut H| {
            conflict(put_both_as_one(2), &["`put_both_as_one`", "lists several models", "of `atomic`"]);
            let atomic_one = atomic::<Item>().commit(CommitMode::Atomic).run(|_: &mut H| Ok(()));
            conflict(atomic_one, &["`commit = atomic` of `atomic`"]);
            let once = atomic::<Item>().once("key").run(|_: &mut H| Ok(()));
            conflict(once, &["`once` of `atomic`"]);
            let verified = atomic::<Item>().verify_commit().run(|_: &mut H| Ok(()));
            conflict(verified, &["`verify_commit` of `atomic`"]);
            // What joins by itself, what agrees, and what only reads.
            put_one_in_parts(2)?;
            atomic::<Item>().propagation(Propagation::Mandatory).run(|_: &mut H| put(3, 10))?;
            let reads = atomic_many::<(Item, Record)>().read_only();
            reads.run(|scope| scope.conn::<Record, H>().map(drop))?;
            put_record(4, 20)
        });
        run.unwrap();
        for mut raw in ["default", "other"].map(|alias| fixture.observer(alias)) {
            diesel::delete(items::table).execute(&mut raw).unwrap();
        }
    }
}

#[test]
fn a_scope_with_a_transaction_of_its_own_commits_it_in_its_own_way() {
    let Some(fixture) = fixture() else { return };
    // A file's only write lock is the outer scope's.
    if super::KIND == Kind::Sqlite {
        return;
    }
    let databases = fixture.databases();
    multidb::schema::install(&databases).unwrap();
    let _entered = databases.enter();
    let own = |mode: CommitMode, id: i64| {
        let scope = atomic_many::<(Item, Record)>().propagation(Propagation::RequiresNew).commit(mode);
        scope.run(|_| {
            put(id, 10)?;
            put_record(id, 20)
        })
    };
    for (outer, inner, id) in
        [(CommitMode::BestEffort, CommitMode::Atomic, 1), (CommitMode::Atomic, CommitMode::BestEffort, 2)]
    {
        let run = atomic_many::<(Item, Record)>().commit(outer).run(|_| {
            put(id + 10, 10)?;
            own(inner, id)?;
            Err::<(), _>(Mishap::OnPurpose)
        });
        assert!(matches!(run, Err(Mishap::OnPurpose)));
    }
    assert_eq!(fixture.ids(), [[1, 2], [1, 2]]);
    all_are_back(&databases);
}

#[test]
fn what_promises_something_of_the_whole_work_is_refused_before_anything_is_sent() {
    let Some((fixture, databases)) = fresh() else { return };
    let _entered = databases.enter();
    let best_effort = || atomic_many::<(Item, Record)>().commit(CommitMode::BestEffort);
    let once = best_effort().once("key").run(|_| put(1, 10));
    let verified = best_effort().verify_commit().run(|_| put(1, 10));
    for (run, key) in [(once, "`once`"), (verified, "`verify_commit`")] {
        let error = run.unwrap_err();
        assert!(error.is_config() && error.to_string().contains(key), "{error}");
    }
    for propagation in [Propagation::Never, Propagation::Supports, Propagation::NotSupported] {
        let run = best_effort().propagation(propagation).run(|_| put(1, 10));
        assert!(matches!(run, Err(Error::OptionConflict { .. })), "{propagation:?}: {run:?}");
    }
    assert_eq!(fixture.ids(), [const { Vec::<i64>::new() }; 2]);
}

#[test]
fn a_configuration_that_refuses_several_databases_refuses_these_too() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.builder(2).cross_database(CrossDatabase::Refuse).build().unwrap();
    let _entered = databases.enter();
    let refused = |text: String| {
        assert!(text.contains("cross_database") && !text.contains("commit = best_effort"), "{text}");
    };
    refused(put_both(1, false).unwrap_err().to_string());
    let run = atomic::<Item>().commit(CommitMode::BestEffort).run(|_: &mut H| {
        refused(put_record(2, 20).unwrap_err().to_string());
        put(2, 10)
    });
    run.unwrap();
    assert_eq!(fixture.ids(), [vec![2], vec![]]);
}

#[test]
fn a_database_that_was_read_first_may_be_written_later() {
    let Some((fixture, databases)) = fresh() else { return };
    let _entered = databases.enter();
    let run = atomic::<Item>().commit(CommitMode::BestEffort).run(|_: &mut H| {
        put(1, 10)?;
        atomic::<Record>().read_only().run(|conn: &mut H| {
            items::table.count().get_result::<i64>(conn)?;
            Ok::<_, Error>(())
        })?;
        put_record(1, 20)?;
        let conn = &mut connection::<Record, H>()?;
        assert_eq!(items::table.count().get_result::<i64>(conn)?, 1);
        Ok::<_, Error>(())
    });
    run.unwrap();
    assert_eq!(fixture.ids(), [[1], [1]]);
}

#[test]
fn a_test_whose_work_is_rolled_back_sees_what_production_would() {
    let Some((fixture, databases)) = fresh() else { return };
    let seen = |_: &TestDatabases| {
        [connection::<Item, H>().unwrap(), connection::<Record, H>().unwrap()]
            .map(|mut conn| items::table.select(items::id).order(items::id).load::<i64>(&mut conn).unwrap())
    };
    let test = rolled_back(&databases).unwrap();
    put_both(1, false).unwrap();
    test.fail("default", Point::Commit, Fault::Deadlock).unwrap();
    assert!(matches!(put_with_hooks(2).0, Err(Error::PartialCommit { .. })));
    test.fail("other", Point::Commit, Fault::Deadlock).unwrap();
    assert!(put_with_hooks(3).0.is_err_and(|error| error.is_retryable()));
    assert_eq!(seen(&test), [vec![1], vec![1, 2]]);
    drop(test);
    assert_eq!(fixture.ids(), [const { Vec::<i64>::new() }; 2]);
}
