//! Transactions that lose against others: the loser's scope is never `Ok`, and nothing of it stays.

use std::cell::{Cell, RefCell};
use std::sync::mpsc::{Receiver, Sender, channel};

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use multidb::{Databases, Error, FailureClass, Propagation, atomic, scope};

use super::witness::Witness;
use super::*;
use crate::fixture::Kind;

/// What two transactions may come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Quarrel {
    Deadlock,
    LockTimeout,
    /// The loser's snapshot is older than the row that it changes.
    StaleSnapshot,
}

impl Quarrel {
    fn class(self) -> FailureClass {
        match self {
            Self::Deadlock => FailureClass::Deadlock,
            Self::LockTimeout => FailureClass::LockTimeout,
            Self::StaleSnapshot => FailureClass::Serialization,
        }
    }

    /// What makes this session the loser, and quickly.
    fn loses(self) -> &'static str {
        match (self, KIND) {
            (Self::Deadlock, Kind::Postgres) => "SET LOCAL deadlock_timeout = '10ms'",
            // The server undoes the transaction that has changed fewer rows.
            (Self::Deadlock, _) => "SELECT 1",
            (Self::LockTimeout, Kind::Postgres) => "SET LOCAL lock_timeout = '10ms'",
            (Self::LockTimeout, _) => "SET innodb_lock_wait_timeout = 0",
            (Self::StaleSnapshot, Kind::Postgres) => "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ",
            (Self::StaleSnapshot, _) => "SET innodb_snapshot_isolation = 1",
        }
    }

    /// Whether the server undoes the loser's whole transaction, also where a nested scope has lost.
    fn undoes_all(self) -> bool {
        KIND == Kind::Mysql && self != Self::LockTimeout
    }
}

/// Where the loser's statement runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Outermost,
    Manual,
    Joined,
    Nested,
    NestedTwice,
    /// A transaction of Diesel's on the handle.
    Transaction,
    Savepoint,
}

const PLACES: [Place; 7] = [
    Place::Outermost,
    Place::Manual,
    Place::Joined,
    Place::Nested,
    Place::NestedTwice,
    Place::Transaction,
    Place::Savepoint,
];

impl Place {
    /// Whether what it did can be undone alone.
    fn is_level(self) -> bool {
        !matches!(self, Self::Outermost | Self::Manual | Self::Joined)
    }
}

/// What the loser's body does with the error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Body {
    PassesOn,
    Swallows,
    /// The innermost level passes it on, and the one around it swallows it.
    SwallowsOutside,
}

/// The first row of the winner's own, of which it has many.
const OWN: i64 = 500;

fn bump(conn: &mut H, id: i64, by: i64) -> QueryResult<()> {
    diesel::update(items::table.find(id)).set(items::value.eq(items::value + by)).execute(conn).map(drop)
}

fn insert(conn: &mut H, id: i64) -> QueryResult<()> {
    diesel::insert_into(items::table).values((items::id.eq(id), items::value.eq(0))).execute(conn).map(drop)
}

/// Takes the lock of row 2, and row 1's after `cue`.
fn win(quarrel: Quarrel, started: &Sender<()>, cue: &Receiver<()>) -> Result<(), Mishap> {
    atomic::<Item>().run(|conn: &mut H| {
        if KIND == Kind::Postgres {
            conn.batch_execute("SET LOCAL deadlock_timeout = '10min'")?;
        }
        for id in OWN..OWN + 50 {
            insert(conn, id)?;
        }
        bump(conn, 2, 100)?;
        // Whoever is gone has failed, and tells of it.
        let _ = started.send(());
        if quarrel != Quarrel::StaleSnapshot {
            let _ = cue.recv();
        }
        if quarrel == Quarrel::Deadlock {
            bump(conn, 1, 100)?;
        }
        Ok(())
    })
}

/// The loser's statement, and what leads to it.
fn lose(conn: &mut H, quarrel: Quarrel, body: Body, place: Place, meet: &dyn Fn()) -> Result<(), Mishap> {
    conn.batch_execute(quarrel.loses())?;
    insert(conn, 11)?;
    bump(conn, 1, 1)?;
    // A snapshot.
    items::table.count().get_result::<i64>(conn)?;
    let statement = |conn: &mut H| {
        meet();
        let lost = bump(conn, 2, 1);
        let error = Error::from(lost.unwrap_err());
        assert!(error.is_retryable(), "{error}");
        if body == Body::Swallows { Ok(()) } else { Err(Mishap::from(error)) }
    };
    let inner = |conn: &mut H| {
        insert(conn, 21)?;
        statement(conn)
    };
    let lost = match place {
        Place::Outermost | Place::Manual => statement(conn),
        Place::Joined => atomic::<Item>().propagation(Propagation::Join).run(inner),
        Place::Nested => atomic::<Item>().run(inner),
        Place::NestedTwice => atomic::<Item>().run(|_: &mut H| atomic::<Item>().run(inner)),
        Place::Transaction => conn.transaction(inner).map_err(|error| match error {
            // Diesel's error carries ours.
            Mishap::Query(carrier) => Error::from(carrier).into(),
            other => other,
        }),
        Place::Savepoint => {
            let savepoint = scope::savepoint("before")?;
            let lost = inner(conn);
            savepoint.rollback()?;
            assert_eq!(scope::is_doomed(), quarrel.undoes_all(), "{quarrel:?} {body:?}");
            lost
        }
    };
    if !matches!(place, Place::Outermost | Place::Manual | Place::Joined | Place::Savepoint) {
        let Err(Mishap::Database(error)) = &lost else { panic!("{quarrel:?} {body:?} {place:?}: {lost:?}") };
        assert!(error.is_retryable(), "{error}");
    }
    if body == Body::PassesOn {
        lost?;
    }
    // After a deadlock MariaDB would run these in autocommit.
    let _ = insert(conn, 12);
    let _ = put(13, 0);
    Ok(())
}

