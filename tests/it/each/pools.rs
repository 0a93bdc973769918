//! Pools that run out, cursors that hold a connection, and connections that are shared.

use std::sync::mpsc;

use diesel::connection::DefaultLoadingMode;
use diesel::prelude::*;
use multidb::{Error, Propagation, atomic, connection, scope};

use super::*;
use crate::fixture::Kind;

#[test]
fn a_second_connection_of_one_thread_is_not_waited_for_as_long_as_the_first() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.builder(1).build().unwrap();
    let _entered = databases.enter();
    let run = atomic::<Record>().run(|_: &mut H| {
        put_record(1, 10)?;
        let apart = atomic::<Record>().propagation(Propagation::RequiresNew).run(|conn: &mut H| {
            diesel::insert_into(items::table).values((items::id.eq(2), items::value.eq(20))).execute(conn)?;
            Ok::<_, Mishap>(())
        });
        Ok::<_, Error>(apart.map_err(|mishap| match mishap {
            Mishap::Query(error) => Error::from(error),
            Mishap::Database(error) => error,
            Mishap::OnPurpose => unreachable!(),
        }))
    });
    let error = run.unwrap().unwrap_err();
    let text = error.to_string();
    if KIND == Kind::Sqlite {
        // Refused before anything was waited for: the thread itself holds the file's write lock.
        assert!(matches!(error, Error::Busy { .. }), "{text}");
        assert!(text.contains("requires_new"), "{text}");
    } else {
        assert!(error.is_retryable(), "{text}");
        let Error::PoolExhausted { database, size, waited, holders, .. } = error else { panic!("{text}") };
        assert_eq!((database.as_str(), size), ("other", 1));
        assert!(waited < std::time::Duration::from_secs(10), "the pool's own timeout");
        assert!(holders.contains("put_record") || holders.contains("atomic"), "{holders}");
    }
    assert_eq!(fixture.rows("other"), [(1, 10)]);
    assert_eq!((in_use(&databases, "other"), scope::depth()), (0, 0));
}

#[test]
fn an_exhausted_pool_says_who_holds_its_connections() {
    let Some(fixture) = fixture() else { return };
    let mut config = multidb::DatabaseConfig::new("default", fixture.urls[0].clone());
    config.pool.max_size = Some(1);
    config.pool.connection_timeout = Some("2s".into());
    let databases = multidb::Databases::builder().database(config).build().unwrap();
    let (taken, is_taken) = mpsc::channel();
    let (done, is_done) = mpsc::channel::<()>();
    std::thread::scope(|threads| {
        let holder = std::thread::Builder::new().name("the holder".into());
        let databases = &databases;
        let held = move || {
            let _entered = databases.enter();
            let run = atomic::<Item>().run(|_: &mut H| {
                put(1, 10)?;
                taken.send(()).unwrap();
                is_done.recv().unwrap();
                Ok::<_, Error>(())
            });
            run.unwrap();
        };
        holder.spawn_scoped(threads, held).unwrap();
        is_taken.recv().unwrap();
        let _entered = databases.enter();
        let error = put(2, 20).unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, Error::PoolExhausted { .. }), "{text}");
        for named in ["`default`", "`put`", "database.rs:", "`the holder`", "max_size"] {
            assert!(text.contains(named), "{named} is missing in: {text}");
        }
        done.send(()).unwrap();
    });
    let _entered = databases.enter();
    put(3, 30).unwrap();
    assert_eq!(fixture.rows("default"), [(1, 10), (3, 30)]);
}

#[test]
fn statements_during_a_streaming_read_answer_busy_and_nothing_is_lost() {
    let Some(fixture) = fixture() else { return };
    if KIND == Kind::Postgres {
        return; // Its default cursor has received all rows; its row-by-row mode has a claim of its own.
    }
    let _entered = fixture.databases().enter();
    let run = atomic::<Item>().run(|conn: &mut H| {
        put(1, 10)?;
        put(2, 20)?;
        {
            let mut reading = items::table.order(items::id).load_iter::<Item, DefaultLoadingMode>(conn)?;
            assert_eq!(reading.next().unwrap()?.id, 1);
            let busy = put(3, 30);
            let text = busy.as_ref().unwrap_err().to_string();
            assert!(matches!(busy, Err(Error::Busy { .. })) && text.contains("`load`"), "{text}");
        }
        put(4, 40).map_err(Mishap::from)
    });
    run.unwrap();
    assert_eq!(fixture.rows("default"), [(1, 10), (2, 20), (4, 40)]);
}

#[test]
fn a_cursor_that_outlives_its_scope_makes_ok_an_error_and_commits_nothing() {
    let Some(fixture) = fixture() else { return };
    if KIND == Kind::Postgres {
        return;
    }
    let databases = fixture.databases();
    let _entered = databases.enter();
    let mut kept = None;
    let run = atomic::<Item>().run(|_: &mut H| {
        put(1, 10)?;
        let conn = kept.insert(connection::<Item, H>()?);
        let query = items::table.order(items::id);
        let reading = query.load_iter::<Item, DefaultLoadingMode>(conn)?;
        Ok::<_, Mishap>(reading)
    });
    assert!(run.is_err());
    drop(run);
    drop(kept);
    assert_eq!(fixture.rows("default"), []);
    assert_eq!(in_use(&databases, "default"), 0);
    put(2, 20).unwrap();
}

#[test]
fn a_cursor_outside_of_any_scope_holds_its_connection_until_it_is_dropped() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.databases();
    let _entered = databases.enter();
    put(1, 10).unwrap();
    put(2, 20).unwrap();
    let mut conn = connection::<Item, H>().unwrap();
    let mut reading = items::table.order(items::id).load_iter::<Item, DefaultLoadingMode>(&mut conn).unwrap();
    assert_eq!(reading.next().unwrap().unwrap().id, 1);
    assert_eq!(in_use(&databases, "default"), u32::from(KIND != Kind::Postgres));
    drop(reading);
    assert_eq!(in_use(&databases, "default"), 0);
}

#[test]
fn many_threads_share_a_small_pool_and_lose_nothing() {
    const THREADS: i64 = 8;
    const EACH: i64 = 10;
    let Some(fixture) = fixture() else { return };
    let databases = fixture.builder(2).build().unwrap();
    std::thread::scope(|threads| {
        for thread in 0..THREADS {
            let databases = &databases;
            threads.spawn(move || {
                let _entered = databases.enter();
                for n in 0..EACH {
                    let id = thread * EACH + n;
                    if n % 2 == 0 {
                        put(id, id).unwrap();
                    } else {
                        assert!(put_and_fail(id).is_err());
                    }
                }
            });
        }
    });
    let kept: Vec<i64> = fixture.rows("default").into_iter().map(|(id, _)| id).collect();
    let want: Vec<i64> = (0..THREADS * EACH).filter(|id| id % EACH % 2 == 0).collect();
    assert_eq!(kept, want);
    assert_eq!(in_use(&databases, "default"), 0);
}
