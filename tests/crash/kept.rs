//! Which rows of the library's stay, and which go.

use multidb::TransactionStatus;
use multidb::fault::Stop;

use crate::child::{Work, kill_at, recover, recover_until, resume, start, transfer, until_stopped};
use crate::matrix::check;
use crate::places::{Kind, Places};

use Kind::{MariaDb, Postgres, Sqlite};

/// An age beyond the retention, by each database's own clock.
const AGE: &str = "UPDATE multidb_decision SET created = 0";

#[test]
fn what_recovery_has_finished_stays_until_its_age_is_over_and_then_goes_with_its_receipts() {
    for kinds in [[Postgres, Postgres], [MariaDb, Postgres], [Sqlite, MariaDb]] {
        let Some(places) = Places::new(&kinds) else { return };
        let databases = places.databases();
        let _entered = databases.enter();
        kill_at(&places, Work::Listed, "decide.after_commit");
        let id = recover_until(&databases, |report| report.committed().len() == 1).committed()[0].clone();
        databases.recover().unwrap();
        assert_eq!((places.own_rows(0), places.own_rows(1)), ([1, 0], [0, 1]), "{places}");
        assert_eq!(multidb::status(&id).unwrap(), TransactionStatus::Committed, "{places}");
        places.execute(0, AGE);
        databases.recover().unwrap();
        assert_eq!((places.own_rows(0), places.own_rows(1)), ([0, 0], [0, 0]), "{places}");
        assert_eq!(multidb::status(&id).unwrap(), TransactionStatus::Forgotten, "{places}");
        assert_eq!(multidb::status(&id).unwrap(), TransactionStatus::Forgotten, "{places}: asking has left nothing");
        assert_eq!(check(&places, "its age is over"), [1]);
    }
}

#[test]
fn old_rows_go_all_at_once_and_those_that_recovery_still_needs_never() {
    for home in [Postgres, MariaDb, Sqlite] {
        let Some(places) = Places::new(&[home, Postgres]) else { return };
        let databases = places.databases();
        let mut paused = start(&places, Work::Listed, "decide.after_commit", Stop::Pause);
        until_stopped(&paused);
        let row = |at: usize| format!("('m1_default_0123456789AB_00000001_{at:025}0', 'a', '', 0, NULL)");
        for from in [0, 200] {
            let rows: Vec<String> = (from..from + 200).map(row).collect();
            places.execute(0, &format!("INSERT INTO multidb_decision VALUES {}", rows.join(", ")));
        }
        places.execute(0, AGE);
        // It is prepared still, and can't be reached.
        let alone = crate::places::builder_of([(0, &*places.urls[0])].into_iter()).build().unwrap();
        alone.recover().unwrap();
        assert_eq!(places.states(0), ["c"], "{places}: four hundred old rows of another life of the database are gone");
        resume(&paused);
        recover(&databases);
        assert!(paused.wait().unwrap().success());
        assert_eq!(check(&places, "old rows"), [1]);
    }
}

#[test]
fn a_hundred_complete_transactions_leave_no_rows_and_the_hundred_and_first_its_own() {
    for kinds in [[MariaDb, MariaDb], [Sqlite, Postgres]] {
        let Some(places) = Places::new(&kinds) else { return };
        let databases = places.databases();
        let _entered = databases.enter();
        (1..=100).for_each(|id| transfer(1, id, id, None).unwrap());
        assert_eq!((places.own_rows(0), places.own_rows(1)), ([0, 0], [0, 0]), "{places}");
        transfer(1, 101, 101, None).unwrap();
        assert_eq!((places.own_rows(0), places.own_rows(1)), ([1, 0], [0, 1]), "{places}");
        databases.recover().unwrap();
        assert_eq!((places.own_rows(0), places.own_rows(1)), ([0, 0], [0, 0]), "{places}");
    }
}
