//! The thread that recovers.

use std::net::TcpListener;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use multidb::{Databases, RecoveryHandle, TransactionId, TransactionStatus, schema};

use super::in_doubt::{Far, PREPARE};
use super::witness::POLL;
use super::*;
use crate::fixture::Kind;
use crate::support::proxy::Loses;

/// When a test is over that would hang.
const LIMIT: Duration = Duration::from_mins(1);

fn until(otherwise: &str, mut done: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !done() {
        assert!(begin.elapsed() < LIMIT, "{otherwise}");
        std::thread::sleep(POLL);
    }
}

/// Ends within the limit.
fn ends(what: &'static str, work: impl FnOnce() + Send + 'static) {
    let (done, waits) = channel();
    std::thread::spawn(move || {
        work();
        done.send(()).unwrap();
    });
    assert!(waits.recv_timeout(LIMIT).is_ok(), "{what} hangs");
}

fn left_prepared(far: &Far, id: i64) -> TransactionId {
    far.proxies[1].lose_once(PREPARE, Loses::ReplyAfter(0));
    let seen = far.put_both(id);
    assert!(seen.result.is_err() && far.proxies[1].hit());
    far.until_lost_are_gone();
    seen.id
}

#[test]
fn the_thread_recovers_at_its_start_and_when_it_is_resumed() {
    let Some(far) = Far::new() else { return };
    far.put_both(100).result.unwrap();
    let first = left_prepared(&far, 1);
    let handle = far.near.start_recovery();
    until("no pass", || handle.last_report().is_some());
    // A pass may have begun before it was there.
    until("it is not finished", || {
        handle.resume();
        far.prepared() == 0
    });
    assert_eq!(far.status(&first), TransactionStatus::RolledBack);
    handle.suspend();
    left_prepared(&far, 2);
    let before = handle.last_report().unwrap().to_string();
    assert_eq!(handle.last_report().unwrap().to_string(), before, "no pass while it is suspended");
    assert_eq!(far.prepared(), 1);
    until("it is not finished after it was resumed", || {
        handle.resume();
        far.prepared() == 0
    });
    ends("stopping", || handle.stop());
}

#[test]
fn a_suspended_thread_can_be_stopped_and_dropped() {
    let Some(far) = Far::new() else { return };
    let [stopped, dropped]: [RecoveryHandle; 2] = [far.near.start_recovery(), far.near.start_recovery()];
    for handle in [&stopped, &dropped] {
        handle.suspend();
        handle.suspend();
    }
    ends("stopping", || stopped.stop());
    ends("dropping", || drop(dropped));
}

#[test]
fn a_database_that_never_answers_blocks_neither_start_nor_stop_nor_the_others() {
    let Some(far) = Far::new() else { return };
    far.put_both(100).result.unwrap();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let scheme = if KIND == Kind::Mysql { "mysql" } else { "postgres" };
    let url = format!("{scheme}://nobody@{}/none", silent.local_addr().unwrap());
    let mut builder = Databases::builder().router(ByApp);
    for (alias, url) in [("silent", &url), ("default", &far.fixture.urls[0]), ("other", &far.fixture.urls[1])] {
        builder = builder.database(multidb::DatabaseConfig::new(alias, url.clone()));
    }
    let databases = builder.build_lazy().unwrap();
    left_prepared(&far, 1);
    let handle = databases.start_recovery();
    until("the others are not recovered", || far.prepared() == 0);
    until("no report", || handle.last_report().is_some());
    let report = handle.last_report().unwrap();
    assert_eq!(report.problems().len(), 1, "{report}");
    assert_eq!(report.problems()[0].0, "silent", "{report}");
    ends("stopping", || handle.stop());
    // A hundred transactions of the two others have their rows deleted without it.
    let _entered = databases.enter();
    ends("a hundred transactions", {
        let databases = databases.clone();
        move || {
            let _entered = databases.enter();
            for id in 1_000..1_100 {
                multidb::atomic_many::<(Item, Record)>()
                    .run(|_| {
                        put(id, 10)?;
                        put_record(id, 20)
                    })
                    .unwrap();
            }
        }
    });
    assert!(far.fixture.own_rows().iter().sum::<i64>() < 10, "{:?}", far.fixture.own_rows());
    drop(silent);
    schema::install(&far.near).unwrap();
}
