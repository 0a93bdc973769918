//! Functions that return once their transaction over two databases is decided: `acknowledge = decided`.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use diesel::prelude::*;
use multidb::{
    Acknowledge, Atomic, AtomicMany, CommitMode, Entered, Error, HANDED_OVER_LIMIT, RecoveryHandle, TransactionId,
    TransactionStatus, atomic, atomic_many, scope, transactional,
};

use super::in_doubt::{COMMIT_PREPARED, Far, PREPARE};
use super::*;
use crate::fixture::Kind;
use crate::support::proxy::{Loses, Moment, Then};

/// When a test is over that would hang.
const LIMIT: Duration = Duration::from_mins(1);

/// How long stopping would take, with time to spare, if it did not wait.
const AT_ONCE: Duration = Duration::from_millis(500);

/// Puts a row into each database, and counts its hooks.
#[transactional(Item, Record, acknowledge = decided)]
fn put_both(
    #[conn(Item)] item: &mut H,
    #[conn(Record)] record: &mut H,
    id: i64,
    hooks: &Rc<Cell<u32>>,
) -> Result<(), Error> {
    diesel::insert_into(items::table).values((items::id.eq(id), items::value.eq(10))).execute(item)?;
    diesel::insert_into(items::table).values((items::id.eq(id), items::value.eq(20))).execute(record)?;
    let hooks = Rc::clone(hooks);
    scope::on_commit(move || hooks.set(hooks.get() + 1));
    Ok(())
}

fn put_quietly(id: i64) -> Result<(), Error> {
    put_both(id, &Rc::default())
}

/// The same as a closure. The name of its transaction.
fn put_named(id: i64) -> TransactionId {
    let named = atomic_many::<(Item, Record)>().acknowledge(Acknowledge::Decided).run(|_| {
        put(id, 10)?;
        put_record(id, 20)?;
        Ok::<_, Error>(scope::current())
    });
    named.unwrap().unwrap()
}

#[derive(QueryableByName)]
struct Count {
    #[diesel(sql_type = diesel::sql_types::BigInt)]
    n: i64,
}

fn far(size: u32) -> Option<Far> {
    let far = fixture().map(|fixture| Far::with_pools(fixture, size))?;
    // Its connections know their databases from here on.
    far.put_both(100).result.unwrap();
    Some(far)
}

/// The databases, and the thread that applies what is decided. Recovery is suspended, so that nobody else does.
struct Served {
    far: Far,
    handle: RecoveryHandle,
    _entered: Entered,
}

fn served(size: u32) -> Option<Served> {
    far(size).map(served_of)
}

fn served_of(far: Far) -> Served {
    let (entered, handle) = (far.databases.enter(), far.databases.start_recovery());
    handle.suspend();
    Served { far, handle, _entered: entered }
}

/// The second phase on the other database, which waits.
struct Held {
    begun: Receiver<()>,
    go: Sender<()>,
}

/// From now on the second phase on the other database waits.
fn hold(far: &Far) -> Held {
    let ((begins, begun), (go, waits)) = (channel(), channel());
    far.proxies[1].meet_once(COMMIT_PREPARED, Moment::Before, move || {
        let _ = begins.send(());
        let _ = waits.recv_timeout(LIMIT);
    });
    Held { begun, go }
}

impl Held {
    /// Waits until a thread has begun with it.
    fn until_begun(&self) {
        self.begun.recv_timeout(LIMIT).expect("a thread");
    }

    /// It goes on. Nobody has waited for it.
    fn end(&self) {
        self.go.send(()).expect("the function has waited for the other database");
    }
}

fn has(far: &Far, alias: &str, id: i64) -> bool {
    far.fixture.rows(alias).iter().any(|row| row.0 == id)
}

#[test]
fn the_function_returns_and_its_hooks_run_once_it_is_decided_and_a_thread_does_the_rest() {
    let Some(Served { far, handle, _entered }) = served(2) else { return };
    let held = hold(&far);
    let hooks = Rc::default();
    put_both(1, &hooks).unwrap();
    assert_eq!(hooks.get(), 1);
    assert!(has(&far, "default", 1) && !has(&far, "other", 1));
    assert_eq!((far.prepared(), in_use(&far.databases, "default"), in_use(&far.databases, "other")), (1, 0, 1));
    held.end();
    handle.stop();
    assert!(has(&far, "other", 1), "stopping waits for what was handed over");
    assert!(far.agree(1, "decided"));
}

