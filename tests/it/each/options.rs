//! What a scope asks of its database beyond a plain transaction.

use std::sync::Mutex;
use std::time::Duration;

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sql_types::Text;
use multidb::{
    Access, Atomic, Error, FailureClass, Isolation, Propagation, Route, RouteRequest, Router, atomic, atomic_on,
    connection, scope,
};

use super::*;
use crate::fixture::Kind;

/// One option of a scope.
type Set = fn(Atomic) -> Atomic;

/// Long enough never to pass in a test.
const LONG: Duration = Duration::from_secs(1_000);

#[derive(QueryableByName)]
struct Setting {
    #[diesel(sql_type = Text)]
    value: String,
}

/// What the session says of itself.
fn ask(conn: &mut H, sql: &str) -> String {
    diesel::sql_query(sql).get_result::<Setting>(conn).unwrap().value
}

/// How the session names the limits of a statement and whether it may write: what a scope must leave as it was.
fn limits(conn: &mut H) -> String {
    ask(
        conn,
        match KIND {
            Kind::Postgres => {
                "SELECT current_setting('statement_timeout') || ' ' || current_setting('transaction_read_only') AS value"
            }
            Kind::Mysql => {
                "SELECT CONCAT_WS(' ', @@max_statement_time, @@innodb_lock_wait_timeout, @@lock_wait_timeout) AS value"
            }
            Kind::Sqlite => {
                "SELECT CAST(timeout AS TEXT) || ' ' || query_only AS value FROM pragma_busy_timeout, pragma_query_only"
            }
        },
    )
}

fn insert_raw(conn: &mut H, id: i64) -> Result<(), Mishap> {
    conn.batch_execute(&format!("INSERT INTO items (id, value) VALUES ({id}, 0)"))?;
    Ok(())
}

fn count(conn: &mut H) -> Result<i64, Mishap> {
    Ok(items::table.count().get_result(conn)?)
}

fn is_read_only(result: &Result<(), Mishap>) -> bool {
    match result {
        Err(Mishap::Database(error)) => matches!(error, Error::ReadOnly { .. }),
        _ => false,
    }
}

/// A write through Diesel's own statements.
fn insert(conn: &mut H, id: i64) -> Result<(), Mishap> {
    let done = diesel::insert_into(items::table).values((items::id.eq(id), items::value.eq(0))).execute(conn);
    done.map_err(Error::from)?;
    Ok(())
}

/// The isolation level of the open transaction, by what it does with row 1.
fn level(fixture: &Fixture, conn: &mut H) -> String {
    match KIND {
        Kind::Postgres => return ask(conn, "SELECT current_setting('transaction_isolation') AS value"),
        // It knows one level only.
        Kind::Sqlite => return "serializable".into(),
        Kind::Mysql => {}
    }
    let read = |conn: &mut H| items::table.find(1).select(items::value).get_result::<i64>(conn).unwrap();
    let before = read(conn);
    let observer = &mut fixture.observer("default");
    // Only a serializable transaction locks what it reads.
    if observer.batch_execute("SELECT id FROM items WHERE id = 1 FOR UPDATE NOWAIT").is_err() {
        return "serializable".into();
    }
    observer.batch_execute("UPDATE items SET value = value + 1 WHERE id = 1").unwrap();
    if read(conn) == before { "repeatable read".into() } else { "read committed".into() }
}

#[test]
fn the_server_knows_the_isolation_level_of_this_transaction_alone() {
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.builder(1).build().unwrap().enter();
    put(1, 0).unwrap();
    let plain = || atomic::<Item>().run(|conn: &mut H| Ok::<_, Mishap>(level(&fixture, conn))).unwrap();
    let before = plain();
    for (isolation, expected) in [
        (Isolation::ReadCommitted, "read committed"),
        (Isolation::RepeatableRead, "repeatable read"),
        (Isolation::Serializable, "serializable"),
    ] {
        let expected = if KIND == Kind::Sqlite { "serializable" } else { expected };
        let run = atomic::<Item>().isolation(isolation).run(|conn: &mut H| Ok::<_, Mishap>(level(&fixture, conn)));
        assert_eq!(run.unwrap(), expected);
        assert_eq!(plain(), before);
    }
}

