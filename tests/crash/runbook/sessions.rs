//! Coordinators that live or hang, and who waits for whom.

use std::thread::scope;

use multidb::fault::Stop;
use multidb::{Reason, TransactionStatus};

use super::{Found, Rows, notices, prepared, refused, run, says, until, until_decided};
use crate::child::{Ended, Told, Work, kill_at, recover, resume, start, transfer, until_stopped};
use crate::left_alone::{reasons, settle};
use crate::matrix::check;
use crate::places::{Kind, Places};

use Kind::{MariaDb, Postgres, Sqlite};

/// Ends the session of the coordinator on one database as the runbook says.
fn end_session(places: &Places, at: usize, found: &Found) {
    let only = |rows: &Rows| if let [row] = &rows[..] { Some(row.clone()) } else { None };
    let row = if places.kinds[at] == Postgres {
        let row = until(places, at, "session-postgres", &[("uuid", found.uuid())], only);
        assert_eq!(row[1], "idle in transaction");
        assert!(row[3].starts_with("multidb ") && row[3].contains(found.uuid()), "{row:?}");
        assert_eq!(run(places, at, "end-session-postgres", &[("pid", &row[0])]), [["t"]]);
        row
    } else {
        let row = until(places, at, "session-mariadb", &[], only);
        let owns = |rows: &Rows| rows.iter().any(|owner| owner[0] == row[0]).then_some(());
        until(places, at, "prepared-sessions-mariadb", &[], owns);
        run(places, at, "end-session-mariadb", &[("id", &row[0])]);
        row
    };
    // It still ends, and MariaDB may tell who finishes its branch meanwhile that this is done, and it is not.
    places.until_ended(at, row[0].parse().unwrap());
}

#[test]
fn the_session_of_a_coordinator_that_hangs_is_found_and_ended_and_the_rest_is_rolled_back() {
    for kinds in [[Postgres, Postgres], [MariaDb, Postgres], [Postgres, MariaDb]] {
        let Some(places) = Places::new(&kinds) else { return };
        let databases = places.databases();
        let _entered = databases.enter();
        let child = start(&places, Work::Listed, "decide.before_commit", Stop::Pause);
        until_stopped(&child);
        let found = prepared(&places, 1);
        let report = databases.recover().unwrap();
        assert_eq!(reasons(&report), [Reason::Alive], "{places}: {report}");
        says(&report, "its coordinator may be alive: the decision is held, or home does not answer (`accounts`: ");
        says(&report, "prepared on `entries`, named ");
        let waited =
            if kinds[0] == Postgres { "canceling statement due to lock timeout" } else { "Lock wait timeout exceeded" };
        says(&report, waited);
        assert_eq!(multidb::status(&found.id()).unwrap(), TransactionStatus::InDoubt);
        end_session(&places, 0, &found);
        let report = until_decided(&databases);
        if kinds[1] == MariaDb {
            // The session that has prepared it lives.
            assert_eq!(reasons(&report), [Reason::NotFinished], "{places}: {report}");
            says(&report, "XAER_NOTA: Unknown XID");
            says(&refused(&places, 1, "undo-mariadb", &found.fill()), "XAER_NOTA: Unknown XID");
            end_session(&places, 1, &found);
        }
        recover(&databases);
        assert_eq!(check(&places, "ended"), Vec::<i64>::new());
        assert_eq!(multidb::status(&found.id()).unwrap(), TransactionStatus::RolledBack);
        resume(&child);
        assert_eq!(Ended::of(child).told(), Some(Told::RolledBack), "{places}");
    }
}

#[test]
fn a_branch_on_mariadb_whose_session_lives_is_finished_once_that_is_ended_and_the_coordinator_is_told_the_truth() {
    let Some(places) = Places::new(&[Postgres, MariaDb]) else { return };
    let databases = places.databases();
    let child = start(&places, Work::Listed, "decide.after_commit", Stop::Pause);
    until_stopped(&child);
    let found = prepared(&places, 1);
    let report = databases.recover().unwrap();
    assert_eq!(reasons(&report), [Reason::NotFinished], "{report}");
    says(&report, "a branch could not be finished; its session may still hold it (`entries`: ");
    says(&refused(&places, 1, "finish-mariadb", &found.fill()), "XAER_NOTA: Unknown XID");
    end_session(&places, 1, &found);
    recover(&databases);
    assert_eq!(check(&places, "ended"), [1]);
    resume(&child);
    assert_eq!(Ended::of(child).told(), Some(Told::Committed));
}

#[test]
fn who_waits_for_a_branch_that_nobody_owns_is_seen_and_what_it_locks_and_both_end() {
    scope(|threads| {
        for kinds in [[Postgres, Postgres], [Postgres, MariaDb]] {
            threads.spawn(move || waits_for_a_branch(&kinds));
        }
    });
}