#[test]
fn stopping_waits_for_what_was_handed_over() {
    let Some(Served { far, handle, _entered }) = served(2) else { return };
    let held = hold(&far);
    put_quietly(1).unwrap();
    held.until_begun();
    let (stops, stopped) = channel();
    std::thread::spawn(move || {
        handle.stop();
        let _ = stops.send(());
    });
    assert!(stopped.recv_timeout(AT_ONCE).is_err(), "it has not waited");
    assert_eq!(far.prepared(), 1);
    held.end();
    stopped.recv_timeout(LIMIT).expect("it has stopped");
    assert!(has(&far, "other", 1) && far.agree(1, "stopped"));
}

#[test]
fn a_scope_without_an_attribute_and_one_whose_database_joins_later_return_likewise() {
    let Some(far) = far(2) else { return };
    let _entered = far.databases.enter();
    let runs: [fn(i64) -> Result<(), Error>; 2] = [
        |id| {
            let both: AtomicMany<(Item, Record)> = atomic_many();
            both.acknowledge(Acknowledge::Decided).run(|_| {
                put(id, 10)?;
                put_record(id, 20)
            })
        },
        |id| {
            let first: Atomic = atomic::<Item>();
            first.acknowledge(Acknowledge::Decided).run(|_: &mut H| {
                put(id, 10)?;
                // It has no say.
                atomic::<Record>().acknowledge(Acknowledge::Applied).run(|_: &mut H| put_record(id, 20))
            })
        },
    ];
    for (id, run) in (1..).zip(runs) {
        let handle = far.databases.start_recovery();
        handle.suspend();
        let held = hold(&far);
        run(id).unwrap();
        assert!(has(&far, "default", id) && !has(&far, "other", id));
        held.end();
        drop(handle);
        assert!(has(&far, "other", id), "dropping waits for what was handed over");
    }
    assert!(far.agree(1, "decided") && far.agree(2, "decided"));
}

#[test]
fn who_does_not_open_the_transaction_has_no_say() {
    let Some(Served { far, handle, _entered }) = served(4) else { return };
    // What is handed over from here on waits.
    let held = hold(&far);
    put_quietly(1).unwrap();
    held.until_begun();
    atomic_many::<(Item, Record)>().run(|_| put_quietly(2)).unwrap();
    assert!(has(&far, "other", 2) && !has(&far, "other", 1));
    held.end();
    handle.stop();
    assert!(far.agree(1, "decided") && far.agree(2, "applied"));
}

#[test]
fn without_a_thread_all_is_applied_before_the_function_returns() {
    let Some(far) = far(2) else { return };
    let _entered = far.databases.enter();
    put_quietly(1).unwrap();
    assert!(has(&far, "other", 1));
    far.databases.start_recovery().stop();
    put_quietly(2).unwrap();
    assert!(has(&far, "other", 2));
    assert_eq!(far.prepared(), 0);
    assert!(far.agree(1, "inline") && far.agree(2, "inline"));
}

#[test]
fn what_would_wait_too_long_is_applied_before_its_function_returns() {
    let waiting = i64::try_from(HANDED_OVER_LIMIT).unwrap();
    let Some(Served { far, handle, _entered }) = served(u32::try_from(HANDED_OVER_LIMIT).unwrap() + 4) else { return };
    let held = hold(&far);
    put_quietly(1).unwrap();
    held.until_begun();
    let last = waiting + 2;
    for id in 2..last {
        put_quietly(id).unwrap();
    }
    assert_eq!(far.prepared(), HANDED_OVER_LIMIT + 1);
    put_quietly(last).unwrap();
    assert!(has(&far, "other", last), "one more");
    assert_eq!(far.prepared(), HANDED_OVER_LIMIT + 1);
    held.end();
    handle.stop();
    assert_eq!(far.prepared(), 0);
    assert!((1..=last).all(|id| has(&far, "other", id)));
    assert!(far.agree(1, "queued"));
}

#[test]
fn what_the_thread_cannot_apply_is_finished_by_recovery() {
    for loses in [Loses::Request, Loses::ReplyAfter(0)] {
        let Some(Served { far, handle, _entered }) = served(2) else { return };
        far.proxies[1].lose_once(COMMIT_PREPARED, loses);
        put_quietly(1).unwrap();
        handle.stop();
        assert!(far.proxies[1].hit());
        assert!(far.agree(1, "lost"));
    }
}

