//! Panics at odd places, cursors that are kept or forgotten, and what ends in the middle of a scope.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use diesel::connection::{Connection, DefaultLoadingMode, Instrumentation, InstrumentationEvent, SimpleConnection};
use diesel::prelude::*;
use multidb::{Error, Propagation, atomic, atomic_many, atomic_on, connection, schema, scope};

use super::*;
use crate::fixture::Kind;
use crate::journal::Journal;

fn insert(conn: &mut H, id: i64) -> QueryResult<usize> {
    diesel::insert_into(items::table).values((items::id.eq(id), items::value.eq(0))).execute(conn)
}

/// Panics when it sees an event.
struct Grenade {
    text: &'static str,
    after: bool,
}

impl Instrumentation for Grenade {
    fn on_connection_event(&mut self, event: InstrumentationEvent<'_>) {
        let seen = match event {
            InstrumentationEvent::StartQuery { query, .. } if !self.after => query.to_string(),
            InstrumentationEvent::FinishQuery { query, .. } if self.after => query.to_string(),
            _ => return,
        };
        assert!(!seen.contains(self.text), "on purpose at {seen}");
    }
}

#[test]
fn an_instrumentation_that_panics_leaves_the_pool_clean() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.builder(1).build().unwrap();
    let _entered = databases.enter();
    put(100, 0).unwrap();
    let begin = match KIND {
        Kind::Mysql => "START",
        Kind::Sqlite | Kind::Postgres => "BEGIN",
    };
    let mut next = 101;
    for text in [begin, "SAVEPOINT multidb_2", "SELECT", "INSERT", "ROLLBACK TO", "COMMIT"] {
        for after in [false, true] {
            let ran = catch_unwind(AssertUnwindSafe(|| {
                atomic::<Item>().run(|conn: &mut H| {
                    conn.set_instrumentation(Grenade { text, after });
                    items::table.count().get_result::<i64>(conn)?;
                    let _ = put_and_fail(1);
                    put(2, 20)?;
                    Ok::<_, Mishap>(())
                })
            }));
            let rows = fixture.rows("default");
            let committed = rows.contains(&(2, 20));
            if text == "COMMIT" {
                assert!(committed && matches!(ran, Ok(Ok(()))), "what only watches doesn't change what happens");
            } else {
                assert!(!committed && ran.is_err(), "{text} {after}: {rows:?}");
            }
            assert!(!rows.contains(&(1, 0)));
            fixture.observer("default").batch_execute("DELETE FROM items WHERE id = 2").unwrap();
            assert_eq!((in_use(&databases, "default"), scope::depth()), (0, 0), "{text} {after}");
            put(next, 0).unwrap();
            assert!(fixture.rows("default").contains(&(next, 0)), "{text} {after}");
            next += 1;
        }
    }
}

#[test]
fn an_instrumentation_that_panics_at_the_commit_changes_neither_the_outcome_nor_the_hooks() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.builder(1).build().unwrap();
    let _entered = databases.enter();
    let journal = Journal::default();
    for (id, after) in [(1, false), (2, true)] {
        for manual in [false, true] {
            let hooks = Rc::new(RefCell::new(Vec::new()));
            let [committed, rolled_back] = [Rc::clone(&hooks), Rc::clone(&hooks)];
            let scope = atomic::<Item>();
            let scope = if manual { scope.manual() } else { scope };
            let run = journal.watch(|| {
                scope.run(|conn: &mut H| {
                    conn.set_instrumentation(Grenade { text: "COMMIT", after });
                    scope::on_commit(move || committed.borrow_mut().push("committed"));
                    scope::on_rollback(move || rolled_back.borrow_mut().push("rolled back"));
                    put(id + 10 * i64::from(manual), 0)?;
                    if manual { scope::commit() } else { Ok(()) }
                })
            });
            run.unwrap();
            assert_eq!(hooks.take(), ["committed"], "{after}, {manual}");
            let events = journal.events();
            let told = events.iter().any(|(text, fields)| {
                text.contains("instrumentation of a connection panicked") && fields["alias"] == "default"
            });
            assert!(told, "{events:?}");
        }
    }
    let rows = fixture.rows("default");
    assert_eq!(rows.len(), 4, "{rows:?}");
    assert_eq!(in_use(&databases, "default"), 0);
}

