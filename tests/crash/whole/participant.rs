//! A participant fails over while a branch is prepared there.

use multidb::fault::Stop;
use multidb::{Reason, TransactionStatus};

use super::{Pair, is_complete_and_forgotten, with_moved};
use crate::child::{Work, kill_at, recover, resume, start, transfer, until_stopped};
use crate::left_alone::{reasons, settle};
use crate::matrix::check;
use crate::places::{Kind, Places};
use crate::servers::postgres_url;

#[test]
fn a_branch_that_reached_the_promoted_standby_is_finished_there_and_one_that_did_not_is_told_of() {
    let Some(postgres) = postgres_url() else { return };
    let Some(pair) = Pair::start() else { return };
    let on_it = || Places::on(&[Kind::Postgres; 2], &[postgres.to_owned(), pair.primary.url().to_owned()]);
    let (committed, undecided, lost, complete, adopted) = (on_it(), on_it(), on_it(), on_it(), on_it());
    let in_a_file = Places::on(&[Kind::Sqlite, Kind::Postgres], &[String::new(), pair.primary.url().to_owned()]);
    let forgotten = [on_it(), in_a_file];
    kill_at(&committed, Work::Listed, "decide.after_commit");
    kill_at(&undecided, Work::Listed, "prepare.all_done");
    kill_at(&adopted, Work::Listed, "decide.after_commit");
    let coordinators = forgotten.each_ref().map(|at| start(at, Work::Listed, "decide.after_commit", Stop::Pause));
    for coordinator in &coordinators {
        until_stopped(coordinator);
    }
    transfer_once(&complete);
    pair.until_caught_up();
    pair.hold();
    kill_at(&lost, Work::Listed, "decide.after_commit");
    for coordinator in &coordinators {
        resume(coordinator);
    }
    for mut coordinator in coordinators {
        assert!(coordinator.wait().unwrap().success());
    }
    forgotten.iter().for_each(is_complete_and_forgotten);
    is_complete_and_forgotten(&complete);

    pair.fail_over();
    let [committed, undecided, lost, complete, adopted] =
        [committed, undecided, lost, complete, adopted].map(|places| with_moved(places, 1, &pair.standby));
    let forgotten = forgotten.map(|places| with_moved(places, 1, &pair.standby));
    recover(&committed.databases());
    assert_eq!(check(&committed, "decided"), [1]);
    adopted.databases().adopt("entries").unwrap();
    assert_eq!(check(&adopted, "decided, and adopted before any recovery"), [1]);
    recover(&undecided.databases());
    assert_eq!(check(&undecided, "undecided"), Vec::<i64>::new());
    is_told_of(&lost);
    forgotten.iter().for_each(is_left_although_home_has_no_decision);
    is_told_although_it_is_complete(&complete);
}

fn transfer_once(places: &Places) {
    let databases = places.databases();
    let _entered = databases.enter();
    transfer(1, 1, 1, None).unwrap();
}

fn is_told_of(places: &Places) {
    let databases = places.databases();
    let _entered = databases.enter();
    let report = settle(&databases);
    assert_eq!(report.heuristic().len(), 1, "{report}");
    assert_eq!((places.states(0), places.rows(0), places.rows(1)), (vec!["h".into()], vec![1], vec![]), "{report}");
    assert_eq!(multidb::status(&report.heuristic()[0]).unwrap(), TransactionStatus::Heuristic);
}

/// The standby has the branch, and not its COMMIT. Home has deleted the decision, since the branch had committed. A file must
/// not keep the row of the question either: the next pass would take it for the decision.
fn is_left_although_home_has_no_decision(places: &Places) {
    let databases = places.databases();
    let _entered = databases.enter();
    for _ in 0..3 {
        let report = settle(&databases);
        assert_eq!((reasons(&report), places.prepared(1)), (vec![Reason::Failover], 1), "{report}");
        assert_eq!(multidb::status(&report.left()[0].id).unwrap(), TransactionStatus::Forgotten);
    }
    let error = databases.adopt("entries").unwrap_err().to_string();
    assert!(error.contains("may have been committed before, and its decision be deleted since"), "{error}");
    places.finish_by_hand(1, true);
    databases.adopt("entries").unwrap();
    assert_eq!(check(places, "the operator commits what home has"), [1]);
    places.execute(1, "DELETE FROM multidb_receipt");
    assert!(databases.recover().unwrap().is_clear());
}

/// The standby has the receipt, which was deleted since.
fn is_told_although_it_is_complete(places: &Places) {
    assert_eq!(places.databases().recover().unwrap().heuristic().len(), 1);
    assert_eq!((check(places, "complete"), places.states(0)), (vec![1], vec!["h".into()]));
    places.execute(1, "DELETE FROM multidb_receipt");
    places.execute(0, "DELETE FROM multidb_decision");
    assert!(places.databases().recover().unwrap().is_clear());
}
