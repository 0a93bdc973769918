//! What the database refused is never reported as success.

use std::panic::{AssertUnwindSafe, catch_unwind};

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use multidb::{Error, FailureClass, atomic, scope};

use super::*;

/// Inserts a row that is there already, and swallows the error.
fn swallow_a_duplicate(conn: &mut H) {
    let duplicate = diesel::insert_into(items::table).values((items::id.eq(1), items::value.eq(99))).execute(conn);
    assert!(duplicate.is_err());
}

#[test]
fn a_swallowed_sql_error_makes_ok_an_error() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.databases();
    let _entered = databases.enter();
    put(1, 10).unwrap();
    let error = atomic::<Item>()
        .run(|conn: &mut H| {
            put(2, 20)?;
            swallow_a_duplicate(conn);
            assert!(scope::is_doomed());
            Ok::<_, Error>(())
        })
        .unwrap_err();
    let text = error.to_string();
    let Error::Doomed { first, function, file, line, refused } = error else { panic!("{text}") };
    assert_eq!((function, refused), ("atomic", 0));
    assert!(file.ends_with("doom.rs") && line > 0);
    assert_eq!(first.class(), FailureClass::Constraint);
    assert_eq!(fixture.rows("default"), [(1, 10)]);
    assert_eq!(in_use(&databases, "default"), 0);
    put(3, 30).unwrap();
}

#[test]
fn statements_of_a_doomed_transaction_are_refused_and_counted() {
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.databases().enter();
    put(1, 10).unwrap();
    let error = atomic::<Item>()
        .run(|conn: &mut H| {
            swallow_a_duplicate(conn);
            let refused = items::table.count().get_result::<i64>(conn).unwrap_err();
            assert!(matches!(Error::from(refused), Error::Doomed { refused: 1, .. }));
            assert!(matches!(put(2, 20), Err(Error::Doomed { refused: 2, .. })));
            Ok::<_, Error>(())
        })
        .unwrap_err();
    assert!(matches!(error, Error::Doomed { refused: 2, .. }), "{error}");
    assert_eq!(fixture.rows("default"), [(1, 10)]);
}

#[test]
fn a_refused_statement_in_a_nested_scope_that_fails_dooms_nothing_else() {
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.databases().enter();
    put(1, 10).unwrap();
    let run = atomic::<Item>().run(|_: &mut H| {
        put(2, 20)?;
        let duplicate = put(1, 99);
        assert!(matches!(duplicate, Err(Error::Query(_))), "{duplicate:?}");
        assert!(!scope::is_doomed());
        put(3, 30)
    });
    run.unwrap();
    assert_eq!(fixture.rows("default"), [(1, 10), (2, 20), (3, 30)]);
}

#[test]
fn a_nested_scope_that_swallows_an_error_is_undone_and_reports_it() {
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.databases().enter();
    put(1, 10).unwrap();
    let run = atomic::<Item>().run(|_: &mut H| {
        put(2, 20)?;
        let inner = atomic::<Item>().run(|conn: &mut H| {
            put(3, 30)?;
            swallow_a_duplicate(conn);
            Ok::<_, Error>(())
        });
        assert!(matches!(inner, Err(Error::Doomed { .. })), "{inner:?}");
        put(4, 40)
    });
    run.unwrap();
    assert_eq!(fixture.rows("default"), [(1, 10), (2, 20), (4, 40)]);
}

#[test]
fn an_error_that_no_database_reported_dooms_nothing() {
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.databases().enter();
    let run = atomic::<Item>().run(|conn: &mut H| {
        put(1, 10)?;
        let missing = items::table.find(7).first::<Item>(conn);
        assert!(matches!(missing, Err(diesel::result::Error::NotFound)));
        assert!(!scope::is_doomed());
        Ok::<_, Error>(())
    });
    run.unwrap();
    assert_eq!(fixture.rows("default"), [(1, 10)]);
}

#[test]
fn the_users_error_comes_back_unchanged_from_a_doomed_scope() {
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.databases().enter();
    put(1, 10).unwrap();
    let run = atomic::<Item>().run(|conn: &mut H| {
        swallow_a_duplicate(conn);
        Err::<(), _>(Mishap::OnPurpose)
    });
    assert!(matches!(run, Err(Mishap::OnPurpose)));
}

