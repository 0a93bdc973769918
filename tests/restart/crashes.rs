//! Whatever the server was in the middle of when it crashed: never a false `Ok`, all or nothing, and the pool goes on.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Barrier, Mutex};
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use multidb::{DatabaseConfig, Databases, Error, Model, atomic, transactional};

use super::{H, HURRY, PROGRAM, Raw};
use crate::server::Server;

diesel::table! { items (id) { id -> BigInt, value -> BigInt, } }

#[derive(Model)]
#[diesel(table_name = items)]
#[model(app = "shop")]
struct Item;

/// How many connections the pool may have.
const SIZE: u32 = 3;

/// A server with an empty table, and the databases on it.
fn start() -> Option<(Server, Databases)> {
    start_with("20s")
}

/// With a limit for waits for a connection.
fn start_with(limit: &str) -> Option<(Server, Databases)> {
    #[cfg(feature = "testing")]
    crate::idle::watch(false);
    let server = Server::start(PROGRAM)?;
    let table = "CREATE TABLE items (id BIGINT PRIMARY KEY, value BIGINT NOT NULL)";
    let mut raw = Raw::establish(server.url()).unwrap();
    raw.batch_execute(HURRY).unwrap();
    raw.batch_execute(table).unwrap();
    let mut config = DatabaseConfig::new("default", server.url());
    config.pool.max_size = Some(SIZE);
    config.pool.connection_timeout = Some(limit.into());
    let databases = Databases::builder().database(config).build().unwrap();
    Some((server, databases))
}

fn rows(server: &Server) -> Vec<i64> {
    items::table.select(items::id).order(items::id).load(&mut Raw::establish(server.url()).unwrap()).unwrap()
}

fn in_use(databases: &Databases) -> u32 {
    let state = databases.database("default").unwrap().pool_state();
    state.connections - state.idle_connections
}

#[transactional(Item)]
fn put(#[conn] conn: &mut H, id: i64) -> Result<(), Error> {
    diesel::insert_into(items::table).values((items::id.eq(id), items::value.eq(0))).execute(conn)?;
    Ok(())
}

/// Fills the pool with idle connections.
fn fill(databases: &Databases) {
    let barrier = Barrier::new(usize::try_from(SIZE).unwrap());
    std::thread::scope(|threads| {
        for _ in 0..SIZE {
            threads.spawn(|| {
                let _entered = databases.enter();
                let run = atomic::<Item>().run(|conn: &mut H| {
                    items::table.count().get_result::<i64>(conn)?;
                    barrier.wait();
                    Ok::<_, Error>(())
                });
                run.unwrap();
            });
        }
    });
    assert_eq!(databases.database("default").unwrap().pool_state().idle_connections, SIZE);
}

/// When the server crashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    BetweenStatements,
    InNested,
    BeforeCommit,
}

/// Runs a scope in whose middle the server crashes, and comes back at once or only after the scope.
fn crash(server: &Server, moment: Moment, comes_back: bool, swallows: bool) -> Result<(), Error> {
    let crash = |now: Moment| {
        if now == moment {
            server.kill();
            if comes_back {
                server.restart();
            }
        }
    };
    let pass = |result: Result<(), Error>| if swallows { Ok(()) } else { result };
    let run = atomic::<Item>().run(|_: &mut H| {
        pass(put(1))?;
        crash(Moment::BetweenStatements);
        let nested = atomic::<Item>().run(|_: &mut H| {
            pass(put(2))?;
            crash(Moment::InNested);
            pass(put(3))
        });
        pass(nested)?;
        // On a new connection this would stay.
        pass(put(4))?;
        crash(Moment::BeforeCommit);
        Ok(())
    });
    if !comes_back {
        server.restart();
    }
    run
}

