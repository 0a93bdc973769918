//! Home has a standby that each commit waits for.

use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection;
use multidb::fault::Stop;
use multidb::{Reason, TransactionStatus};

use super::{Pair, raw, text, until, with_moved};
use crate::child::{Work, recover, start, transfer};
use crate::left_alone::reasons;
use crate::matrix::check;
use crate::places::{Kind, Places};
use crate::servers::postgres_url;

/// A pass over two databases may wait for a standby that long. Alone it would wait for ever.
const PASS_LIMIT: Duration = Duration::from_secs(20);

const WAITING: &str = "SELECT pid::text AS data FROM pg_stat_activity WHERE wait_event = 'SyncRep'";

impl Pair {
    /// From now on each commit waits for the standby.
    fn synchronize(&self) {
        let primary = &mut raw(&self.primary);
        primary.batch_execute("ALTER SYSTEM SET synchronous_standby_names = '*'").unwrap();
        primary.batch_execute("SELECT pg_reload_conf()").unwrap();
        let synchronous = "SELECT pid::text AS data FROM pg_stat_replication WHERE sync_state = 'sync'";
        until("the standby is waited for", || text(primary, synchronous).len() == 1);
    }

    /// Who waits for the standby, once somebody does.
    fn waiting(&self) -> String {
        let primary = &mut raw(&self.primary);
        until("a commit waits for the standby", || !text(primary, WAITING).is_empty());
        text(primary, WAITING).remove(0)
    }

    /// A coordinator is killed while its decision waits for the standby, and then the primary crashes.
    fn kill_both_while_the_decision_waits(&self, places: &Places) {
        let coordinator = start(places, Work::Listed, "decide.after_commit", Stop::Kill);
        self.waiting();
        drop(coordinator);
        self.primary.kill();
        self.primary.restart();
        assert_eq!((places.states(0), places.rows(0)), (vec!["c".into()], vec![1]), "now it can be read");
    }
}

/// Passes and questions end, decide nothing and touch nothing.
fn is_left_alone(places: &Places) {
    let databases = places.databases();
    let _entered = databases.enter();
    let begin = Instant::now();
    let report = databases.recover().unwrap();
    assert_eq!((reasons(&report), report.closed(), places.prepared(1)), (vec![Reason::Alive], 0, 1), "{report}");
    assert_eq!(multidb::status(&report.left()[0].id).unwrap(), TransactionStatus::InDoubt);
    assert!(begin.elapsed() < PASS_LIMIT, "{:?}", begin.elapsed());
}

#[test]
fn a_decision_that_no_standby_has_confirmed_is_not_followed_and_no_pass_waits_for_ever() {
    let Some(postgres) = postgres_url().map(str::to_owned) else { return };
    let Some(pair) = Pair::start() else { return };
    let home = |others: usize| {
        let mut servers = vec![postgres.clone(); others + 1];
        servers[0] = pair.primary.url().to_owned();
        Places::on(&vec![Kind::Postgres; others + 1], &servers)
    };
    let (confirmed, lost, told) = (home(1), home(1), home(1));
    pair.until_caught_up();
    pair.synchronize();

    let from = pair.hold();
    pair.kill_both_while_the_decision_waits(&confirmed);
    is_left_alone(&confirmed);
    pair.go_on(&from);
    recover(&confirmed.databases());
    assert_eq!(check(&confirmed, "a standby has confirmed it"), [1]);

    pair.until_caught_up();
    pair.hold();
    what_is_committed_for_the_primary_alone_is_told_as_unknown(&told, &pair);
    pair.kill_both_while_the_decision_waits(&lost);
    is_left_alone(&lost);
    pair.fail_over();
    for lost in [with_moved(told, 0, &pair.standby), with_moved(lost, 0, &pair.standby)] {
        let databases = lost.databases();
        assert_eq!(reasons(&databases.recover().unwrap()), [Reason::Failover]);
        databases.adopt("accounts").unwrap();
        recover(&databases);
        assert_eq!(check(&lost, "the standby has never got it"), Vec::<i64>::new());
    }
}

/// The coordinator lives, and its session is ended while it waits.
fn what_is_committed_for_the_primary_alone_is_told_as_unknown(places: &Places, pair: &Pair) {
    let databases = places.databases();
    let told = std::thread::scope(|threads| {
        let coordinator = threads.spawn(|| {
            let _entered = databases.enter();
            transfer(1, 1, 1, None)
        });
        let waiting = pair.waiting();
        raw(&pair.primary).batch_execute(&format!("SELECT pg_terminate_backend({waiting})")).unwrap();
        coordinator.join().unwrap()
    });
    let error = told.expect_err("the standby could lose it");
    assert!(error.is_in_doubt(), "{error}");
    assert_eq!((places.states(0), places.prepared(1)), (vec!["c".into()], 1), "{error}");
}

#[test]
fn what_recovery_commits_for_a_primary_alone_is_no_reason_to_forget_the_decision() {
    let Some(postgres) = postgres_url().map(str::to_owned) else { return };
    let Some(pair) = Pair::start() else { return };
    let places = Places::on(&[Kind::Postgres; 2], &[postgres, pair.primary.url().to_owned()]);
    pair.until_caught_up();
    pair.synchronize();
    crate::child::kill_at(&places, Work::Listed, "decide.after_commit");
    pair.until_caught_up();
    pair.hold();
    let databases = places.databases();
    for _ in 0..2 {
        let begin = Instant::now();
        databases.recover().unwrap();
        assert!(begin.elapsed() < PASS_LIMIT, "{:?}", begin.elapsed());
        assert_eq!((places.rows(1), places.prepared(1)), (vec![1], 0), "it is finished at once");
        assert_eq!(places.unfinished(), [1, 0], "and not closed");
    }
    pair.fail_over();
    let places = with_moved(places, 1, &pair.standby);
    assert_eq!((places.rows(1), places.prepared(1)), (vec![], 1), "it is prepared as before");
    recover(&places.databases());
    assert_eq!(check(&places, "finished again"), [1]);
}