#[test]
fn what_the_thread_cannot_apply_is_not_complete_before_recovery_has_finished_it() {
    let Some(Served { far, handle, _entered }) = served(2) else { return };
    far.proxies[1].lose_and_then(COMMIT_PREPARED, Loses::Request, Then::Refuses);
    let named = put_named(1);
    handle.stop();
    // Its own registry, which closes what is complete, doesn't reach the other database.
    far.databases.recover().unwrap();
    let closed = format!("SELECT COUNT(*) AS n FROM multidb_decision WHERE closed IS NOT NULL AND gid = '{named}'");
    let closed: Count = diesel::sql_query(closed).get_result(&mut far.fixture.observer("default")).unwrap();
    assert_eq!((closed.n, far.prepared()), (0, 1));
    assert!(far.agree(1, "it is reached"));
}

#[test]
fn what_is_not_decided_is_neither_acknowledged_nor_handed_over() {
    let Some(Served { far, handle, _entered }) = served(2) else { return };
    let hooks = Rc::default();
    far.proxies[1].lose_once(PREPARE, Loses::Request);
    put_both(1, &hooks).unwrap_err();
    assert_eq!(hooks.get(), 0);
    handle.stop();
    assert!(!far.agree(1, "not prepared"));
}

#[test]
fn the_rows_of_what_the_thread_has_applied_are_deleted_like_others() {
    let Some(Served { far, handle, _entered }) = served(2) else { return };
    for id in 1..=3 {
        put_quietly(id).unwrap();
    }
    handle.stop();
    assert!(far.databases.recover().unwrap().is_clear());
    assert_eq!(far.fixture.own_rows(), [0, 0]);
}

#[test]
fn a_manual_scope_goes_on_with_the_next_transaction_at_each_decision() {
    let Some(Served { far, handle, _entered }) = served(2) else { return };
    let held = hold(&far);
    let run = atomic_many::<(Item, Record)>().manual().acknowledge(Acknowledge::Decided).run(|_| {
        put(1, 10)?;
        put_record(1, 20)?;
        scope::commit()?;
        assert!(has(&far, "default", 1) && !has(&far, "other", 1));
        put(2, 10)?;
        put_record(2, 20)?;
        held.end();
        scope::commit()
    });
    run.unwrap();
    handle.stop();
    assert!(far.agree(1, "first") && far.agree(2, "second"));
}

#[test]
fn a_pool_that_is_empty_says_whose_commit_is_being_applied() {
    let Some(fixture) = fixture() else { return };
    let mut far = Far::with_pools(fixture, 1);
    far.put_both(100).result.unwrap();
    let mut builder = multidb::Databases::builder().router(ByApp);
    for (at, alias) in ["default", "other"].into_iter().enumerate() {
        let mut config = multidb::DatabaseConfig::new(alias, far.proxies[at].url(&far.fixture.urls[at]));
        config.pool.max_size = Some(1);
        config.pool.connection_timeout = Some("2s".into());
        builder = builder.database(config);
    }
    far.databases = builder.build().unwrap();
    let Served { far, handle, _entered } = served_of(far);
    let held = hold(&far);
    put_quietly(1).unwrap();
    let exhausted = put_record(2, 20).unwrap_err().to_string();
    assert!(exhausted.contains("put_both"), "{exhausted}");
    assert!(exhausted.contains("whose commit is being applied"), "{exhausted}");
    held.end();
    handle.stop();
    put_record(2, 20).unwrap();
    assert!(far.agree(1, "exhausted"));
}

#[test]
fn its_status_is_committed_from_the_decision_on() {
    let Some(Served { far, handle, _entered }) = served(2) else { return };
    let held = hold(&far);
    let named = put_named(1);
    assert_eq!(far.status(&named), TransactionStatus::Committed);
    held.end();
    handle.stop();
}

#[test]
fn stopping_leaves_nothing_prepared_whose_rows_stand_between_those_that_are_to_be_deleted() {
    /// More than those after which rows are deleted.
    const COMPLETE: i64 = 110;
    const FIRST: i64 = 201;
    const HELD: i64 = FIRST + COMPLETE;
    let queued = i64::try_from(HANDED_OVER_LIMIT).unwrap();
    let Some(Served { far, handle, _entered }) = served(u32::try_from(HANDED_OVER_LIMIT).unwrap() + 4) else { return };
    for id in FIRST..HELD {
        put_quietly(id).unwrap();
    }
    assert!(far.databases.wait_until_applied(LIMIT).is_empty());
    let held = hold(&far);
    put_quietly(HELD).unwrap();
    held.until_begun();
    for id in HELD + 1..HELD + queued {
        put_quietly(id).unwrap();
    }
    // Meanwhile the thread that recovers ends, so that the other one has to delete the rows.
    let (stops, stopped) = channel();
    let stopping = std::thread::spawn(move || {
        handle.stop();
        let _ = stops.send(());
    });
    assert!(stopped.recv_timeout(AT_ONCE).is_err(), "it has not waited");
    held.end();
    stopped.recv_timeout(LIMIT).expect("stopping hangs");
    assert_eq!(far.prepared(), 0);
    stopping.join().unwrap();
    assert!((FIRST..HELD + queued).all(|id| has(&far, "other", id)));
    assert!(far.fixture.own_rows().iter().all(|rows| *rows < 10), "{:?}", far.fixture.own_rows());
    assert!(far.agree(HELD, "stopped"));
}