#[test]
fn a_read_only_scope_refuses_a_write_and_is_then_doomed() {
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.databases().enter();
    put(1, 10).unwrap();
    let run = atomic::<Item>().read_only().run(|conn: &mut H| {
        assert_eq!(count(conn)?, 1);
        let refused = insert(conn, 2);
        assert!(is_read_only(&refused), "{refused:?}");
        assert!(refused.unwrap_err().to_string().contains("read-only"));
        Ok::<_, Mishap>(())
    });
    assert!(matches!(run, Err(Mishap::Database(Error::Doomed { .. }))), "{run:?}");
    assert_eq!(fixture.rows("default"), [(1, 10)]);
}

#[test]
fn what_the_library_can_not_see_through_is_refused_by_the_database() {
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.databases().enter();
    for swallowed in [true, false] {
        let run = atomic::<Item>().read_only().run(|conn: &mut H| {
            let refused = insert_raw(conn, 2);
            assert!(matches!(refused, Err(Mishap::Query(diesel::result::Error::DatabaseError(..)))), "{refused:?}");
            if swallowed { Ok(()) } else { refused }
        });
        assert!(run.is_err());
        let run = atomic::<Item>().read_only().run(|conn: &mut H| {
            let refused: Result<(), Mishap> = conn.with_raw(|raw| {
                raw.batch_execute("INSERT INTO items (id, value) VALUES (3, 0)").map_err(Mishap::Query)
            });
            if swallowed { Ok(()) } else { refused }
        });
        assert!(run.is_err());
    }
    assert_eq!(fixture.rows("default"), []);
}

#[test]
fn raw_reads_are_allowed_in_a_read_only_scope() {
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.databases().enter();
    put(1, 10).unwrap();
    let value = atomic::<Item>().read_only().run(|conn: &mut H| {
        let text = ask(conn, "SELECT 'x' AS value");
        Ok::<_, Mishap>((text, count(conn)?))
    });
    assert_eq!(value.unwrap(), ("x".to_owned(), 1));
}

#[test]
fn the_connection_of_a_scope_with_limits_comes_back_without_them() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.builder(1).build().unwrap();
    let _entered = databases.enter();
    let before = atomic::<Item>().run(|conn: &mut H| count(conn).map(|_| limits(conn))).unwrap();
    for fails in [false, true] {
        let limited = || atomic::<Item>().read_only().timeout(LONG);
        let run = limited().run(|conn: &mut H| {
            count(conn)?;
            assert_ne!(limits(conn), before);
            if fails { Err(Mishap::OnPurpose) } else { Ok(()) }
        });
        assert_eq!(run.is_err(), fails, "{run:?}");
        let nested = atomic::<Item>().run(|conn: &mut H| {
            count(conn)?;
            let level = limited().run(|conn: &mut H| {
                count(conn)?;
                if fails { Err(Mishap::OnPurpose) } else { Ok(()) }
            });
            assert_eq!(level.is_err(), fails, "{level:?}");
            Ok::<_, Mishap>(())
        });
        nested.unwrap();
        let mut conn = connection::<Item, H>().unwrap();
        assert_eq!(limits(&mut conn), before);
        put(if fails { 1 } else { 2 }, 0).unwrap();
    }
    assert_eq!(databases.database("default").unwrap().pool_state().connections, 1);
    assert_eq!(fixture.rows("default"), [(1, 0), (2, 0)]);
}

#[test]
fn a_read_only_level_ends_before_the_next_statement_of_its_transaction() {
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.databases().enter();
    let (mut id, mut kept) = (0, Vec::new());
    for first in [true, false] {
        for fails in [false, true] {
            let mut next = || {
                id += 1;
                kept.push((id, 0));
                id
            };
            let (before, after) = (next(), next());
            let run = atomic::<Item>().run(|conn: &mut H| {
                if first {
                    insert(conn, before)?;
                }
                let level = atomic::<Item>().read_only().run(|conn: &mut H| {
                    count(conn)?;
                    let refused = if fails { insert(conn, 1_000) } else { Ok(()) };
                    assert_eq!(is_read_only(&refused), fails, "{refused:?}");
                    refused
                });
                assert_eq!(level.is_err(), fails, "{level:?}");
                if !first {
                    insert(conn, before)?;
                }
                insert_raw(conn, after)
            });
            run.unwrap();
        }
    }
    assert_eq!(fixture.rows("default"), kept);
}

