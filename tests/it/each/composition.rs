//! Functions compose without any connection being passed.

use std::panic::{AssertUnwindSafe, catch_unwind};

use diesel::prelude::*;
use multidb::{Error, Propagation, atomic, atomic_many, atomic_on, connection, scope, transactional};

use super::*;

#[transactional(Item)]
fn put_two() -> Result<(), Error> {
    put(1, 10)?;
    put(2, 20)
}

#[test]
fn nested_functions_commit_together() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.databases();
    let _entered = databases.enter();
    put_two().unwrap();
    assert_eq!(fixture.rows("default"), [(1, 10), (2, 20)]);
    assert_eq!(in_use(&databases, "default"), 0);
}

#[transactional(Item)]
fn put_two_then_fail() -> Result<(), Mishap> {
    put(1, 10)?;
    put(2, 20)?;
    assert_eq!(scope::depth(), 1);
    Err(Mishap::OnPurpose)
}

#[test]
fn an_error_of_the_outer_function_undoes_the_inner_ones() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.databases();
    let _entered = databases.enter();
    assert!(matches!(put_two_then_fail(), Err(Mishap::OnPurpose)));
    assert_eq!(fixture.rows("default"), []);
    assert_eq!(in_use(&databases, "default"), 0);
}

#[transactional(Item)]
fn survive_an_inner_error() -> Result<(), Error> {
    put(1, 10)?;
    assert!(matches!(put_and_fail(2), Err(Mishap::OnPurpose)));
    put(3, 30)
}

#[test]
fn an_inner_error_undoes_the_inner_function_alone() {
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.databases().enter();
    survive_an_inner_error().unwrap();
    assert_eq!(fixture.rows("default"), [(1, 10), (3, 30)]);
}

#[test]
fn the_rows_are_not_seen_by_others_before_the_outermost_commit() {
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.databases().enter();
    let run = atomic::<Item>().run(|conn: &mut H| {
        put(1, 10)?;
        assert_eq!(items::table.count().get_result::<i64>(conn)?, 1);
        assert_eq!(fixture.rows("default"), []);
        Ok::<_, Mishap>(())
    });
    run.unwrap();
    assert_eq!(fixture.rows("default"), [(1, 10)]);
}

#[test]
fn a_panic_rolls_back_and_the_connection_survives() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.builder(1).build().unwrap();
    let _entered = databases.enter();
    put(1, 10).unwrap();
    let opened = databases.database("default").unwrap().pool_state().connections;
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        atomic::<Item>().run(|_: &mut H| -> Result<(), Error> {
            put(2, 20)?;
            panic!("on purpose")
        })
    }));
    assert_eq!(*panicked.unwrap_err().downcast::<&str>().unwrap(), "on purpose");
    assert_eq!(scope::depth(), 0);
    let state = databases.database("default").unwrap().pool_state();
    assert_eq!((state.connections, state.idle_connections), (opened, opened), "the connection was discarded");
    put(3, 30).unwrap();
    assert_eq!(fixture.rows("default"), [(1, 10), (3, 30)]);
}

#[test]
fn a_panic_of_an_inner_function_that_the_outer_one_catches_undoes_the_inner_one_alone() {
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.databases().enter();
    let run = atomic::<Item>().run(|_: &mut H| {
        put(1, 10)?;
        let inner = catch_unwind(|| {
            atomic::<Item>().run(|_: &mut H| -> Result<(), Error> {
                put(2, 20)?;
                panic!("on purpose")
            })
        });
        assert!(inner.is_err());
        assert_eq!(scope::depth(), 1);
        put(3, 30)
    });
    run.unwrap();
    assert_eq!(fixture.rows("default"), [(1, 10), (3, 30)]);
}

#[test]
fn a_scope_in_another_thread_is_a_transaction_of_its_own() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.databases();
    let _entered = databases.enter();
    let result = atomic::<Item>().run(|_: &mut H| {
        let theirs = std::thread::scope(|threads| {
            let thread = threads.spawn(|| {
                let _entered = databases.enter();
                assert_eq!(scope::depth(), 0);
                put(1, 10)
            });
            thread.join().unwrap()
        });
        theirs?;
        assert_eq!(fixture.rows("default"), [(1, 10)], "the thread's scope has committed");
        Err::<(), Mishap>(Mishap::OnPurpose)
    });
    assert!(matches!(result, Err(Mishap::OnPurpose)));
    assert_eq!(fixture.rows("default"), [(1, 10)]);
}

#[test]
fn a_handle_that_outlives_its_scope_answers_closed() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.databases();
    let _entered = databases.enter();
    let mut kept = None;
    atomic::<Item>()
        .run(|_: &mut H| {
            kept = Some(connection::<Item, H>()?);
            put(1, 10)
        })
        .unwrap();
    let mut kept = kept.unwrap();
    let error = items::table.count().get_result::<i64>(&mut kept).unwrap_err();
    assert!(matches!(Error::from(error), Error::Closed { database } if database == "default"));
    // Also one whose scope never sent anything.
    let mut unused = None;
    atomic::<Item>()
        .run(|_: &mut H| {
            unused = Some(connection::<Item, H>()?);
            Ok::<_, Error>(())
        })
        .unwrap();
    let error = items::table.count().get_result::<i64>(&mut unused.unwrap()).unwrap_err();
    assert!(matches!(Error::from(error), Error::Closed { .. }));
    assert_eq!(in_use(&databases, "default"), 0);
}

