//! Calls with one key at once, of which the database refuses some: they begin anew.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::channel;

use multidb::{Databases, Isolation, atomic, schema};

use super::*;
use crate::fixture::Kind;

fn call(
    databases: &Databases,
    runs: &AtomicU32,
    id: i64,
    body: impl Fn() -> Result<(), Mishap>,
) -> Result<i64, Mishap> {
    let _entered = databases.enter();
    let isolation = if KIND == Kind::Postgres { Isolation::Serializable } else { Isolation::RepeatableRead };
    atomic::<Item>().label("twin").isolation(isolation).once("the key").run(|_: &mut H| {
        runs.fetch_add(1, Ordering::SeqCst);
        put(id, 0)?;
        body()?;
        Ok(id)
    })
}

#[test]
fn a_claim_that_the_database_refuses_begins_anew_and_gives_the_result() {
    // PostgreSQL refuses those who wait when the holder commits, InnoDB when it rolls back: a deadlock among them.
    for commits in [true, false] {
        let Some(fixture) = fixture() else { return };
        let databases = fixture.builder(8).build().unwrap();
        schema::install(&databases).unwrap();
        let runs = AtomicU32::new(0);
        let (claimed, told) = channel();
        let (cue, go) = channel::<()>();
        let (mut results, held) = std::thread::scope(|threads| {
            let (databases, runs) = (&databases, &runs);
            let holder = threads.spawn(move || {
                call(databases, runs, 1, || {
                    claimed.send(()).unwrap();
                    go.recv().unwrap();
                    if commits { Ok(()) } else { Err(Mishap::OnPurpose) }
                })
            });
            told.recv().unwrap();
            let twins: Vec<_> = (2..6).map(|id| threads.spawn(move || call(databases, runs, id, || Ok(())))).collect();
            fixture.witness().until_waiting(4);
            cue.send(()).unwrap();
            let held = holder.join().unwrap();
            (twins.into_iter().map(|twin| twin.join().unwrap().unwrap()).collect::<Vec<_>>(), held)
        });
        assert_eq!(held.is_ok(), commits, "{held:?}");
        results.dedup();
        let rows = fixture.rows("default");
        let ids: Vec<i64> = rows.into_iter().map(|(id, _)| id).collect();
        assert_eq!(results, ids, "one has run, and all got its result; the holder commits: {commits}");
        assert_eq!(runs.into_inner(), if commits { 1 } else { 2 });
        assert_eq!(in_use(&databases, "default"), 0);
    }
}