#[test]
fn a_crash_in_mid_scope_is_never_ok_and_leaves_nothing() {
    let Some((server, databases)) = start() else { return };
    let _entered = databases.enter();
    put(100).unwrap();
    let mut expected = vec![100];
    for (moment, comes_back, swallows) in [
        (Moment::BetweenStatements, true, true),
        (Moment::BetweenStatements, false, false),
        (Moment::InNested, true, true),
        (Moment::BeforeCommit, true, false),
    ] {
            let name = format!("{moment:?}, comes back: {comes_back}, swallows: {swallows}");
            let run = crash(&server, moment, comes_back, swallows);
            let Err(error) = run else { panic!("{name}: a false Ok") };
            assert!(moment == Moment::BeforeCommit || !error.is_in_doubt(), "{name}: {error}");
            assert!(!error.is_committed(), "{name}: {error}");
            // What was doomed before COMMIT may be run again; what a single statement has done is unknown.
            assert_eq!(error.is_retryable(), matches!(error, Error::Doomed { .. }), "{name}: {error}");
            assert_eq!(in_use(&databases), 0, "{name}");
            assert_eq!(rows(&server), expected, "{name}: {error}");
            let id = expected.last().unwrap() + 1;
            put(id).unwrap_or_else(|error| panic!("{name}: the next scope: {error}"));
            expected.push(id);
            assert_eq!(rows(&server), expected, "{name}");
    }
}

#[test]
fn after_a_crash_the_pool_serves_the_next_scopes_although_all_its_connections_are_dead() {
    let Some((server, databases)) = start() else { return };
    let _entered = databases.enter();
    put(1).unwrap();
    fill(&databases);
    server.kill();
    server.restart();
    put(2).unwrap();
    put(3).unwrap();
    assert_eq!(rows(&server), [1, 2, 3]);
    assert_eq!(in_use(&databases), 0);
}

#[test]
fn while_the_server_is_down_a_scope_is_a_retryable_error_and_afterwards_it_is_ok() {
    // It is waited for in vain twice. Once it is back, a connection must be open by then.
    let Some((server, databases)) = start_with("3s") else { return };
    let _entered = databases.enter();
    put(1).unwrap();
    server.kill();
    let down = put(2).unwrap_err();
    assert!(matches!(down, Error::Pool { .. }) && down.is_retryable(), "{down}");
    let swallowed = atomic::<Item>().run(|_: &mut H| {
        let _ = put(3);
        server.restart();
        let _ = put(4);
        Ok::<_, Error>(())
    });
    let expected: &[i64] = if swallowed.is_ok() { &[1, 4] } else { &[1] };
    assert_eq!(rows(&server), expected, "{swallowed:?}");
    put(5).unwrap();
    assert_eq!(rows(&server).last(), Some(&5));
    assert_eq!(in_use(&databases), 0);
}

/// What a writer was told of its transaction.
#[derive(Debug)]
enum Told {
    Committed,
    Unknown,
    Failed,
}

/// Ends the writers, also where the test has failed.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn what_was_ok_survives_a_crash_and_what_failed_is_not_there() {
    let Some((server, databases)) = start_with("1s") else { return };
    let (told, committed, stop) = (Mutex::new(Vec::new()), AtomicUsize::new(0), AtomicBool::new(false));
    let write = |first: i64| {
        let _entered = databases.enter();
        // Negative and positive: the two halves of a transaction.
        for id in (first..).step_by(2) {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let run = atomic::<Item>().run(|_: &mut H| put(id).and_then(|()| put(-id)));
            let outcome = match &run {
                Ok(()) => Told::Committed,
                Err(error) if error.is_in_doubt() => Told::Unknown,
                Err(_) => Told::Failed,
            };
            committed.fetch_add(usize::from(run.is_ok()), Ordering::Relaxed);
            told.lock().unwrap().push((id, outcome));
        }
    };
    std::thread::scope(|threads| {
        let _stop = Stop(&stop);
        let writers = [1, 2].map(|first| threads.spawn(move || write(first)));
        let until = |count: usize| {
            let begin = Instant::now();
            while committed.load(Ordering::Relaxed) < count && !writers.iter().any(ScopedJoinHandle::is_finished) {
                assert!(begin.elapsed() < Duration::from_mins(1), "the writers have stopped");
                std::thread::yield_now();
            }
        };
        until(50);
        server.kill();
        server.restart();
        // The same threads go on, with the same pool.
        until(committed.load(Ordering::Relaxed) + 10);
    });
    let rows = rows(&server);
    for (id, outcome) in told.into_inner().unwrap() {
        let halves = [id, -id].map(|half| rows.binary_search(&half).is_ok());
        match outcome {
            Told::Committed => assert_eq!(halves, [true, true], "{id} was Ok"),
            Told::Unknown => assert_eq!(halves[0], halves[1], "{id} is there by half"),
            Told::Failed => assert_eq!(halves, [false, false], "{id} was an error"),
        }
    }
    assert_eq!(in_use(&databases), 0);
}