#[test]
fn a_read_only_level_keeps_raw_writes_out() {
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.databases().enter();
    let run = atomic::<Item>().run(|conn: &mut H| {
        insert(conn, 1)?;
        for propagation in [Propagation::Nested, Propagation::Join] {
            let nested = atomic::<Item>().run(|_: &mut H| {
                atomic::<Item>().read_only().propagation(propagation).run(|conn: &mut H| {
                    insert_raw(conn, 2).unwrap_err();
                    Ok::<_, Mishap>(())
                })
            });
            assert!(matches!(nested, Err(Mishap::Database(Error::Doomed { .. }))), "{propagation:?}: {nested:?}");
        }
        insert(conn, 3)
    });
    run.unwrap();
    assert_eq!(fixture.rows("default"), [(1, 0), (3, 0)]);
}

#[test]
fn a_write_scope_in_a_read_only_one_is_a_conflict_that_shows_both() {
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.databases().enter();
    let run = atomic::<Item>().read_only().run(|_: &mut H| {
        let error = put(1, 10).unwrap_err();
        let Error::OptionConflict { outer, inner, .. } = &error else { panic!("{error}") };
        assert!(outer.contains("`read_only` of `atomic`") && inner.contains("no `read_only` of `put`"), "{error}");
        // Nor in a read-only level of a transaction that may write.
        Ok::<_, Mishap>(())
    });
    run.unwrap();
    let run = atomic::<Item>().run(|_: &mut H| {
        put(2, 20)?;
        atomic::<Item>().read_only().run(|_: &mut H| {
            assert!(matches!(put(3, 30), Err(Error::OptionConflict { .. })));
            atomic::<Item>().read_only().run(|conn: &mut H| count(conn))
        })
    });
    assert_eq!(run.unwrap(), 1);
    assert_eq!(fixture.rows("default"), [(2, 20)]);
}

#[test]
fn a_stricter_isolation_level_inside_is_a_conflict() {
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.databases().enter();
    let inner = |level| atomic::<Item>().isolation(level).run(|_: &mut H| Ok::<_, Error>(()));
    let run = atomic::<Item>().run(|_: &mut H| {
        inner(Isolation::ReadCommitted)?;
        let error = inner(Isolation::Serializable).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("isolation = serializable") && text.contains("requires_new"), "{text}");
        Ok::<_, Error>(())
    });
    run.unwrap();
    let outer = atomic::<Item>().isolation(Isolation::Serializable);
    outer.run(|_: &mut H| inner(Isolation::Serializable).and(inner(Isolation::ReadCommitted))).unwrap();
}

#[test]
fn a_scope_in_autocommit_can_have_none_of_these_options() {
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.databases().enter();
    for propagation in [Propagation::Supports, Propagation::Never, Propagation::NotSupported] {
        let options: [Set; 3] =
            [|scope| scope.read_only(), |scope| scope.isolation(Isolation::Serializable), |scope| scope.timeout(LONG)];
        for option in options {
            let run = option(atomic::<Item>().propagation(propagation)).run(|_: &mut H| -> Result<(), Error> {
                panic!("must not run");
            });
            assert!(matches!(run, Err(Error::OptionConflict { .. })), "{propagation:?}: {run:?}");
        }
    }
}

#[test]
fn what_a_database_can_not_enforce_is_refused_before_anything_is_sent() {
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.databases().enter();
    let options: [(&str, Set); 3] = [
        ("deferrable", |scope| scope.deferrable()),
        ("immediate", |scope| scope.immediate()),
        ("exclusive", |scope| scope.exclusive()),
    ];
    for (name, option) in options {
        let fits = match KIND {
            Kind::Postgres => name == "deferrable",
            Kind::Sqlite => name != "deferrable",
            Kind::Mysql => false,
        };
        let run = option(atomic_on("default")).run(|conn: &mut H| count(conn));
        match run {
            Ok(_) => assert!(fits, "{name}"),
            Err(Mishap::Database(Error::Unsupported { option, database, .. })) => {
                assert!(!fits && option == name && database == "default", "{name}");
            }
            Err(other) => panic!("{other}"),
        }
    }
}

