//! What recovery leaves alone and reports, until it may be finished.

use multidb::fault::Stop;
use multidb::{Databases, OnLostHome, Reason, RecoveryReport};

use crate::child::{Work, kill_at, recover, recover_until, resume, start, until_stopped};
use crate::matrix::check;
use crate::places::{Kind, Places, builder_of};

use Kind::{MariaDb, Postgres, Sqlite};

/// Nobody listens there.
pub(crate) const UNREACHABLE: &str = "postgres://nobody@127.0.0.1:1/none";

pub(crate) fn reasons(report: &RecoveryReport) -> Vec<Reason> {
    report.left().iter().map(|left| left.reason).collect()
}

/// One pass by a registry of some of the databases.
fn pass(places: &Places, aliases: &[usize]) -> RecoveryReport {
    let databases = builder_of(aliases.iter().map(|at| (*at, &*places.urls[*at]))).build().unwrap();
    databases.recover().unwrap()
}

/// Recovers until the servers have seen that nobody is at it any more.
pub(crate) fn settle(databases: &Databases) -> RecoveryReport {
    recover_until(databases, |report| {
        !reasons(report).contains(&Reason::Alive) && !reasons(report).contains(&Reason::NotFinished)
    })
}

#[test]
fn a_branch_whose_home_is_not_configured_or_not_reached_is_left_and_the_others_are_finished() {
    let Some(places) = Places::new(&[Postgres, Postgres, MariaDb]) else { return };
    kill_at(&places, Work::Listed, "prepare.all_done");
    let report = pass(&places, &[1, 2]);
    assert_eq!(reasons(&report), [Reason::HomeUnknown], "{report}");
    assert!(report.problems().is_empty() && !report.is_clear());
    let unreachable = builder_of([(0, UNREACHABLE), (1, &*places.urls[1]), (2, &*places.urls[2])].into_iter());
    let report = unreachable.build_lazy().unwrap().recover().unwrap();
    assert_eq!((reasons(&report), report.problems().len()), (vec![Reason::HomeUnknown], 1), "{report}");
    assert_eq!((places.prepared(1), places.prepared(2)), (1, 1));
    // One participant can't be listed: the other one is finished.
    let without =
        builder_of([(0, &*places.urls[0]), (1, UNREACHABLE), (2, &*places.urls[2])].into_iter()).build_lazy().unwrap();
    let report = settle(&without);
    assert_eq!(report.problems().len(), 1, "{report}");
    assert_eq!((places.prepared(1), places.prepared(2)), (1, 0), "{report}");
    recover(&places.databases());
    assert_eq!(check(&places, "all are reached"), Vec::<i64>::new());
}

#[test]
fn a_home_of_another_environment_or_server_is_not_trusted_until_it_is_adopted() {
    for kinds in [[Postgres, Postgres], [MariaDb, MariaDb]] {
        for (change, is_problem) in [
            ("UPDATE multidb_meta SET server = 'another'", true),
            ("UPDATE multidb_meta SET environment = 'copy'", false),
        ] {
            let Some(places) = Places::new(&kinds) else { return };
            let databases = places.databases();
            kill_at(&places, Work::Listed, "decide.after_commit");
            // Gone, so that only the trust is missing.
            places.execute(0, change);
            let report = settle(&databases);
            let expected = if is_problem { Reason::HomeUnknown } else { Reason::OtherEnvironment };
            assert_eq!(
                (reasons(&report), report.problems().len()),
                (vec![expected], usize::from(is_problem)),
                "{report}"
            );
            assert_eq!(places.prepared(1), 1);
            if is_problem {
                databases.adopt("accounts").unwrap();
            } else {
                places.execute(0, "UPDATE multidb_meta SET environment = 'default'");
            }
            recover(&databases);
            assert_eq!(check(&places, change), [1]);
        }
    }
}

