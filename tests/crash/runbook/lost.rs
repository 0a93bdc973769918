//! Databases that are gone for good, and copies.

use multidb::{Reason, TransactionStatus, schema};

use super::{by_hand, prepared, run, says};
use crate::child::{Work, kill_at};
use crate::left_alone::{UNREACHABLE, reasons, settle};
use crate::matrix::check;
use crate::places::{Kind, Places, builder_of};

use Kind::{MariaDb, Postgres};

#[test]
fn a_participant_that_is_gone_for_good_keeps_its_decisions_open_until_they_are_closed_by_hand() {
    let Some(places) = Places::new(&[Postgres, Postgres, MariaDb]) else { return };
    kill_at(&places, Work::Listed, "decide.after_commit");
    let (gone, found) = (places.meta(1, "database_id"), prepared(&places, 1));
    let unreachable = [(0, &*places.urls[0]), (1, UNREACHABLE), (2, &*places.urls[2])];
    let unreachable = builder_of(unreachable.into_iter()).build_lazy().unwrap();
    let report = settle(&unreachable);
    assert_eq!((report.problems().len(), report.committed().len()), (1, 1), "{report}");
    says(&report, "no connection to database ");
    let rest = builder_of([(0, &*places.urls[0]), (2, &*places.urls[2])].into_iter()).build().unwrap();
    places.execute(0, "UPDATE multidb_decision SET created = 0");
    for databases in [&rest, &unreachable] {
        let report = databases.recover().unwrap();
        assert_eq!((&report.open()[0].id, &report.open()[0].missing), (&found.id(), &vec![gone.clone()]), "{report}");
        says(&report, "close it by hand if one is gone for good");
    }
    let fill = [("database_id", &*gone)];
    let open = run(&places, 0, "gone-participant", &fill);
    assert_eq!((open.len(), &open[0][0]), (1, &found.gid));
    run(&places, 0, "gone-participant-close", &fill);
    assert_eq!(run(&places, 0, "gone-participant", &fill), Vec::<Vec<String>>::new());
    // While it is configured no rows are deleted.
    assert!(unreachable.recover().unwrap().open().is_empty());
    assert_eq!((places.own_rows(0)[0], places.own_rows(2)[1]), (1, 1));
    assert!(rest.recover().unwrap().is_clear());
    assert_eq!((places.own_rows(0)[0], places.own_rows(2)[1]), (0, 0));
    assert_eq!((places.rows(0), places.rows(2)), (vec![1], vec![1]));
    by_hand(&places, 1, false);
}

#[test]
fn where_home_is_gone_for_good_one_receipt_tells_that_the_rest_is_to_be_committed() {
    for (point, committed) in [("apply.after.1", true), ("prepare.all_done", false)] {
        let Some(places) = Places::new(&[Postgres, Postgres, MariaDb]) else { return };
        kill_at(&places, Work::Listed, point);
        let found = prepared(&places, 2);
        // Made anew: it has another id, and knows nothing.
        places.execute(0, "DELETE FROM multidb_decision; DELETE FROM multidb_meta");
        let databases = places.databases();
        let _entered = databases.enter();
        schema::install(&databases).unwrap();
        let report = settle(&databases);
        assert!(reasons(&report).iter().all(|reason| *reason == Reason::HomeUnknown), "{report}");
        assert_eq!(multidb::status(&found.id()).unwrap(), TransactionStatus::Unknown);
        let receipts = [0, 1, 2].map(|at| run(&places, at, "receipts", &[("gid", &found.gid)]).len());
        assert_eq!(receipts, [0, usize::from(committed), 0], "{point}");
        by_hand(&places, 2, committed);
        if committed {
            let now = places.meta(0, "database_id");
            for at in [1, 2] {
                let others = run(&places, at, "receipts-of-others", &[("database_id", &now)]);
                assert_eq!((others.len(), &others[0][0]), (1, &found.gid), "{at}");
                run(&places, at, "gone-home-receipts", &[("database_id", found.home())]);
                assert_eq!(places.own_rows(at), [0, 0]);
            }
        } else {
            by_hand(&places, 1, false);
        }
        assert!(databases.recover().unwrap().is_clear());
        assert_eq!(check(&places, point).len(), usize::from(committed));
    }
}

#[test]
fn a_copy_gets_an_id_of_its_own_and_what_is_prepared_in_it_is_rolled_back_there() {
    let Some(places) = Places::new(&[Postgres, MariaDb]) else { return };
    kill_at(&places, Work::Listed, "prepare.all_done");
    let (found, before) = (prepared(&places, 1), places.meta(1, "database_id"));
    run(&places, 1, "copy", &[]);
    let databases = places.databases();
    schema::install(&databases).unwrap();
    assert_ne!(places.meta(1, "database_id"), before);
    // It belongs to the original, so nobody looks at it.
    let report = databases.recover().unwrap();
    assert!(report.is_clear() && report.rolled_back().is_empty(), "{report}");
    run(&places, 1, "undo-mariadb", &found.fill());
    assert_eq!(check(&places, "rolled back"), Vec::<i64>::new());
}