#[test]
fn rows_are_deleted_while_a_branch_is_prepared_whose_row_stands_between_them() {
    /// So many that MariaDB reads the whole table to find them, if it may.
    const MANY: std::ops::Range<i64> = 201..311;
    let Some(Served { far, handle, _entered }) = served(4) else { return };
    for id in 1..=5 {
        put_quietly(id).unwrap();
    }
    assert!(far.databases.wait_until_applied(LIMIT).is_empty());
    let held = hold(&far);
    let between = put_named(6);
    held.until_begun();
    // What comes later is applied by its function, since it is asked not to be handed over.
    for id in MANY {
        atomic_many::<(Item, Record)>().run(|_| put(id, 10).and_then(|()| put_record(id, 20))).unwrap();
    }
    assert_eq!(far.databases.wait_until_applied(Duration::ZERO).waiting, [between]);
    far.databases.recover().unwrap();
    // On PostgreSQL any session may commit it, and its rows go with the next pass.
    let left = if KIND == Kind::Mysql { ([1, 0], 1) } else { ([1, 1], 0) };
    assert_eq!((far.fixture.own_rows(), far.prepared()), left);
    held.end();
    handle.stop();
    assert!(far.agree(6, "between"));
}

#[test]
fn who_waits_for_what_was_handed_over_learns_what_is_left() {
    let Some(Served { far, handle, _entered }) = served(4) else { return };
    assert!(far.databases.wait_until_applied(LIMIT).is_empty(), "nothing was handed over");
    let held = hold(&far);
    let named = [1, 2].map(put_named);
    held.until_begun();
    let left = far.databases.wait_until_applied(Duration::from_millis(10));
    assert_eq!((&left.waiting[..], left.failed.is_empty(), left.is_empty()), (&named[..], true, false));
    let text = left.to_string();
    assert!(text.contains(&named[0].to_string()) && text.contains(&named[1].to_string()), "{text}");
    let waits = {
        let databases = far.databases.clone();
        std::thread::spawn(move || databases.wait_until_applied(LIMIT))
    };
    held.end();
    assert!(waits.join().unwrap().is_empty());
    assert!(has(&far, "other", 1) && has(&far, "other", 2));
    // What comes later is not waited for.
    let held = hold(&far);
    put_quietly(3).unwrap();
    held.until_begun();
    handle.resume();
    assert_eq!(far.databases.wait_until_applied(Duration::ZERO).waiting.len(), 1);
    held.end();
    handle.stop();
    assert!(far.databases.wait_until_applied(Duration::ZERO).is_empty());
    assert!(far.agree(3, "waited"));
}

#[test]
fn what_the_thread_could_not_apply_is_named_until_recovery_has_finished_it() {
    let Some(Served { far, handle, _entered }) = served(4) else { return };
    far.proxies[1].lose_and_then(COMMIT_PREPARED, Loses::Request, Then::Refuses);
    let named = put_named(1);
    let left = far.databases.wait_until_applied(LIMIT);
    assert_eq!((left.waiting.len(), &left.failed[..]), (0, &[named.clone()][..]));
    assert!(left.to_string().contains("recovery"), "{left}");
    // It doesn't reach the database.
    far.databases.recover().unwrap();
    assert_eq!(far.databases.wait_until_applied(LIMIT).failed, [named]);
    far.proxies[1].clear();
    let begin = Instant::now();
    while !far.databases.wait_until_applied(LIMIT).is_empty() {
        assert!(begin.elapsed() < LIMIT, "it is named for ever");
        far.databases.recover().unwrap();
    }
    assert!(has(&far, "other", 1));
    handle.stop();
    assert!(far.agree(1, "recovered"));
}

#[test]
fn where_nothing_is_decided_about_all_it_is_refused() {
    let Some(far) = far(2) else { return };
    let _entered = far.databases.enter();
    let run = atomic_many::<(Item, Record)>()
        .commit(CommitMode::BestEffort)
        .acknowledge(Acknowledge::Decided)
        .run(|_| put(1, 10));
    let error = run.unwrap_err().to_string();
    assert!(error.contains("`acknowledge = decided`") && error.contains("`commit = best_effort`"), "{error}");
    assert!(!has(&far, "default", 1));
}
