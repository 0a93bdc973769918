//! What is sent past the handle, or through it as a text, never leaves a transaction in a state that nobody knows.

use std::panic::{AssertUnwindSafe, catch_unwind};

use diesel::connection::{Connection, DefaultLoadingMode, SimpleConnection, TransactionManager};
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Bool};
use multidb::{Error, atomic, connection};

use super::*;

type RawManager = <Raw as Connection>::TransactionManager;

#[derive(QueryableByName)]
struct Nothing {
    #[diesel(sql_type = BigInt)]
    #[expect(dead_code, reason = "never read")]
    id: i64,
}

fn insert(conn: &mut H, id: i64) -> QueryResult<usize> {
    diesel::insert_into(items::table).values((items::id.eq(id), items::value.eq(0))).execute(conn)
}

#[test]
fn a_raw_begin_inside_with_raw_in_autocommit_does_not_reach_the_next_user() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.builder(1).build().unwrap();
    let _entered = databases.enter();
    let mut conn = connection::<Item, H>().unwrap();
    for round in 0..2 {
        let raw = catch_unwind(AssertUnwindSafe(|| {
            conn.with_raw(|raw: &mut Raw| {
                raw.batch_execute("BEGIN")?;
                assert_eq!(round, 0, "on purpose");
                Ok::<_, Mishap>(())
            })
        }));
        assert_eq!(raw.is_err(), round == 1);
        insert(&mut conn, round).unwrap();
    }
    assert_eq!(fixture.rows("default"), [(0, 0), (1, 0)]);
}

#[test]
fn a_raw_commit_read_with_load_keeps_nothing_of_a_scope_that_fails() {
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.databases().enter();
    let run = atomic::<Item>().run(|conn: &mut H| {
        put(1, 10)?;
        let _ = diesel::sql_query("COMMIT").load::<Nothing>(conn);
        let _ = put(2, 20);
        Err::<(), _>(Mishap::OnPurpose)
    });
    assert!(run.is_err());
    assert_eq!(fixture.rows("default"), []);
}

#[test]
fn a_raw_begin_read_with_load_does_not_reach_the_next_user() {
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.builder(1).build().unwrap().enter();
    let mut conn = connection::<Item, H>().unwrap();
    let _ = diesel::sql_query("BEGIN").load::<Nothing>(&mut conn);
    insert(&mut conn, 1).unwrap();
    assert_eq!(fixture.rows("default"), [(1, 0)]);
}

#[test]
fn a_transaction_begun_inside_with_raw_and_never_ended_dooms_its_scope() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.databases();
    let _entered = databases.enter();
    let run = atomic::<Item>().run(|conn: &mut H| {
        put(1, 10)?;
        conn.with_raw(|raw: &mut Raw| {
            RawManager::begin_transaction(raw)?;
            raw.batch_execute("INSERT INTO items VALUES (2, 20)")?;
            Ok::<_, Mishap>(())
        })
    });
    assert!(run.is_err(), "{run:?} {:?}", fixture.rows("default"));
    assert_eq!(fixture.rows("default"), []);
    assert_eq!(in_use(&databases, "default"), 0);
}

#[test]
fn a_swallowed_error_of_any_kind_inside_with_raw_is_never_ok() {
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.databases().enter();
    let mistakes: [fn(&mut Raw) -> bool; 4] = [
        |raw| raw.batch_execute("SELEC 1").is_err(),
        |raw| diesel::sql_query("SELEC 1").execute(raw).is_err(),
        |raw| diesel::sql_query("SELECT nothing FROM nowhere").load::<Nothing>(raw).is_err(),
        |raw| {
            items::table
                .filter(diesel::dsl::sql::<Bool>("nowhere = 1"))
                .load_iter::<Item, DefaultLoadingMode>(raw)
                .is_err()
        },
    ];
    for (at, mistake) in mistakes.into_iter().enumerate() {
        let run = atomic::<Item>().run(|conn: &mut H| {
            put(1, 10)?;
            conn.with_raw(|raw: &mut Raw| {
                assert!(mistake(raw));
                Ok::<_, Error>(())
            })
        });
        assert!(matches!(run, Err(Error::Doomed { .. })), "{at}: {run:?}");
        assert_eq!(fixture.rows("default"), []);
    }
}

#[test]
fn a_raw_commit_inside_with_raw_is_not_followed_by_work_in_autocommit() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.databases();
    let _entered = databases.enter();
    for statement in ["COMMIT", "ROLLBACK", "COMMIT; BEGIN"] {
        let run = atomic::<Item>().run(|conn: &mut H| {
            let _ = conn.with_raw(|raw: &mut Raw| raw.batch_execute(statement).map_err(Mishap::from));
            assert!(insert(conn, 1).is_err());
            Ok::<_, Mishap>(())
        });
        assert!(run.is_err(), "{statement}: {run:?}");
        assert_eq!(fixture.rows("default"), [], "{statement}");
        assert_eq!(in_use(&databases, "default"), 0);
    }
    // A savepoint of the borrower's own stays inside.
    let run = atomic::<Item>().run(|conn: &mut H| {
        insert(conn, 1)?;
        conn.with_raw(|raw: &mut Raw| {
            raw.batch_execute("SAVEPOINT mine; INSERT INTO items VALUES (2, 2); ROLLBACK TO SAVEPOINT mine")?;
            raw.transaction(|raw| raw.batch_execute("INSERT INTO items VALUES (3, 3)"))?;
            Ok::<_, Mishap>(())
        })
    });
    run.unwrap();
    assert_eq!(fixture.rows("default"), [(1, 0), (3, 3)]);
}

#[test]
fn a_transaction_ended_by_diesel_inside_with_raw_is_not_followed_by_work_in_autocommit() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.databases();
    let _entered = databases.enter();
    let ends: [fn(&mut Raw) -> QueryResult<()>; 2] = [RawManager::commit_transaction, RawManager::rollback_transaction];
    for end in ends {
        let run = atomic::<Item>().run(|conn: &mut H| {
            items::table.count().get_result::<i64>(conn)?;
            let ended = conn.with_raw(|raw: &mut Raw| end(raw).map_err(Mishap::from));
            assert!(ended.is_err());
            assert!(insert(conn, 1).is_err());
            Ok::<_, Mishap>(())
        });
        assert!(run.is_err(), "{run:?}");
        assert_eq!(fixture.rows("default"), []);
        assert_eq!(in_use(&databases, "default"), 0);
    }
}
