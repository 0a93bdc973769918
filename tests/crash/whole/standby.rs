//! Home fails over to a standby that streams without being waited for.

use multidb::{OnLostHome, Reason, TransactionStatus};

use super::{Pair, is_complete_and_forgotten, moved, pass, registry_of, with_moved};
use crate::child::{Work, kill_at, recover, transfer};
use crate::left_alone::{UNREACHABLE, reasons, settle};
use crate::matrix::check;
use crate::places::{Kind, Places, builder_of};
use crate::servers::{mysql_url, postgres_url};

use Kind::{MariaDb, Postgres};

#[test]
fn what_reached_a_promoted_standby_is_followed_and_what_did_not_is_never_taken_for_rolled_back() {
    let (Some(postgres), Some(mariadb)) = (postgres_url(), mysql_url()) else { return };
    let Some(pair) = Pair::start() else { return };
    let on_home = |kinds: &[Kind]| {
        let others = kinds[1..].iter().map(|kind| if *kind == Postgres { postgres } else { mariadb });
        let servers: Vec<String> = std::iter::once(pair.primary.url()).chain(others).map(str::to_owned).collect();
        Places::on(kinds, &servers)
    };
    let arrived = on_home(&[Postgres, Postgres]);
    let missing = on_home(&[Postgres, Postgres, MariaDb]);
    let followed = on_home(&[Postgres, Postgres, Postgres]);
    let by_the_old = on_home(&[Postgres, Postgres]);
    let complete = on_home(&[Postgres, Postgres]);
    kill_at(&complete, Work::Listed, "decide.after_commit");
    kill_at(&arrived, Work::Listed, "decide.after_commit");
    pair.until_caught_up();
    pair.hold();
    is_complete_and_forgotten(&complete);
    kill_at(&missing, Work::Listed, "decide.after_commit");
    kill_at(&followed, Work::Listed, "apply.after.1");
    kill_at(&by_the_old, Work::Listed, "decide.after_commit");
    is_not_asked_before_it_is_promoted(&missing, &pair);

    pair.fail_over();
    let arrived = with_moved(arrived, 0, &pair.standby);
    recover(&arrived.databases());
    assert_eq!(check(&arrived, "the decision arrived"), [1]);
    is_told_although_it_is_complete(&with_moved(complete, 0, &pair.standby));
    is_left_until_home_is_adopted(&with_moved(missing, 0, &pair.standby));
    receipts_tell_that_it_was_decided(&with_moved(followed, 0, &pair.standby));
    pair.primary.restart();
    the_old_primary_decides_nothing_of_the_new_one(&arrived, &pair);
    what_the_old_primary_finishes_is_told(by_the_old, &pair);
}

fn is_not_asked_before_it_is_promoted(places: &Places, pair: &Pair) {
    let standby = moved(&places.urls[0], &pair.standby);
    for _ in 0..3 {
        let report = settle(&registry_of(&[&standby, &places.urls[1], &places.urls[2]]));
        assert_eq!((reasons(&report), report.problems().len()), (vec![Reason::Standby], 1), "{report}");
    }
    assert_eq!((places.prepared(1), places.prepared(2)), (1, 1));
}

/// The standby has the decision, and not that it was closed. The receipts are deleted elsewhere.
fn is_told_although_it_is_complete(places: &Places) {
    assert_eq!(places.databases().recover().unwrap().heuristic().len(), 1);
    assert_eq!((check(places, "complete"), places.states(0)), (vec![1], vec!["h".into()]));
    places.execute(0, "UPDATE multidb_decision SET state = 'c', closed = 0");
    assert!(places.databases().recover().unwrap().is_clear());
}

fn is_left_until_home_is_adopted(places: &Places) {
    let databases = places.databases();
    let _entered = databases.enter();
    let failover = |databases| {
        let report = settle(databases);
        assert_eq!(reasons(&report), [Reason::Failover], "{report}");
        assert_eq!((places.prepared(1), places.prepared(2)), (1, 1), "{report}");
        report.left()[0].id.clone()
    };
    let id = failover(&databases);
    for _ in 0..5 {
        assert_eq!(failover(&databases), id);
        assert_eq!(multidb::status(&id).unwrap(), TransactionStatus::InDoubt);
    }
    databases.adopt("accounts").unwrap();
    let unreachable = [&*places.urls[0], &*places.urls[1], UNREACHABLE];
    let report = settle(&registry_of(&unreachable));
    assert_eq!((reasons(&report), places.prepared(1)), (vec![Reason::Failover], 1), "{report}");
    recover(&databases);
    assert_eq!(check(places, "lost everywhere"), Vec::<i64>::new());
    assert_eq!(multidb::status(&id).unwrap(), TransactionStatus::RolledBack);
}