#[test]
fn a_participant_on_another_server_is_not_touched_until_it_is_adopted() {
    let Some(places) = Places::new(&[Postgres, Postgres]) else { return };
    let databases = places.databases();
    kill_at(&places, Work::Listed, "decide.after_commit");
    places.execute(1, "UPDATE multidb_meta SET server = 'another'");
    let report = databases.recover().unwrap();
    assert_eq!((report.problems().len(), report.closed()), (1, 0), "{report}");
    assert_eq!(places.prepared(1), 1);
    databases.adopt("entries").unwrap();
    recover(&databases);
    assert_eq!(check(&places, "adopted"), [1]);
}

/// As on a promoted replica of MariaDB: it is another server, and nothing is left by recovery before it is adopted.
#[test]
fn a_participant_on_another_server_is_adopted_only_once_nothing_is_prepared_there_that_may_be_forgotten() {
    for kind in [Postgres, MariaDb] {
        let Some(places) = Places::new(&[Postgres, kind]) else { return };
        let databases = places.databases();
        let id = places.prepare_by_hand(1, "00000001");
        places.execute(1, "UPDATE multidb_meta SET server = 'another'");
        places.execute(0, "UPDATE multidb_meta SET forgotten_up_to = 'V'");
        let error = databases.adopt("entries").unwrap_err().to_string();
        for words in [&*id.to_string(), "may have been committed before, and its decision be deleted since"] {
            assert!(error.contains(words), "{error}");
        }
        // Where its home can't be asked nobody knows.
        let alone = builder_of([(1, &*places.urls[1])].into_iter()).build_lazy().unwrap();
        let error = alone.adopt("entries").unwrap_err().to_string();
        assert!(error.contains("can't be judged, since its home can't be asked"), "{error}");
        assert_eq!((places.prepared(1), databases.recover().unwrap().problems().len()), (1, 1));
        // Rows as new as that were never deleted: it was never decided.
        places.execute(0, "UPDATE multidb_meta SET forgotten_up_to = ''");
        databases.adopt("entries").unwrap();
        recover(&databases);
        assert_eq!(check(&places, "never decided"), Vec::<i64>::new());
    }
}

#[test]
fn adopting_keeps_the_environment_unless_the_registry_names_one() {
    let Some(places) = Places::new(&[Sqlite]) else { return };
    places.execute(0, "UPDATE multidb_meta SET environment = 'prod'");
    places.databases().adopt("accounts").unwrap();
    assert_eq!(places.meta(0, "environment"), "prod");
    let staging = builder_of([(0, &*places.urls[0])].into_iter()).environment("staging").build().unwrap();
    staging.adopt("accounts").unwrap();
    assert_eq!(places.meta(0, "environment"), "staging");
}

#[test]
fn a_registry_of_another_environment_recovers_nothing() {
    let Some(places) = Places::new(&[Postgres, Postgres]) else { return };
    kill_at(&places, Work::Listed, "decide.after_commit");
    let urls = || places.urls.iter().map(|url| &**url).enumerate();
    let staging = builder_of(urls()).environment("staging").build().unwrap();
    let report = staging.recover().unwrap();
    assert_eq!(report.problems().len(), 2, "{report}");
    assert_eq!(places.prepared(1), 1);
    recover(&places.databases());
    assert_eq!(check(&places, "its own registry"), [1]);
}

#[test]
fn after_a_failover_absence_proves_nothing_until_home_is_adopted_and_all_have_answered() {
    for kinds in [[Postgres, Postgres, Postgres], [MariaDb, MariaDb, Postgres], [Postgres, MariaDb, MariaDb]] {
        let Some(places) = Places::new(&kinds) else { return };
        let databases = places.databases();
        let id = places.prepare_by_hand(1, "0000000F");
        // Home was installed in that one too.
        places.execute(0, "UPDATE multidb_meta SET incarnation = '0000000F'");
        let _entered = databases.enter();
        let report = databases.recover().unwrap();
        assert_eq!(reasons(&report), [Reason::Failover], "{places}: {report}");
        assert_eq!(multidb::status(&id).unwrap(), multidb::TransactionStatus::InDoubt, "{places}");
        databases.adopt("accounts").unwrap();
        let unreachable = [(0, &*places.urls[0]), (1, &*places.urls[1]), (2, UNREACHABLE)];
        let report = builder_of(unreachable.into_iter()).build_lazy().unwrap().recover().unwrap();
        assert_eq!(reasons(&report), [Reason::Failover], "{places}: one has not answered: {report}");
        assert_eq!(places.prepared(1), 1);
        recover(&databases);
        assert_eq!((places.prepared(1), places.rows(1)), (0, vec![]), "{places}");
        assert_eq!(multidb::status(&id).unwrap(), multidb::TransactionStatus::RolledBack, "{places}");
    }
}