#[test]
fn an_instrumentation_that_panics_at_a_query_is_heard_of_at_once_and_dooms_the_scope() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.builder(1).build().unwrap();
    let _entered = databases.enter();
    for after in [false, true] {
        let run = atomic::<Item>().run(|conn: &mut H| {
            put(1, 10)?;
            conn.set_instrumentation(Grenade { text: "SELECT", after });
            let panicked = catch_unwind(AssertUnwindSafe(|| items::table.load::<Item>(conn).map(drop)));
            assert!(panicked.is_err(), "{after}");
            Ok::<_, Error>(())
        });
        assert!(matches!(run, Err(Error::Doomed { .. })), "{run:?}");
        assert_eq!((fixture.rows("default"), in_use(&databases, "default")), (vec![], 0));
    }
}

#[test]
fn a_statement_that_panicked_on_the_second_database_is_committed_on_neither() {
    let Some(fixture) = fixture().filter(|_| KIND != Kind::Sqlite) else { return };
    let databases = fixture.databases();
    schema::install(&databases).unwrap();
    let _entered = databases.enter();
    let run = atomic_many::<(Item, Record)>().run(|scope| {
        put(1, 10)?;
        let conn = &mut scope.conn::<Record, H>()?;
        conn.set_instrumentation(Grenade { text: "value", after: true });
        assert!(catch_unwind(AssertUnwindSafe(|| insert(conn, 1))).is_err());
        Ok::<_, Mishap>(())
    });
    assert!(run.is_err(), "{run:?}");
    assert_eq!((fixture.rows("default"), fixture.rows("other")), (vec![], vec![]));
    assert_eq!((in_use(&databases, "default"), in_use(&databases, "other")), (0, 0));
}

#[test]
fn an_autocommit_instrumentation_that_panics_leaves_the_pool_clean() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.builder(1).build().unwrap();
    let _entered = databases.enter();
    for after in [false, true] {
        for _ in 0..2 {
            let panicked = catch_unwind(AssertUnwindSafe(|| {
                let mut conn = connection::<Item, H>().unwrap();
                conn.set_instrumentation(Grenade { text: "INSERT", after });
                insert(&mut conn, 1)
            }));
            assert!(panicked.is_err());
        }
        assert_eq!(in_use(&databases, "default"), 0);
        put(if after { 7 } else { 8 }, 0).unwrap();
    }
}

/// An error whose conversion panics.
#[derive(Debug)]
struct Fragile;

impl From<Error> for Fragile {
    fn from(_: Error) -> Self {
        panic!("on purpose")
    }
}

impl From<diesel::result::Error> for Fragile {
    fn from(_: diesel::result::Error) -> Self {
        Self
    }
}

#[test]
fn a_conversion_of_errors_that_panics_leaves_nothing_open() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.builder(1).build().unwrap();
    let _entered = databases.enter();
    put(1, 10).unwrap();
    let doomed = catch_unwind(AssertUnwindSafe(|| {
        atomic::<Item>().run(|conn: &mut H| {
            insert(conn, 2)?;
            let _ = insert(conn, 1);
            Ok::<_, Fragile>(())
        })
    }));
    assert!(doomed.is_err());
    let unrouted = catch_unwind(AssertUnwindSafe(|| {
        atomic::<Item>().run(|conn: &mut H| {
            insert(conn, 2)?;
            atomic_on("nowhere").run(|_: &mut H| Ok::<_, Fragile>(()))
        })
    }));
    assert!(unrouted.is_err());
    let lent = catch_unwind(AssertUnwindSafe(|| {
        atomic::<Item>().run(|conn: &mut H| {
            insert(conn, 2)?;
            conn.with_raw(|raw: &mut Raw| raw.batch_execute("ROLLBACK").map_err(Fragile::from))?;
            insert(conn, 3)?;
            Ok::<_, Fragile>(())
        })
    }));
    assert!(lent.is_err() || lent.unwrap().is_err());
    assert_eq!((in_use(&databases, "default"), scope::depth()), (0, 0));
    put(4, 40).unwrap();
    assert_eq!(fixture.rows("default"), [(1, 10), (4, 40)]);
}