fn receipts_tell_that_it_was_decided(places: &Places) {
    let databases = places.databases();
    let _entered = databases.enter();
    for adopted in [false, true] {
        let report = settle(&databases);
        assert_eq!(report.heuristic().len(), 1, "adopted: {adopted}: {report}");
        assert_eq!((places.states(0), places.rows(1), places.prepared(2)), (vec!["h".into()], vec![1], 1), "{report}");
        assert_eq!(multidb::status(&report.heuristic()[0]).unwrap(), TransactionStatus::Heuristic);
        databases.adopt("accounts").unwrap();
    }
    let urls = places.urls.iter().map(|url| &**url).enumerate();
    let report = settle(&builder_of(urls).on_lost_home(OnLostHome::Commit).build().unwrap());
    assert_eq!((report.heuristic().len(), places.states(0)), (1, vec!["h".into()]), "{report}");
    assert_eq!((places.rows(0), places.rows(1), places.rows(2)), (vec![], vec![1], vec![1]), "home's rows are lost");
}

/// It still answers, and a registry has its URL.
fn the_old_primary_decides_nothing_of_the_new_one(places: &Places, pair: &Pair) {
    let databases = places.databases();
    let _entered = databases.enter();
    transfer(1, 2, 2, None).unwrap();
    for (point, committed) in [("decide.after_commit", true), ("prepare.all_done", false)] {
        places.execute(0, "DELETE FROM accounts");
        places.execute(1, "DELETE FROM entries");
        kill_at(places, Work::Listed, point);
        let old = moved(&places.urls[0], &pair.primary);
        for _ in 0..3 {
            let report = settle(&registry_of(&[&old, &places.urls[1]]));
            assert_eq!((reasons(&report), places.prepared(1)), (vec![Reason::Failover], 1), "{point}: {report}");
            assert!(report.heuristic().is_empty(), "{point}: it marks what its successor has committed: {report}");
            // Nobody knows which of the two counts.
            let report = pass(&[&places.urls[0], &places.urls[1], &old]);
            assert_eq!(
                (reasons(&report), report.problems().len()),
                (vec![Reason::HomeUnknown], 2),
                "{point}: {report}"
            );
        }
        recover(&databases);
        assert_eq!(check(places, point), if committed { vec![1] } else { vec![] });
    }
}

/// The decision is known to the old primary alone, and it was not fenced.
fn what_the_old_primary_finishes_is_told(places: Places, pair: &Pair) {
    recover(&places.databases());
    assert_eq!(check(&places, "on the old primary"), [1]);
    let places = with_moved(places, 0, &pair.standby);
    let databases = places.databases();
    let _entered = databases.enter();
    let report = databases.recover().unwrap();
    assert_eq!(report.heuristic().len(), 1, "{report}");
    for _ in 0..2 {
        databases.recover().unwrap();
        assert_eq!(places.states(0), ["h"]);
        assert_eq!(multidb::status(&report.heuristic()[0]).unwrap(), TransactionStatus::Heuristic);
    }
}

#[test]
fn a_standby_beside_its_primary_is_not_in_the_way_and_in_place_of_it_it_proves_nothing() {
    let Some(postgres) = postgres_url().map(str::to_owned) else { return };
    let Some(pair) = Pair::start() else { return };
    let replicated = pair.primary.url().to_owned();
    let home = Places::on(&[Postgres, Postgres], &[replicated.clone(), postgres.clone()]);
    let participant = Places::on(&[Postgres, Postgres], &[postgres.clone(), replicated.clone()]);
    pair.until_caught_up();
    for (places, at) in [(&home, 0), (&participant, 1)] {
        kill_at(places, Work::Listed, "decide.after_commit");
        let replica = moved(&places.urls[at], &pair.standby);
        recover(&registry_of(&[&places.urls[0], &places.urls[1], &replica]));
        assert_eq!(check(places, "a replica is configured too"), [1]);
    }
    // It has neither the branch in its list nor the receipt.
    let places = Places::on(&[Postgres, Postgres], &[postgres, replicated]);
    pair.until_caught_up();
    kill_at(&places, Work::Listed, "decide.after_commit");
    pair.until_caught_up();
    for _ in 0..3 {
        let report = pass(&[&places.urls[0], &moved(&places.urls[1], &pair.standby)]);
        assert_eq!((report.problems().len(), report.heuristic().len(), report.closed()), (1, 0, 0), "{report}");
        assert_eq!((places.states(0), places.prepared(1)), (vec!["c".into()], 1), "{report}");
    }
    recover(&places.databases());
    assert_eq!(check(&places, "the primary is asked again"), [1]);
}