#[test]
fn after_a_failover_a_decision_that_is_there_is_followed() {
    let Some(places) = Places::new(&[Postgres, Postgres]) else { return };
    let id = places.prepare_by_hand(1, "0000000F");
    places.execute(0, &format!("INSERT INTO multidb_decision VALUES ('{id}', 'c', '', 0, NULL)"));
    let databases = places.databases();
    recover(&databases);
    assert_eq!((places.prepared(1), places.rows(1)), (0, vec![77]));
}

#[test]
fn of_two_copies_of_one_database_neither_is_asked() {
    let Some(places) = Places::new(&[Postgres, Postgres]) else { return };
    kill_at(&places, Work::Listed, "decide.after_commit");
    let copy = format!("{}?application_name=copy", places.urls[0]);
    let both = [(0, &*places.urls[0]), (1, &*places.urls[1]), (2, &*copy)];
    let report = builder_of(both.into_iter()).build().unwrap().recover().unwrap();
    assert_eq!((reasons(&report), report.problems().len()), (vec![Reason::HomeUnknown], 2), "{report}");
    assert_eq!(places.prepared(1), 1);
    recover(&places.databases());
    assert_eq!(check(&places, "without the copy"), [1]);
}

#[test]
fn a_transaction_whose_coordinator_is_paused_before_its_decision_is_reported_as_alive_and_in_doubt() {
    let point = "decide.before_commit";
    for kinds in [[Postgres, Postgres], [Postgres, MariaDb], [MariaDb, Postgres], [Sqlite, Postgres]] {
        let Some(places) = Places::new(&kinds) else { return };
        let databases = places.databases();
        let mut child = start(&places, Work::Listed, point, Stop::Pause);
        until_stopped(&child);
        let report = databases.recover().unwrap();
        assert_eq!(reasons(&report), [Reason::Alive], "{places}: {report}");
        assert_eq!(places.prepared(1), 1, "{places}");
        // Whoever asks waits for the lock of a file as long as others do.
        if kinds[0] != Sqlite {
            let _entered = databases.enter();
            let status = multidb::status(&report.left()[0].id).unwrap();
            assert_eq!(status, multidb::TransactionStatus::InDoubt, "{places}");
        }
        resume(&child);
        assert!(child.wait().unwrap().success(), "{places}");
        recover(&databases);
        assert_eq!(check(&places, point), [1], "{places}");
    }
}

#[test]
fn what_others_finish_while_a_recoverer_is_paused_stays_as_they_have_finished_it() {
    for (left_at, committed) in [("prepare.all_done", false), ("decide.after_commit", true)] {
        for point in ["recover.list.after", "recover.probe.before", "recover.probe.after", "recover.finish.before.0"] {
            let Some(places) = Places::new(&[Postgres, MariaDb]) else { return };
            let databases = places.databases();
            kill_at(&places, Work::Listed, left_at);
            let mut paused = start(&places, Work::Recovers, point, Stop::Pause);
            until_stopped(&paused);
            recover(&databases);
            let expected: &[i64] = if committed { &[1] } else { &[] };
            assert_eq!(check(&places, point), expected, "{left_at}, {point}");
            resume(&paused);
            assert!(paused.wait().unwrap().success(), "{left_at}, {point}");
            assert_eq!(check(&places, point), expected, "{left_at}, {point}");
            let report = databases.recover().unwrap();
            assert!(report.is_clear(), "{report}");
            assert_eq!(places.states(0).iter().filter(|state| *state == "h").count(), 0, "{left_at}, {point}");
        }
    }
}