#[test]
fn a_scope_whose_time_is_over_sends_and_commits_nothing_more() {
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.databases().enter();
    let over = Duration::from_nanos(1);
    let run = atomic::<Item>().timeout(over).run(|_: &mut H| put(1, 10));
    let Err(Error::Doomed { first, function, .. }) = &run else { panic!("{run:?}") };
    assert_eq!((first.class(), *function), (FailureClass::Timeout, "put"));
    let text = run.unwrap_err().to_string();
    assert!(text.contains("`atomic`") && text.contains("raise `timeout`"), "{text}");

    // A statement of the scope itself is not sent.
    let run = atomic::<Item>().timeout(over).run(|conn: &mut H| {
        let refused = count(conn);
        assert!(matches!(refused, Err(Mishap::Query(diesel::result::Error::QueryBuilderError(_)))), "{refused:?}");
        Err::<(), _>(Mishap::OnPurpose)
    });
    assert!(matches!(run, Err(Mishap::OnPurpose)));

    // Over before COMMIT, after the last statement.
    let run = atomic::<Item>().timeout(over).run(|_: &mut H| Ok::<_, Error>(()));
    assert!(matches!(run, Err(Error::Doomed { .. })), "{run:?}");
    assert_eq!(fixture.rows("default"), []);
}

#[test]
fn a_level_whose_time_is_over_is_undone_and_its_transaction_goes_on() {
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.databases().enter();
    let run = atomic::<Item>().run(|_: &mut H| {
        put(1, 10)?;
        let level = atomic::<Item>().timeout(Duration::from_nanos(1)).run(|_: &mut H| put(2, 20));
        assert!(matches!(level, Err(Error::Doomed { .. })), "{level:?}");
        put(3, 30)
    });
    run.unwrap();
    assert_eq!(fixture.rows("default"), [(1, 10), (3, 30)]);
}

#[test]
fn a_longer_timeout_inside_is_a_conflict_and_a_shorter_one_holds_for_its_level() {
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.databases().enter();
    let run = atomic::<Item>().timeout(LONG).run(|conn: &mut H| {
        count(conn)?;
        let outer = limits(conn);
        let longer = atomic::<Item>().timeout(LONG * 2).run(|_: &mut H| Ok::<_, Error>(()));
        assert!(matches!(longer, Err(Error::OptionConflict { .. })), "{longer:?}");
        for fails in [false, true] {
            let level = atomic::<Item>().timeout(LONG / 2).run(|conn: &mut H| {
                count(conn)?;
                // On SQLite a timeout is one of lock waits, and the lock is taken.
                assert_eq!(limits(conn) == outer, KIND == Kind::Sqlite);
                if fails { Err(Mishap::OnPurpose) } else { Ok(()) }
            });
            assert_eq!(level.is_err(), fails, "{level:?}");
            assert_eq!(limits(conn), outer);
        }
        Ok::<_, Mishap>(())
    });
    run.unwrap();
}

#[test]
fn the_server_ends_a_statement_that_takes_longer_than_the_timeout() {
    let Some(fixture) = fixture() else { return };
    let sleep = match KIND {
        Kind::Postgres => "SELECT pg_sleep(600)::text AS value",
        Kind::Mysql => "SELECT CAST(SLEEP(600) AS CHAR) AS value",
        Kind::Sqlite => return,
    };
    let databases = fixture.databases();
    let _entered = databases.enter();
    // The time includes the opening of a connection.
    put(9, 90).unwrap();
    let run = atomic::<Item>().timeout(Duration::from_secs(2)).run(|conn: &mut H| {
        insert(conn, 1)?;
        let ended = diesel::sql_query(sleep).get_result::<Setting>(conn);
        assert!(ended.is_err());
        Ok::<_, Mishap>(())
    });
    let Err(Mishap::Database(Error::Doomed { first, .. })) = &run else { panic!("{run:?}") };
    assert_eq!(first.class(), FailureClass::Timeout, "{first}");
    assert_eq!(fixture.rows("default"), [(9, 90)]);
    assert_eq!(in_use(&databases, "default"), 0);
}

/// Sends reads to `other`, and notes what it was asked.
struct Replica(Mutex<Vec<(Access, bool)>>);

impl Router for Replica {
    fn select_db(&self, request: &RouteRequest<'_>) -> Route {
        self.0.lock().unwrap().push((request.access(), request.in_scope()));
        match request.access() {
            Access::Read => Route::to("other"),
            Access::Write => Route::to("default"),
        }
    }
}