fn quarrel(fixture: &Fixture, databases: &Databases, quarrel: Quarrel, body: Body, place: Place) {
    let name = format!("{quarrel:?} in {place:?}, {body:?}");
    let mut witness = fixture.witness();
    witness.empty();
    put(1, 10).unwrap();
    put(2, 20).unwrap();
    let ((start, started), (cue, cued)) = (channel(), channel());
    let (won, run) = std::thread::scope(|threads| {
        let ends = Cell::new(Some((start, cued)));
        let call = || {
            let (start, cued) = ends.take().expect("once");
            threads.spawn(move || {
                let _entered = fixture.builder(1).build().unwrap().enter();
                win(quarrel, &start, &cued)
            })
        };
        // Dropped with this closure, so that a winner is not left waiting.
        let cue = cue;
        let winner = RefCell::new(None);
        let waiting = RefCell::new(&mut witness);
        let meet = || {
            let other = call();
            started.recv().unwrap();
            match quarrel {
                Quarrel::Deadlock => {
                    cue.send(()).unwrap();
                    waiting.borrow_mut().until_one_waits();
                    winner.replace(Some(other));
                }
                Quarrel::LockTimeout => drop(winner.replace(Some(other))),
                Quarrel::StaleSnapshot => other.join().unwrap().unwrap(),
            }
        };
        let loser = atomic::<Item>();
        let loser = if place == Place::Manual { loser.manual() } else { loser };
        let run = loser.run(|conn: &mut H| {
            lose(conn, quarrel, body, place, &meet)?;
            if place == Place::Manual { scope::commit().map_err(Mishap::from) } else { Ok(()) }
        });
        if quarrel == Quarrel::LockTimeout {
            cue.send(()).unwrap();
        }
        (winner.take().map(|winner| winner.join().unwrap()), run)
    });
    assert!(matches!(won, None | Some(Ok(()))), "{name}: the other one commits: {won:?}");
    let first = if quarrel == Quarrel::Deadlock { 110 } else { 10 };
    let survives = place.is_level() && body != Body::PassesOn && !quarrel.undoes_all();
    let expected = if survives {
        assert!(run.is_ok(), "{name}: the outer scope has lost nothing: {run:?}");
        vec![(1, first + 1), (2, 120), (11, 0), (12, 0), (13, 0)]
    } else {
        let Err(Mishap::Database(error)) = &run else { panic!("{name}: {run:?}") };
        assert!(error.is_retryable() && !error.is_in_doubt(), "{name}: {error}");
        if body != Body::PassesOn {
            let Error::Doomed { first, .. } = error else { panic!("{name}: {error}") };
            assert_eq!(first.class(), quarrel.class(), "{name}: {first}");
        }
        vec![(1, first), (2, 120)]
    };
    let rows: Vec<_> = witness.rows().into_iter().filter(|(id, _)| *id < OWN).collect();
    assert_eq!(rows, expected, "{name}");
    clean(databases, &mut witness, &name);
}

fn clean(databases: &Databases, witness: &mut Witness, name: &str) {
    assert_eq!(in_use(databases, "default"), 0, "{name}");
    witness.assert_clean(databases, name);
}

fn every(sort: Quarrel) {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.builder(1).build().unwrap();
    let _entered = databases.enter();
    for place in PLACES {
        for body in [Body::PassesOn, Body::Swallows, Body::SwallowsOutside] {
            quarrel(&fixture, &databases, sort, body, place);
        }
    }
}

#[test]
fn the_loser_of_a_deadlock_is_never_ok_and_stays_a_deadlock() {
    every(Quarrel::Deadlock);
}

#[test]
fn who_waits_too_long_for_a_lock_is_never_ok() {
    every(Quarrel::LockTimeout);
}

#[test]
fn who_changes_what_others_have_changed_since_its_snapshot_is_never_ok() {
    every(Quarrel::StaleSnapshot);
}
