//! Diesel's own `transaction` on a handle is a level of the scope's transaction.

use std::panic::{AssertUnwindSafe, catch_unwind};

use diesel::connection::{Connection, TransactionManager};
use diesel::prelude::*;
use multidb::{Error, atomic, connection, scope};

use super::*;

type Manager = <H as Connection>::TransactionManager;

#[test]
fn inside_a_scope_it_is_a_nested_level_that_annotated_functions_join() {
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.databases().enter();
    let run = atomic::<Item>().run(|conn: &mut H| {
        put(1, 10)?;
        conn.transaction(|_| {
            assert_eq!(scope::depth(), 2);
            put(2, 20)
        })?;
        let undone = conn.transaction(|_| {
            put(3, 30)?;
            Err::<(), _>(Mishap::OnPurpose)
        });
        assert!(matches!(undone, Err(Mishap::OnPurpose)));
        put(4, 40)?;
        Ok::<_, Mishap>(())
    });
    run.unwrap();
    assert_eq!(fixture.rows("default"), [(1, 10), (2, 20), (4, 40)]);
}

#[test]
fn outside_of_any_scope_it_is_a_transaction_that_annotated_functions_join() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.databases();
    let _entered = databases.enter();
    let mut conn = connection::<Item, H>().unwrap();
    let undone = conn.transaction(|conn| {
        put(1, 10)?;
        assert_eq!(items::table.count().get_result::<i64>(conn)?, 1);
        assert_eq!(fixture.rows("default"), []);
        Err::<(), _>(Mishap::OnPurpose)
    });
    assert!(matches!(undone, Err(Mishap::OnPurpose)));
    assert_eq!(fixture.rows("default"), []);
    conn.transaction(|_| put(2, 20)).unwrap();
    assert_eq!(fixture.rows("default"), [(2, 20)]);
    assert_eq!((in_use(&databases, "default"), scope::depth()), (0, 0));
    assert_eq!(items::table.count().get_result::<i64>(&mut conn).unwrap(), 1, "autocommit again");
}

#[test]
fn a_panic_in_it_rolls_back_and_leaves_no_transaction_open() {
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.databases().enter();
    let mut conn = connection::<Item, H>().unwrap();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        conn.transaction(|_| -> Result<(), Error> {
            put(1, 10)?;
            panic!("on purpose")
        })
    }));
    assert!(panicked.is_err());
    assert_eq!(scope::depth(), 0);
    conn.transaction(|_| put(2, 20)).unwrap();
    assert_eq!(fixture.rows("default"), [(2, 20)]);
}

#[test]
fn a_swallowed_sql_error_in_it_is_never_reported_as_success() {
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.databases().enter();
    put(1, 10).unwrap();
    let mut conn = connection::<Item, H>().unwrap();
    let result = conn.transaction(|conn| {
        put(2, 20)?;
        let duplicate = diesel::insert_into(items::table).values((items::id.eq(1), items::value.eq(9))).execute(conn);
        assert!(duplicate.is_err());
        Ok::<_, Mishap>(())
    });
    assert!(matches!(result.map_err(sort), Err(Some(Error::Doomed { .. }))));
    assert_eq!(fixture.rows("default"), [(1, 10)]);
}

/// The library's error in a user's error, which came through Diesel's or directly.
fn sort(mishap: Mishap) -> Option<Error> {
    match mishap {
        Mishap::OnPurpose => None,
        Mishap::Query(error) => Some(Error::from(error)),
        Mishap::Database(error) => Some(error),
    }
}

#[test]
fn a_transaction_begun_by_hand_and_never_ended_dooms_its_scope() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.databases();
    let _entered = databases.enter();
    let run = atomic::<Item>().run(|conn: &mut H| {
        put(1, 10)?;
        Manager::begin_transaction(conn)?;
        put(2, 20)
    });
    assert!(matches!(run, Err(Error::Doomed { .. })), "{run:?}");
    assert_eq!(fixture.rows("default"), []);
    assert_eq!((in_use(&databases, "default"), scope::depth()), (0, 0));
}

#[test]
fn a_handle_can_end_only_what_it_began() {
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.databases().enter();
    let run = atomic::<Item>().run(|conn: &mut H| {
        put(1, 10)?;
        let ended = Manager::commit_transaction(conn);
        assert!(matches!(ended, Err(diesel::result::Error::NotInTransaction)), "{ended:?}");
        Ok::<_, Error>(())
    });
    run.unwrap();
    assert_eq!(fixture.rows("default"), [(1, 10)]);
}

