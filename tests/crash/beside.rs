//! Recovery beside coordinators that live, and transactions that meet in opposite order.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::thread::scope;

use diesel::prelude::*;
use multidb::{AnyConn, DatabaseConfig, Databases, Error, atomic_many};

use crate::child::{recover, transfer};
use crate::matrix::check;
use crate::places::{Account, Entry, Kind, Places, accounts, builder_of, entries};

use Kind::{MariaDb, Postgres, Sqlite};

/// How many transactions run beside the recoverers, on databases of the same kinds. `MULTIDB_TEST_ROUNDS` asks for more.
const ROUNDS: i64 = 150;
const COORDINATORS: i64 = 6;
const RECOVERERS: usize = 3;

/// Nine wait for the lock of one file, which favours nobody: on a slow disk one of them may wait for long.
fn patient(places: &Places) -> Databases {
    if places.kinds[0] != Sqlite {
        return places.databases();
    }
    let mut file = DatabaseConfig::new("accounts", places.urls[0].clone());
    file.sqlite.busy_timeout = Some("1m".into());
    let others = places.urls.iter().map(|url| &**url).enumerate().skip(1);
    builder_of(others).database(file).build().unwrap()
}

#[test]
fn recoverers_beside_live_coordinators_decide_nothing_against_them() {
    // The more branches, the longer it takes from the first PREPARE to the decision.
    let all: [&[Kind]; 5] = [
        &[Postgres, Postgres, Postgres],
        &[Postgres, MariaDb, Postgres],
        &[MariaDb, Postgres, Postgres],
        &[MariaDb, MariaDb],
        &[Sqlite, Postgres],
    ];
    let rounds = std::env::var("MULTIDB_TEST_ROUNDS").map_or(ROUNDS, |rounds| rounds.parse().unwrap());
    for kinds in all {
        let Some(places) = Places::new(kinds) else { return };
        let rounds = if kinds[0] == Sqlite { rounds / 3 } else { rounds };
        let (next, running, passes) = (AtomicI64::new(0), AtomicI64::new(COORDINATORS), AtomicI64::new(0));
        scope(|threads| {
            for _ in 0..COORDINATORS {
                threads.spawn(|| {
                    let databases = patient(&places);
                    let _entered = databases.enter();
                    loop {
                        let id = next.fetch_add(1, Ordering::SeqCst);
                        if id >= rounds {
                            break;
                        }
                        transfer(kinds.len() - 1, id, id, None).unwrap_or_else(|error| panic!("{places}: {error}"));
                    }
                    running.fetch_sub(1, Ordering::SeqCst);
                });
            }
            for _ in 0..RECOVERERS {
                threads.spawn(|| {
                    let databases = patient(&places);
                    while running.load(Ordering::SeqCst) > 0 {
                        let report = databases.recover().unwrap();
                        passes.fetch_add(1, Ordering::SeqCst);
                        assert!(report.heuristic().is_empty() && report.rolled_back().is_empty(), "{places}: {report}");
                    }
                });
            }
        });
        let databases = places.databases();
        recover(&databases);
        assert_eq!(check(&places, "beside recoverers"), (0..rounds).collect::<Vec<_>>());
        assert!(places.states(0).iter().all(|state| state == "c"), "{places}: {:?}", places.states(0));
        println!("{places}: {rounds} rounds, {} passes beside them", passes.into_inner());
    }
}

#[test]
fn transactions_that_meet_in_opposite_order_on_two_servers_end_by_the_lock_limit_and_a_retry_gets_through() {
    for kinds in [[Postgres, MariaDb], [Postgres, Postgres], [MariaDb, MariaDb]] {
        let Some(places) = Places::new(&kinds) else { return };
        places.execute(0, "INSERT INTO accounts VALUES (0)");
        places.execute(1, "INSERT INTO entries VALUES (0)");
        let (meet, limited) = (Barrier::new(2), AtomicBool::new(false));
        scope(|threads| {
            for forward in [true, false] {
                let (places, meet, limited) = (&places, &meet, &limited);
                threads.spawn(move || {
                    let databases = places.databases();
                    let _entered = databases.enter();
                    let mut attempts = 0;
                    // It is the caller that repeats, so that the error is seen.
                    while let Err(error) = bump_both(forward, || attempts == 0, meet) {
                        assert!(error.is_retryable() && !error.is_in_doubt(), "{places}: {error}");
                        limited.store(true, Ordering::SeqCst);
                        attempts += 1;
                    }
                });
            }
        });
        assert!(limited.load(Ordering::SeqCst), "{places}: they have not met");
        let databases = places.databases();
        recover(&databases);
        assert_eq!((places.rows(0), places.rows(1)), (vec![2], vec![2]), "{places}");
        assert_eq!((places.prepared(0), places.prepared(1)), (0, 0), "{places}");
    }
}

/// Adds one to the row of both databases, and meets the other one in between.
fn bump_both(forward: bool, meets: impl Fn() -> bool, meet: &Barrier) -> Result<(), Error> {
    let account =
        |conn: &mut AnyConn| diesel::update(accounts::table).set(accounts::id.eq(accounts::id + 1)).execute(conn);
    let entry = |conn: &mut AnyConn| diesel::update(entries::table).set(entries::id.eq(entries::id + 1)).execute(conn);
    let body = |scope: &multidb::Scope<'_>| {
        let (mut first, mut second) = (scope.conn::<Account, AnyConn>()?, scope.conn::<Entry, AnyConn>()?);
        if forward {
            account(&mut first)?
        } else {
            entry(&mut second)?
        };
        if meets() {
            meet.wait();
        }
        if forward {
            entry(&mut second)?
        } else {
            account(&mut first)?
        };
        Ok::<_, Error>(())
    };
    if forward { atomic_many::<(Account, Entry)>().run(body) } else { atomic_many::<(Entry, Account)>().run(body) }
}