#[test]
fn a_transaction_ended_behind_the_scopes_back_is_refused_or_an_error_and_never_ok() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.databases();
    let _entered = databases.enter();
    for end in ["COMMIT", "ROLLBACK", "  -- note\n  commit; SELECT 1", "BEGIN"] {
        let run = atomic::<Item>().run(|conn: &mut H| {
            put(1, 10)?;
            let refused = conn.batch_execute(end).map_err(Error::from);
            assert!(matches!(refused, Err(Error::TransactionControl { .. })), "{end}: {refused:?}");
            let refused = diesel::sql_query(end).execute(conn).map_err(Error::from);
            assert!(matches!(refused, Err(Error::TransactionControl { .. })), "{end}: {refused:?}");
            Err::<(), _>(Mishap::OnPurpose)
        });
        assert!(matches!(run, Err(Mishap::OnPurpose)));
        assert_eq!(fixture.rows("default"), [], "after {end}");
    }
    for end in ["ROLLBACK", "COMMIT"] {
        let run = atomic::<Item>().run(|conn: &mut H| {
            put(1, 10)?;
            let _ = conn.with_raw(|raw: &mut Raw| raw.batch_execute(end).map_err(Error::from));
            Ok::<_, Error>(())
        });
        assert!(matches!(run, Err(Error::ImplicitCommit { .. })), "{end}: {run:?}");
        diesel::delete(items::table).execute(&mut fixture.observer("default")).unwrap();
    }
    assert_eq!(in_use(&databases, "default"), 0);
    put(2, 20).unwrap();
    assert_eq!(fixture.rows("default"), [(2, 20)]);
}

#[test]
fn a_raw_begin_outside_of_any_scope_is_refused_unless_the_text_ends_it() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.builder(1).build().unwrap();
    let _entered = databases.enter();
    let mut conn = multidb::connection::<Item, H>().unwrap();
    for text in ["BEGIN", "BEGIN; INSERT INTO items VALUES (9, 9)", "COMMIT"] {
        let refused = conn.batch_execute(text).map_err(Error::from);
        assert!(matches!(refused, Err(Error::TransactionControl { .. })), "{text}: {refused:?}");
    }
    conn.batch_execute("BEGIN; INSERT INTO items VALUES (1, 10); COMMIT").unwrap();
    let failed =
        conn.batch_execute("BEGIN; INSERT INTO items VALUES (2, 20); INSERT INTO items VALUES (1, 10); COMMIT");
    assert!(failed.is_err());
    assert_eq!(fixture.rows("default"), [(1, 10)]);
    put(3, 30).unwrap();
    assert_eq!(fixture.rows("default"), [(1, 10), (3, 30)]);
}

#[test]
fn a_transaction_left_open_inside_with_raw_does_not_reach_the_next_user_of_the_pool() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.builder(1).build().unwrap();
    let _entered = databases.enter();
    for id in [1, 2] {
        let left = multidb::connection::<Item, H>()
            .unwrap()
            .with_raw(|raw: &mut Raw| raw.batch_execute("BEGIN; INSERT INTO items VALUES (9, 9)").map_err(Error::from));
        assert!(matches!(left, Err(Error::TransactionControl { .. })), "{left:?}");
        put(id, 10).unwrap();
    }
    assert_eq!(fixture.rows("default"), [(1, 10), (2, 10)]);
}

#[test]
fn a_panic_inside_a_statement_dooms_the_transaction_although_it_was_caught() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.databases();
    let _entered = databases.enter();
    let run = atomic::<Item>().run(|conn: &mut H| {
        put(1, 10)?;
        let caught = catch_unwind(AssertUnwindSafe(|| {
            conn.with_raw(|_: &mut Raw| -> Result<(), Error> { panic!("on purpose") })
        }));
        assert!(caught.is_err());
        let next = items::table.count().get_result::<i64>(conn).map_err(Error::from);
        assert!(matches!(next, Err(Error::Doomed { .. })), "{next:?}");
        Ok::<_, Error>(())
    });
    assert!(matches!(run, Err(Error::Doomed { .. })), "{run:?}");
    assert_eq!(fixture.rows("default"), []);
    put(2, 20).unwrap();
    assert_eq!(fixture.rows("default"), [(2, 20)]);
}

#[test]
fn a_refused_statement_inside_with_raw_dooms_the_level_unless_it_was_undone_there() {
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.databases().enter();
    put(1, 10).unwrap();
    let duplicate =
        |raw: &mut Raw| diesel::insert_into(items::table).values((items::id.eq(1), items::value.eq(9))).execute(raw);
    let swallowed = atomic::<Item>().run(|conn: &mut H| {
        put(2, 20)?;
        conn.with_raw(|raw: &mut Raw| {
            assert!(duplicate(raw).is_err());
            Ok::<_, Error>(())
        })
    });
    assert!(matches!(swallowed, Err(Error::Doomed { .. })), "{swallowed:?}");
    assert_eq!(fixture.rows("default"), [(1, 10)]);
    let undone = atomic::<Item>().run(|conn: &mut H| {
        put(2, 20)?;
        conn.with_raw(|raw: &mut Raw| {
            assert!(raw.transaction(|raw| duplicate(raw)).is_err());
            Ok::<_, Error>(())
        })
    });
    undone.unwrap();
    assert_eq!(fixture.rows("default"), [(1, 10), (2, 20)]);
}