#[test]
fn a_handles_transaction_is_not_ended_under_a_scope_that_was_entered_since() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.databases();
    let _entered = databases.enter();
    let mut conn = connection::<Item, H>().unwrap();
    for end in [Manager::commit_transaction, Manager::rollback_transaction] {
        Manager::begin_transaction(&mut conn).unwrap();
        put(1, 10).unwrap();
        let inner = atomic::<Item>().run(|_: &mut H| {
            put(2, 20)?;
            let refused = end(&mut conn).map_err(Error::from);
            assert!(matches!(&refused, Err(Error::OptionConflict { .. })), "{refused:?}");
            assert_eq!(scope::depth(), 2);
            put(3, 30)?;
            Err::<(), _>(Mishap::OnPurpose)
        });
        assert!(matches!(inner, Err(Mishap::OnPurpose)), "{inner:?}");
        assert_eq!(fixture.rows("default"), []);
        Manager::commit_transaction(&mut conn).unwrap();
        assert_eq!(fixture.rows("default"), [(1, 10)]);
        diesel::delete(items::table).execute(&mut conn).unwrap();
    }
    assert_eq!((scope::depth(), in_use(&databases, "default")), (0, 0));
}

#[test]
fn a_scope_whose_transaction_has_ended_with_its_handle_runs_nothing_more() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.databases();
    let _entered = databases.enter();
    let insert = |id: i64| {
        let values = (items::id.eq(id), items::value.eq(0));
        diesel::insert_into(items::table).values(values).execute(&mut connection::<Item, H>()?)?;
        Ok::<_, Error>(())
    };
    let end_inside = |mut conn: H| {
        Manager::begin_transaction(&mut conn).unwrap();
        insert(1).unwrap();
        let inner = atomic::<Item>().run(|_: &mut H| {
            insert(2)?;
            drop(conn);
            insert(3)
        });
        assert!(inner.is_err(), "{inner:?}");
    };
    for around in ["nothing", "the handle's scope", "another scope"] {
        let outside = connection::<Item, H>().unwrap();
        if around == "nothing" {
            end_inside(outside);
        } else {
            let run = atomic::<Item>().run(|_: &mut H| {
                end_inside(if around == "another scope" { outside } else { connection::<Item, H>()? });
                Ok::<_, Error>(())
            });
            assert!(matches!(run, Err(Error::Doomed { .. })), "{around}: {run:?}");
        }
        assert_eq!(fixture.rows("default"), [], "{around}");
        assert_eq!((scope::depth(), in_use(&databases, "default")), (0, 0), "{around}");
        put(4, 40).unwrap();
        diesel::delete(items::table).execute(&mut fixture.observer("default")).unwrap();
    }
}

#[test]
fn a_test_transaction_is_joined_and_rolled_back_with_its_handle() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.databases();
    let _entered = databases.enter();
    let mut conn = connection::<Item, H>().unwrap();
    conn.begin_test_transaction().unwrap();
    put(1, 10).unwrap();
    assert!(matches!(put_and_fail(2), Err(Mishap::OnPurpose)));
    assert_eq!(items::table.count().get_result::<i64>(&mut conn).unwrap(), 1);
    assert_eq!(fixture.rows("default"), []);
    drop(conn);
    assert_eq!((in_use(&databases, "default"), scope::depth()), (0, 0));
    assert_eq!(fixture.rows("default"), []);
    connection::<Item, H>().unwrap().test_transaction(|_| put(3, 30));
    assert_eq!(fixture.rows("default"), []);
    put(4, 40).unwrap();
    assert_eq!(fixture.rows("default"), [(4, 40)]);
}

#[test]
fn a_test_transaction_whose_handle_ends_on_another_thread_is_rolled_back_and_forgotten() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.databases();
    let _entered = databases.enter();
    let mut conn = connection::<Item, H>().unwrap();
    conn.begin_test_transaction().unwrap();
    put(1, 10).unwrap();
    std::thread::spawn(move || drop(conn)).join().unwrap();
    assert_eq!(scope::depth(), 0);
    put(2, 20).unwrap();
    assert_eq!(fixture.rows("default"), [(2, 20)]);
    assert_eq!(in_use(&databases, "default"), 0);
}

#[test]
fn diesel_sees_the_depth_of_the_scope() {
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.databases().enter();
    let depth = |conn: &mut H| {
        let depth = Manager::transaction_manager_status_mut(conn).transaction_depth().unwrap();
        depth.map_or(0, std::num::NonZeroU32::get)
    };
    let mut outside = connection::<Item, H>().unwrap();
    assert_eq!(depth(&mut outside), 0);
    atomic::<Item>()
        .run(|conn: &mut H| {
            assert_eq!(depth(conn), 1);
            conn.transaction(|conn| {
                assert_eq!(depth(conn), 2);
                Ok::<_, Error>(())
            })
        })
        .unwrap();
}