#[test]
fn a_read_only_scope_is_routed_for_reading_and_what_joins_a_transaction_stays_on_its_connection() {
    let Some(fixture) = fixture() else { return };
    let replica = std::sync::Arc::new(Replica(Mutex::default()));
    let databases = fixture.databases().with_router(std::sync::Arc::clone(&replica));
    let _entered = databases.enter();
    let aliases = atomic::<Item>().read_only().run(|conn: &mut H| {
        let inner = atomic::<Item>().read_only().run(|conn: &mut H| Ok::<_, Error>(conn.alias().clone()))?;
        Ok::<_, Error>([conn.alias().clone(), inner, connection::<Item, H>()?.alias().clone()])
    });
    assert_eq!(aliases.unwrap().map(|alias| alias.to_string()), ["other"; 3]);
    let aliases = atomic::<Item>().run(|conn: &mut H| {
        let inner = atomic::<Item>().read_only().run(|conn: &mut H| Ok::<_, Error>(conn.alias().clone()))?;
        Ok::<_, Error>([conn.alias().clone(), inner])
    });
    assert_eq!(aliases.unwrap().map(|alias| alias.to_string()), ["default"; 2]);
    let asked = replica.0.lock().unwrap().clone();
    let reading = [(Access::Read, false), (Access::Read, true), (Access::Read, true)];
    assert_eq!(asked, [&reading[..], &[(Access::Write, false), (Access::Write, true)]].concat());
}

#[test]
fn pending_work_of_a_read_only_manual_scope_is_none() {
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.databases().enter();
    let run = atomic::<Item>().manual().read_only().run(|conn: &mut H| {
        count(conn)?;
        scope::commit()?;
        count(conn)
    });
    assert_eq!(run.unwrap(), 0);
}

#[test]
fn a_timeout_that_no_clock_can_show_is_never_over() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.databases();
    let _entered = databases.enter();
    let endless = || atomic::<Item>().timeout(Duration::MAX);
    endless().run(|_: &mut H| put(1, 10)).unwrap();
    atomic::<Item>().run(|_: &mut H| endless().run(|_: &mut H| put(2, 20))).unwrap();
    assert_eq!(fixture.rows("default"), [(1, 10), (2, 20)]);
}

#[test]
fn each_conflict_of_options_names_the_scope_that_has_to_change() {
    const BOTH: &str = "declare it on the outer scope too, drop it on the inner one";
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.databases().enter();
    let seconds = Duration::from_secs;
    let within = |outer: &dyn Fn(Atomic) -> Atomic, inner: &dyn Fn(Atomic) -> Atomic| {
        let run = outer(atomic::<Item>()).run(|_: &mut H| {
            let run = inner(atomic::<Item>()).run(|_: &mut H| Ok::<_, Error>(()));
            Ok::<_, Error>(run.unwrap_err())
        });
        let error = run.unwrap();
        let text = error.to_string();
        assert!(matches!(error, Error::OptionConflict { .. }) && text.contains("requires_new"), "{text}");
        text
    };
    let text = within(&|outer| outer.read_only(), &|inner| inner);
    assert!(text.contains("let the inner scope be `read_only` too"), "{text}");
    assert!(text.contains("drop `read_only` on the outer one") && !text.contains(BOTH), "{text}");
    // A level that is read-only has the same rule.
    let text = within(&|outer| outer.read_only().timeout(LONG), &|inner| inner.timeout(LONG));
    assert!(text.contains("drop `read_only` on the outer one"), "{text}");
    let text = within(&|outer| outer.timeout(seconds(50)), &|inner| inner.timeout(seconds(60)));
    assert!(text.contains("raise `timeout` on the outer scope, lower it on the inner one"), "{text}");
    assert!(!text.contains(BOTH), "{text}");
    let text = within(&|outer| outer, &|inner| inner.isolation(Isolation::Serializable));
    assert!(text.contains(BOTH), "{text}");
    let at = |level| move |scope: Atomic| scope.isolation(level);
    let text = within(&at(Isolation::RepeatableRead), &at(Isolation::Serializable));
    assert!(text.contains("give the outer scope the stricter level, drop it on the inner one"), "{text}");
    if KIND == Kind::Postgres {
        let text = within(&|outer| outer.isolation(Isolation::Serializable), &|inner| inner.deferrable());
        assert!(text.contains(BOTH), "{text}");
    }
    if KIND == Kind::Sqlite {
        let text = within(&|outer| outer.immediate(), &|inner| inner.exclusive());
        assert!(text.contains(BOTH), "{text}");
    }
}
