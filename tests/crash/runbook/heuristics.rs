//! Databases that disagree, by each way into it, and how an operator brings them together again.

use multidb::{OnLostHome, TransactionStatus};

use super::{by_hand, change, prepared, run, says};
use crate::child::{Work, kill_at};
use crate::left_alone::settle;
use crate::matrix::check;
use crate::places::{Kind, Places, builder_of};

use Kind::{MariaDb, Postgres, Sqlite};

/// The rows say that all have the work, or that none has it. Nothing is told any more.
fn settled(places: &Places, gid: &str, committed: bool) {
    if committed {
        change(places, 0, "settle-committed", &[("gid", gid)]);
    } else {
        for at in 1..places.urls.len() {
            change(places, at, "settle-receipts", &[("gid", gid)]);
        }
        change(places, 0, "settle-rolled-back", &[("gid", gid)]);
    }
    let databases = places.databases();
    let _entered = databases.enter();
    for _ in 0..2 {
        let report = databases.recover().unwrap();
        assert!(report.is_clear(), "{places}: {report}");
        let status = if committed { TransactionStatus::Committed } else { TransactionStatus::RolledBack };
        assert_eq!(multidb::status(&gid.parse().unwrap()).unwrap(), status, "{places}");
    }
    let expected: &[i64] = if committed { &[1] } else { &[] };
    assert_eq!(check(places, "settled"), expected);
    // They go like any others.
    places.execute(0, "UPDATE multidb_decision SET created = 0");
    assert!(databases.recover().unwrap().is_clear(), "{places}");
    for at in 0..places.urls.len() {
        assert_eq!(places.own_rows(at), [0, 0], "{places}, {at}");
    }
}

/// What the runbook shows of the only one at home: its participants.
fn participants(places: &Places, gid: &str) -> String {
    let rows = run(places, 0, "heuristics", &[]);
    let [row] = &rows[..] else { panic!("{places}: {rows:?}") };
    assert_eq!(row[0], gid, "{places}");
    row[1].clone()
}

#[test]
fn a_branch_that_was_rolled_back_against_the_decision_is_settled_by_bringing_its_rows_there() {
    for kinds in [[Postgres, MariaDb, Postgres], [MariaDb, Postgres, MariaDb]] {
        let Some(places) = Places::new(&kinds) else { return };
        kill_at(&places, Work::Listed, "decide.after_commit");
        let found = prepared(&places, 1);
        by_hand(&places, 1, false);
        let report = settle(&places.databases());
        says(&report, ": the databases disagree");
        assert!(participants(&places, &found.gid).split(',').any(|branch| branch == found.branch));
        let receipts = [1, 2].map(|at| run(&places, at, "receipts", &[("gid", &found.gid)]).len());
        assert_eq!(receipts, [0, 1], "{places}: one has neither a receipt nor a branch");
        places.execute(1, "INSERT INTO entries VALUES (1)");
        settled(&places, &found.gid, true);
    }
}

#[test]
fn a_branch_that_was_committed_without_a_decision_is_settled_by_undoing_its_rows_or_by_bringing_the_others() {
    for (kinds, committed) in [
        ([Postgres, Postgres, Postgres], false),
        ([Sqlite, MariaDb, Postgres], false),
        ([Postgres, MariaDb, Postgres], true),
        ([Sqlite, Postgres, MariaDb], true),
    ] {
        let Some(places) = Places::new(&kinds) else { return };
        kill_at(&places, Work::Listed, "prepare.all_done");
        let found = prepared(&places, 1);
        by_hand(&places, 1, true);
        let report = settle(&places.databases());
        assert_eq!(report.heuristic(), [found.id()], "{places}: {report}");
        if kinds[0] != Sqlite {
            assert_eq!(participants(&places, &found.gid), "", "{places}");
        }
        by_hand(&places, 2, committed);
        if committed {
            places.execute(0, "INSERT INTO accounts VALUES (1)");
        } else {
            places.execute(1, "DELETE FROM entries");
        }
        settled(&places, &found.gid, committed);
    }
}

#[test]
fn a_decision_that_home_has_lost_is_settled_as_the_others_have_followed_it() {
    for (kinds, on_lost_home) in
        [([Postgres, Postgres, MariaDb], OnLostHome::Wait), ([MariaDb, Postgres, Postgres], OnLostHome::Commit)]
    {
        let Some(places) = Places::new(&kinds) else { return };
        kill_at(&places, Work::Listed, "apply.after.1");
        let found = prepared(&places, 2);
        places.execute(0, "DELETE FROM multidb_decision");
        let urls = places.urls.iter().map(|url| &**url).enumerate();
        let report = settle(&builder_of(urls).on_lost_home(on_lost_home).build().unwrap());
        assert_eq!(report.heuristic(), [found.id()], "{places}: {report}");
        if on_lost_home == OnLostHome::Wait {
            by_hand(&places, 2, true);
        }
        settled(&places, &found.gid, true);
    }
}

#[test]
fn what_is_complete_and_has_lost_its_closing_alone_is_settled_by_closing_it() {
    let Some(places) = Places::new(&[Postgres, Postgres]) else { return };
    kill_at(&places, Work::Listed, "decide.after_commit");
    let found = prepared(&places, 1);
    assert!(settle(&places.databases()).is_clear());
    places.execute(0, "UPDATE multidb_decision SET closed = NULL");
    places.execute(1, "DELETE FROM multidb_receipt");
    assert_eq!(settle(&places.databases()).heuristic(), [found.id()]);
    settled(&places, &found.gid, true);
}