#[test]
fn a_branch_that_an_operator_rolls_back_against_the_decision_is_found_and_never_repaired_silently() {
    for kinds in [
        [Postgres, Postgres, Postgres],
        [Postgres, MariaDb, MariaDb],
        [MariaDb, MariaDb, Postgres],
        [Sqlite, Postgres, MariaDb],
    ] {
        let Some(places) = Places::new(&kinds) else { return };
        let databases = places.databases();
        let _entered = databases.enter();
        kill_at(&places, Work::Listed, "decide.after_commit");
        places.finish_by_hand(1, false);
        let report = settle(&databases);
        assert_eq!(report.heuristic().len(), 1, "{places}: {report}");
        assert!(!report.is_clear());
        let id = report.heuristic()[0].clone();
        for _ in 0..2 {
            let report = databases.recover().unwrap();
            assert!(report.heuristic().contains(&id) && !report.is_clear(), "{places}: it is told again: {report}");
            assert_eq!((places.rows(0), places.rows(1), places.rows(2)), (vec![1], vec![], vec![1]), "{places}");
            assert_eq!(places.states(0), ["h"], "{places}");
            assert_eq!(multidb::status(&id).unwrap(), multidb::TransactionStatus::Heuristic);
        }
        // Its age doesn't delete it.
        places.execute(0, "UPDATE multidb_decision SET created = 0");
        databases.recover().unwrap();
        assert_eq!(places.states(0), ["h"], "{places}");
    }
}

#[test]
fn a_branch_that_an_operator_commits_without_a_decision_is_found_and_the_others_wait_for_him() {
    for kinds in [[Postgres, Postgres, Postgres], [Sqlite, Postgres, MariaDb]] {
        let Some(places) = Places::new(&kinds) else { return };
        let databases = places.databases();
        kill_at(&places, Work::Listed, "prepare.all_done");
        places.finish_by_hand(1, true);
        for _ in 0..3 {
            let report = settle(&databases);
            assert_eq!(report.heuristic().len(), 1, "{places}: {report}");
            assert_eq!(
                (places.rows(1), places.prepared(2), places.states(0)),
                (vec![1], 1, vec!["h".into()]),
                "{places}"
            );
        }
        places.finish_by_hand(2, false);
    }
}

#[test]
fn where_home_has_lost_the_decision_the_rest_waits_or_is_committed_as_configured() {
    for kinds in [[Postgres, Postgres, Postgres], [MariaDb, Postgres, MariaDb], [Sqlite, Postgres, Postgres]] {
        for killed in [None, Some("recover.probe.after")] {
            let Some(places) = Places::new(&kinds) else { return };
            let databases = places.databases();
            let _entered = databases.enter();
            kill_at(&places, Work::Listed, "apply.after.1");
            places.execute(0, "DELETE FROM multidb_decision");
            if let Some(point) = killed {
                kill_at(&places, Work::Recovers, point);
            }
            for _ in 0..3 {
                let report = settle(&databases);
                assert_eq!(report.heuristic().len(), 1, "{places}, {killed:?}: {report}");
                assert_eq!((places.prepared(2), places.states(0)), (1, vec!["h".into()]), "{places}, {killed:?}");
                let status = multidb::status(&report.heuristic()[0]).unwrap();
                assert_eq!(status, multidb::TransactionStatus::Heuristic);
            }
            let urls = places.urls.iter().map(|url| &**url).enumerate();
            let committing = builder_of(urls).on_lost_home(OnLostHome::Commit).build().unwrap();
            let report = settle(&committing);
            assert_eq!((places.prepared(2), places.rows(2)), (0, vec![1]), "{places}, {killed:?}: {report}");
            assert_eq!(places.states(0), ["h"], "{places}, {killed:?}");
        }
    }
}