/// Panics, or works on the database, when it is dropped.
struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        self.0();
    }
}

#[test]
fn scopes_run_inside_destructors_of_a_body_that_panics() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.builder(1).build().unwrap();
    let _entered = databases.enter();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        atomic::<Item>().run(|conn: &mut H| -> Result<(), Error> {
            insert(conn, 1)?;
            let _late = OnDrop(|| put(2, 20).unwrap());
            panic!("on purpose")
        })
    }));
    assert!(panicked.is_err());
    assert_eq!(fixture.rows("default"), [], "the inner scope joined what was rolled back");
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let _late = OnDrop(|| put(3, 30).unwrap());
        panic!("on purpose")
    }));
    assert!(panicked.is_err());
    assert_eq!(fixture.rows("default"), [(3, 30)]);
    assert_eq!((in_use(&databases, "default"), scope::depth()), (0, 0));
}

#[test]
fn a_value_whose_destructor_panics_never_keeps_the_transaction_open() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.builder(1).build().unwrap();
    let _entered = databases.enter();
    let bomb = || OnDrop(|| panic!("on purpose"));
    let ran = catch_unwind(AssertUnwindSafe(|| {
        atomic::<Item>().run(|conn: &mut H| {
            let _bomb = bomb();
            insert(conn, 1)?;
            Ok::<_, Mishap>(())
        })
    }));
    assert!(ran.is_err());
    put(9, 0).unwrap();
    let ran = catch_unwind(AssertUnwindSafe(|| {
        atomic::<Item>().run(|conn: &mut H| {
            insert(conn, 2)?;
            let _ = insert(conn, 9);
            Ok::<_, Mishap>(bomb())
        })
    }));
    assert!(ran.is_err());
    assert_eq!(fixture.rows("default"), [(9, 0)]);
    assert_eq!((in_use(&databases, "default"), scope::depth()), (0, 0));
}

#[test]
fn a_forgotten_cursor_of_a_scope_makes_ok_an_error_and_costs_the_pool_nothing() {
    if KIND == Kind::Postgres {
        return;
    }
    let Some(fixture) = fixture() else { return };
    let databases = fixture.builder(1).build().unwrap();
    let _entered = databases.enter();
    for _ in 0..3 {
        let run = atomic::<Item>().run(|conn: &mut H| {
            put(1, 10)?;
            let mut reading = items::table.load_iter::<Item, DefaultLoadingMode>(conn)?;
            assert!(reading.next().is_some());
            std::mem::forget(reading);
            Ok::<_, Mishap>(())
        });
        assert!(run.is_err(), "{run:?}");
        assert_eq!(fixture.rows("default"), []);
        assert_eq!(in_use(&databases, "default"), 0);
    }
    put(2, 20).unwrap();
}

#[test]
fn a_cursor_kept_across_the_end_of_an_inner_level_never_makes_a_false_ok() {
    if KIND == Kind::Postgres {
        return;
    }
    let Some(fixture) = fixture() else { return };
    let databases = fixture.databases();
    let _entered = databases.enter();
    for fails in [false, true] {
        let run = atomic::<Item>().run(|_: &mut H| {
            put(1, 10)?;
            let mut kept = connection::<Item, H>()?;
            let query = items::table.order(items::id);
            let mut reading = None;
            let inner = atomic::<Item>().run(|conn: &mut H| {
                insert(conn, 2)?;
                reading = Some(query.load_iter::<Item, DefaultLoadingMode>(&mut kept)?);
                if fails { Err(Mishap::OnPurpose) } else { Ok(()) }
            });
            assert!(inner.is_err());
            drop(reading);
            let _ = put(3, 30);
            Ok::<_, Mishap>(())
        });
        assert!(run.is_err(), "{run:?}");
        assert_eq!(fixture.rows("default"), []);
        assert_eq!(in_use(&databases, "default"), 0);
    }
}

