//! Pools that are taken in opposite orders: threads that hold the last connections of one and wait for the other's.

use std::sync::Barrier;
use std::sync::atomic::{AtomicU32, Ordering};

use std::time::{Duration, Instant};

use multidb::{CommitMode, Databases, Error, Model, atomic, atomic_many, schema, scope};

use super::witness::POLL;
use super::*;
use crate::fixture::Kind;

/// Half of them take the pools in one order, half in the other.
const THREADS: i64 = 8;
/// The connections of each pool: with less than one for each thread they run out.
const SIZE: u32 = 2;
/// How often each thread calls.
const CALLS: i64 = 15;
/// The most times that a call is made again.
const ATTEMPTS: u32 = 25;

/// What the calls of all threads have come to.
#[derive(Default)]
struct Seen {
    calls: AtomicU32,
    refused: AtomicU32,
}

/// Lets all threads begin together, and each make its calls. One that had no connection is made again at once.
fn cross(databases: &Databases, calls: i64, call: impl Fn(bool, i64) -> Result<(), Error> + Sync) -> Seen {
    let (begin, seen) = (Barrier::new(usize::try_from(THREADS).unwrap()), Seen::default());
    std::thread::scope(|threads| {
        for thread in 0..THREADS {
            let (begin, seen, call) = (&begin, &seen, &call);
            threads.spawn(move || {
                let _entered = databases.enter();
                begin.wait();
                for id in thread * calls..(thread + 1) * calls {
                    let mut attempts = 0;
                    while let Err(error) = call(thread % 2 == 0, id) {
                        assert!(matches!(error, Error::PoolExhausted { .. }), "{error}");
                        seen.refused.fetch_add(1, Ordering::Relaxed);
                        attempts += 1;
                        assert!(attempts < ATTEMPTS, "call {id} doesn't get through");
                    }
                    seen.calls.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    seen
}

fn ids(fixture: &Fixture) -> [Vec<i64>; 2] {
    ["default", "other"].map(|alias| fixture.rows(alias).into_iter().map(|(id, _)| id).collect())
}

fn installed() -> Option<(Fixture, Databases)> {
    let fixture = fixture()?;
    schema::install(&fixture.databases()).unwrap();
    let databases = fixture.builder(SIZE).build().unwrap();
    Some((fixture, databases))
}

/// The statements in the order that is asked for.
fn put_in_order(forward: bool, id: i64) -> Result<(), Error> {
    if forward {
        put(id, 10)?;
        put_record(id, 20)
    } else {
        put_record(id, 20)?;
        put(id, 10)
    }
}

fn listed<A: Model, B: Model>(commit: CommitMode, forward: bool, id: i64) -> Result<(), Error> {
    atomic_many::<(A, B)>().commit(commit).run(|_| put_in_order(forward, id))
}

#[test]
fn scopes_that_list_their_models_get_through_whatever_the_order_of_their_statements() {
    for commit in [CommitMode::Atomic, CommitMode::BestEffort] {
        let Some((fixture, databases)) = installed() else { return };
        let seen = cross(&databases, CALLS, |forward, id| {
            // Also the order in which they are listed must not matter.
            if forward { listed::<Item, Record>(commit, true, id) } else { listed::<Record, Item>(commit, false, id) }
        });
        let all: Vec<i64> = (0..THREADS * CALLS).collect();
        assert_eq!(ids(&fixture), [all.clone(), all]);
        let refused = seen.refused.into_inner();
        println!("{commit:?}: {refused} calls had no connection");
        // Until the pools are known to be short, all may meet once.
        assert!(i64::from(refused) <= THREADS, "{commit:?}: {refused}");
        assert_eq!((in_use(&databases, "default"), in_use(&databases, "other")), (0, 0));
        assert!(databases.recover().unwrap().is_clear());
    }
}

#[test]
fn calls_whose_models_are_not_listed_get_through_when_they_are_made_again() {
    const CALLS: i64 = 4;
    let Some((fixture, databases)) = installed() else { return };
    let seen = cross(&databases, CALLS, |forward, id| {
        if forward {
            atomic::<Item>().run(|_: &mut H| put_in_order(true, id))
        } else {
            atomic::<Record>().run(|_: &mut H| put_in_order(false, id))
        }
    });
    let all: Vec<i64> = (0..THREADS * CALLS).collect();
    assert_eq!(ids(&fixture), [all.clone(), all]);
    println!("{} calls had no connection", seen.refused.into_inner());
    assert_eq!((in_use(&databases, "default"), in_use(&databases, "other")), (0, 0));
    assert!(databases.recover().unwrap().is_clear());
}

#[test]
fn a_scope_that_uses_one_of_its_databases_takes_no_other_connection_while_there_are_some() {
    let Some((fixture, databases)) = installed() else { return };
    let _entered = databases.enter();
    let run = atomic_many::<(Item, Record)>().commit(CommitMode::BestEffort).run(|_| {
        put_record(1, 20)?;
        Ok::<_, Error>((in_use(&databases, "default"), in_use(&databases, "other")))
    });
    assert_eq!(run.unwrap(), (0, 1));
    assert_eq!(fixture.rows("other"), [(1, 20)]);
}

#[test]
fn who_waits_for_the_first_of_several_pools_holds_no_connection_of_the_others() {
    // A branch of MariaDB is asked at once what its database is, and then the pool need not be known to be short.
    let at_once = (KIND == Kind::Mysql).then_some((CommitMode::Atomic, false));
    for (commit, short) in [(CommitMode::Atomic, true), (CommitMode::BestEffort, true)].into_iter().chain(at_once) {
        let Some((fixture, databases)) = installed() else { return };
        drop(databases);
        let one = fixture.builder(1).build().unwrap();
        let (taken, released) = (Barrier::new(2), Barrier::new(2));
        std::thread::scope(|threads| {
            threads.spawn(|| {
                let _entered = one.enter();
                let run = atomic::<Item>().run(|_: &mut H| {
                    put(1, 10)?;
                    taken.wait();
                    released.wait();
                    Ok::<_, Error>(())
                });
                run.unwrap();
            });
            taken.wait();
            if short {
                // From now on the pool is known to be short.
                threads.spawn(|| {
                    let _entered = one.enter();
                    put(2, 10).unwrap();
                });
                until_waiting(&one, "default", 1);
            }
            threads.spawn(|| {
                let _entered = one.enter();
                listed::<Record, Item>(commit, false, 3).unwrap();
            });
            until_waiting(&one, "default", 1 + u32::from(short));
            let held = in_use(&one, "other");
            released.wait();
            assert_eq!(held, 0, "{commit:?}, {short}");
        });
        assert_eq!(ids(&fixture), [if short { vec![1, 2, 3] } else { vec![1, 3] }, vec![3]]);
    }
}

#[test]
fn who_holds_a_connection_goes_before_those_who_hold_none() {
    let Some((fixture, databases)) = installed() else { return };
    let one = fixture.builder(1).build().unwrap();
    drop(databases);
    let (taken, released) = (Barrier::new(2), Barrier::new(2));
    let order = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|threads| {
        // Has the only connection of `other`.
        let first = threads.spawn(|| {
            let _entered = one.enter();
            atomic::<Record>()
                .run(|_: &mut H| {
                    put_record(1, 20)?;
                    taken.wait();
                    released.wait();
                    Ok::<_, Error>(())
                })
                .unwrap();
        });
        taken.wait();
        let second = threads.spawn(|| {
            let _entered = one.enter();
            put_record(2, 20).unwrap();
            order.lock().unwrap().push("none");
        });
        until_waiting(&one, "other", 1);
        let third = threads.spawn(|| {
            let _entered = one.enter();
            atomic::<Item>()
                .run(|_: &mut H| {
                    put(3, 10)?;
                    put_record_apart(3, 20)?;
                    order.lock().unwrap().push("holder");
                    Ok::<_, Error>(())
                })
                .unwrap();
        });
        until_waiting(&one, "other", 2);
        released.wait();
        for thread in [first, second, third] {
            thread.join().unwrap();
        }
    });
    assert_eq!(order.into_inner().unwrap(), ["holder", "none"]);
    assert_eq!(scope::depth(), 0);
}

/// Waits until so many threads wait for a connection.
fn until_waiting(databases: &Databases, alias: &str, threads: u32) {
    let begin = Instant::now();
    while databases.database(alias).unwrap().pool_state().waiting < threads {
        assert!(begin.elapsed() < Duration::from_mins(1), "they don't wait");
        std::thread::sleep(POLL);
    }
}