fn waits_for_a_branch(kinds: &[Kind]) {
    let Some(places) = Places::new(kinds) else { return };
    let databases = places.databases();
    kill_at(&places, Work::Listed, "prepare.all_done");
    let found = prepared(&places, 1);
    scope(|threads| {
        let waits = threads.spawn(|| {
            let _entered = databases.enter();
            transfer(1, 1, 1, None)
        });
        let name = if kinds[1] == Postgres { "waits-postgres" } else { "waits-mariadb" };
        until(&places, 1, name, &[], |rows| {
            let ours = places.sessions();
            rows.iter().find(|row| ours[1].contains(&row[0].parse().unwrap())).map(|row| {
                let owner = if kinds[1] == Postgres { "{0}" } else { "0" };
                assert_eq!(row[1], owner, "{places}: {row:?}");
                assert!(row.last().unwrap().contains("entries"), "{places}: {row:?}");
            })
        });
        shows_what_it_holds(&places, &found);
        let refused = waits.join().unwrap().unwrap_err();
        let words = if kinds[1] == Postgres { "canceling statement due to lock timeout" } else { "Lock wait timeout" };
        says(&refused, words);
    });
    recover(&databases);
    assert_eq!(check(&places, "recovered"), Vec::<i64>::new());
    let _entered = databases.enter();
    transfer(1, 1, 1, None).unwrap();
}

fn shows_what_it_holds(places: &Places, found: &Found) {
    if places.kinds[1] == MariaDb {
        let detached = |rows: &Rows| rows.iter().any(|row| row[0] == "0").then_some(());
        until(places, 1, "prepared-sessions-mariadb", &[], detached);
        let one = |rows: &Rows| rows[0][0].parse::<u32>().is_ok_and(|prepared| prepared > 0).then_some(());
        until(places, 1, "watch-mariadb", &[], one);
        return;
    }
    let locks = run(places, 1, "prepared-locks-postgres", &[]);
    let name = format!("{}:{}", found.gid, found.branch);
    let expected = |relation: &str| vec![name.clone(), relation.to_owned(), "RowExclusiveLock".to_owned()];
    assert!(locks.contains(&expected("entries")) && locks.contains(&expected("multidb_receipt")), "{locks:?}");
    assert_eq!(run(places, 1, "watch-postgres", &[])[0][0], "1");
    places.execute(1, "INSERT INTO entries VALUES (5), (6); DELETE FROM entries WHERE id > 4");
    says(&notices(places, 1, "vacuum", &[("table", "entries")]), "2 are dead but not yet removable");
    let [count] = &run(places, 1, "prepared-count", &[])[..] else { panic!("one row") };
    assert!(count[0].parse::<u32>().unwrap() > 0 && count[1] == "64", "{count:?}");
}

#[test]
fn a_process_that_hangs_with_a_file_locks_all_others_out_until_it_is_ended() {
    let Some(places) = Places::new(&[Sqlite, Postgres]) else { return };
    let databases = places.databases();
    let _entered = databases.enter();
    let child = start(&places, Work::Listed, "decide.before_commit", Stop::Pause);
    until_stopped(&child);
    says(&transfer(1, 2, 2, None).unwrap_err(), "database is locked");
    drop(child);
    let report = settle(&databases);
    assert!(report.is_clear() && report.rolled_back().len() == 1, "{report}");
    transfer(1, 3, 3, None).unwrap();
    assert_eq!(check(&places, "ended"), [3]);
}

#[test]
fn a_session_that_is_idle_for_too_long_ends_by_itself_and_nobody_need_do_anything() {
    let Some(places) = Places::new(&[Postgres, Postgres]) else { return };
    for (at, url) in places.urls.iter().enumerate() {
        // The limit of the library is never looser than that of the user.
        let name = url.rsplit_once('/').unwrap().1;
        places.execute(at, &format!("ALTER DATABASE {name} SET idle_in_transaction_session_timeout = '3s'"));
    }
    for (point, told) in [
        ("intent.before", "server closed the connection unexpectedly"),
        ("decide.before_commit", "the connection was lost at COMMIT, and the database says that nothing was committed"),
    ] {
        let known = places.sessions();
        let child = start(&places, Work::Listed, point, Stop::Pause);
        until_stopped(&child);
        if point == "intent.before" {
            // Nothing is prepared.
            places.until_gone_but(&known);
        } else {
            let report = until_decided(&places.databases());
            assert!(report.is_clear() && report.rolled_back().len() == 1, "{report}");
        }
        resume(&child);
        let ended = Ended::of(child);
        assert_eq!(ended.told(), Some(Told::RolledBack), "{ended:?}");
        says(&format!("{ended:?}"), told);
        assert_eq!(check(&places, point), Vec::<i64>::new());
    }
}