#[test]
fn a_pool_that_runs_out_inside_a_panicking_scope_recovers() {
    let Some(fixture) = fixture() else { return };
    let mut config = multidb::DatabaseConfig::new("default", fixture.urls[0].clone());
    config.pool.max_size = Some(1);
    config.pool.connection_timeout = Some("2s".into());
    let databases = multidb::Databases::builder().database(config).build().unwrap();
    let _entered = databases.enter();
    let ran = catch_unwind(AssertUnwindSafe(|| {
        atomic::<Item>().run(|conn: &mut H| -> Result<(), Mishap> {
            insert(conn, 1)?;
            let _again = OnDrop(|| {
                let apart = atomic::<Item>().propagation(Propagation::RequiresNew);
                assert!(
                    apart
                        .run(|conn: &mut H| {
                            insert(conn, 2)?;
                            Ok::<_, Mishap>(())
                        })
                        .is_err()
                );
            });
            panic!("on purpose")
        })
    }));
    assert!(ran.is_err());
    assert_eq!((in_use(&databases, "default"), scope::depth()), (0, 0));
    put(3, 30).unwrap();
    assert_eq!(fixture.rows("default"), [(3, 30)]);
}

#[test]
fn a_registry_that_ends_in_the_middle_of_its_scope_changes_nothing() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.databases();
    let entered = databases.enter();
    let run = atomic::<Item>().run(|_: &mut H| {
        drop(entered);
        drop(databases);
        put(1, 10)?;
        assert!(matches!(put_and_fail(2), Err(Mishap::OnPurpose)));
        put(3, 30)
    });
    run.unwrap();
    assert_eq!(fixture.rows("default"), [(1, 10), (3, 30)]);
}

#[test]
fn a_handle_of_the_outer_transaction_works_in_the_outer_one_from_inside_an_independent_one() {
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.databases().enter();
    let run = atomic::<Item>().run(|outer: &mut H| {
        insert(outer, 1)?;
        let apart = atomic::<Record>().propagation(Propagation::RequiresNew).run(|_: &mut H| {
            insert(outer, 2)?;
            put_record(5, 50)?;
            assert!(outer.transaction(|_| Ok::<_, Mishap>(())).is_err(), "it is not the innermost");
            Err::<(), _>(Mishap::OnPurpose)
        });
        assert!(matches!(apart, Err(Mishap::OnPurpose)));
        insert(outer, 3)?;
        Ok::<_, Mishap>(())
    });
    run.unwrap();
    assert_eq!(fixture.rows("default"), [(1, 0), (2, 0), (3, 0)]);
    assert_eq!(fixture.rows("other"), []);
}

/// A value whose conversion for the database works on the database.
#[derive(Debug, diesel::expression::AsExpression)]
#[diesel(sql_type = diesel::sql_types::BigInt)]
struct Meddler;

impl diesel::serialize::ToSql<diesel::sql_types::BigInt, <H as Connection>::Backend> for Meddler
where
    i64: diesel::serialize::ToSql<diesel::sql_types::BigInt, <H as Connection>::Backend>,
{
    fn to_sql<'b>(
        &'b self,
        out: &mut diesel::serialize::Output<'b, '_, <H as Connection>::Backend>,
    ) -> diesel::serialize::Result {
        let inner = put(77, 0);
        assert!(matches!(inner, Err(Error::Busy { .. })), "{inner:?}");
        diesel::serialize::ToSql::<diesel::sql_types::BigInt, <H as Connection>::Backend>::to_sql(&5_i64, out)
    }
}

#[test]
fn a_function_called_while_a_statement_is_made_is_refused_and_leaves_no_level() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.databases();
    let _entered = databases.enter();
    let run = atomic::<Item>().run(|conn: &mut H| {
        insert(conn, 1)?;
        diesel::insert_into(items::table).values((items::id.eq(Meddler), items::value.eq(0))).execute(conn)?;
        assert_eq!(scope::depth(), 1);
        insert(conn, 2)?;
        Ok::<_, Mishap>(())
    });
    run.unwrap();
    assert_eq!(fixture.rows("default"), [(1, 0), (2, 0), (5, 0)]);
    assert_eq!(in_use(&databases, "default"), 0);
}