#[test]
fn requires_new_commits_whatever_becomes_of_the_outer_scope() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.databases();
    let _entered = databases.enter();
    let run = atomic::<Item>().run(|_: &mut H| {
        put(1, 10)?;
        put_record_apart(2, 20)?;
        Err::<(), Mishap>(Mishap::OnPurpose)
    });
    assert!(matches!(run, Err(Mishap::OnPurpose)));
    assert_eq!(fixture.rows("default"), []);
    assert_eq!(fixture.rows("other"), [(2, 20)]);
    assert_eq!((in_use(&databases, "default"), in_use(&databases, "other")), (0, 0));
}

#[test]
fn an_error_of_requires_new_leaves_the_outer_scope_as_it_is() {
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.databases().enter();
    let run = atomic::<Item>().run(|_: &mut H| {
        put(1, 10)?;
        let inner = atomic::<Record>().propagation(Propagation::RequiresNew).run(|_: &mut H| {
            put_record(2, 20)?;
            assert_eq!(scope::depth(), 1);
            Err::<(), Mishap>(Mishap::OnPurpose)
        });
        assert!(matches!(inner, Err(Mishap::OnPurpose)));
        assert!(!scope::is_doomed());
        Ok::<_, Mishap>(())
    });
    run.unwrap();
    assert_eq!(fixture.rows("default"), [(1, 10)]);
    assert_eq!(fixture.rows("other"), []);
}

#[transactional(Item, Record)]
fn put_both(#[conn(Item)] item: &mut H, #[conn(Record)] record: &mut H) -> Result<(), Error> {
    diesel::insert_into(items::table).values((items::id.eq(1), items::value.eq(10))).execute(item)?;
    diesel::insert_into(items::table).values((items::id.eq(2), items::value.eq(20))).execute(record)?;
    Ok(())
}

#[test]
fn several_models_of_one_database_are_one_local_transaction() {
    let Some(fixture) = fixture() else { return };
    let merged = fixture.databases().with_router(Everything("default"));
    let _entered = merged.enter();
    put_both().unwrap();
    assert_eq!(fixture.rows("default"), [(1, 10), (2, 20)]);
    atomic_many::<(Item, Record)>()
        .run(|scope| {
            diesel::delete(items::table.find(1)).execute(&mut scope.conn::<Item, H>()?)?;
            diesel::delete(items::table.find(2)).execute(&mut scope.conn::<Record, H>()?)?;
            Ok::<_, Mishap>(())
        })
        .unwrap();
    assert_eq!(fixture.rows("default"), []);
}

/// Sends everything to one database.
struct Everything(&'static str);

impl multidb::Router for Everything {
    fn select_db(&self, _request: &multidb::RouteRequest<'_>) -> multidb::Route {
        multidb::Route::to(self.0)
    }
}

#[test]
fn a_scope_by_alias_needs_no_model() {
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.databases().enter();
    let run = atomic_on("other").run(|conn: &mut H| {
        diesel::insert_into(items::table).values((items::id.eq(1), items::value.eq(1))).execute(conn)?;
        Ok::<_, Mishap>(())
    });
    run.unwrap();
    assert_eq!(fixture.rows("other"), [(1, 1)]);
}

#[test]
fn early_returns_and_values_are_those_of_the_plain_function() {
    #[transactional(Item)]
    fn find<'a>(#[conn] conn: &mut H, id: i64, name: &'a str) -> Result<Option<(&'a str, i64)>, Mishap> {
        if id < 0 {
            return Ok(None);
        }
        let value = items::table.find(id).select(items::value).first::<i64>(conn).optional()?;
        let Some(value) = value else { return Ok(None) };
        Ok(Some((name, value)))
    }
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.databases().enter();
    put(1, 10).unwrap();
    assert_eq!(find(-1, "x").unwrap(), None);
    assert_eq!(find(2, "x").unwrap(), None);
    assert_eq!(find(1, "x").unwrap(), Some(("x", 10)));
}

#[test]
fn the_transaction_has_one_id_from_its_first_level_to_its_last() {
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.databases().enter();
    assert_eq!(scope::current(), None);
    let run = atomic::<Item>().run(|_: &mut H| {
        let outer = scope::current().unwrap();
        atomic::<Item>().run(|_: &mut H| {
            assert_eq!(scope::current(), Some(outer.clone()));
            let apart = atomic::<Record>().propagation(Propagation::RequiresNew);
            apart.run(|_: &mut H| {
                assert_ne!(scope::current(), Some(outer));
                Ok::<_, Error>(())
            })
        })
    });
    run.unwrap();
}

#[test]
fn a_scope_object_leads_to_its_own_transaction_from_inside_an_independent_one() {
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.databases().enter();
    let run = atomic_many::<(Item,)>().run(|outer| {
        let apart = atomic::<Item>().propagation(Propagation::RequiresNew).run(|_: &mut H| {
            let insert = diesel::insert_into(items::table).values((items::id.eq(1), items::value.eq(10)));
            insert.execute(&mut outer.conn::<Item, H>()?)?;
            Ok::<_, Mishap>(())
        });
        apart?;
        Err::<(), _>(Mishap::OnPurpose)
    });
    assert!(matches!(run, Err(Mishap::OnPurpose)), "{run:?}");
    assert_eq!(fixture.rows("default"), []);
}
