//! Raw texts that a guard could be misled by: what the server has done decides.

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use multidb::{Error, atomic, connection, connection_on};

use super::*;
use crate::fixture::Kind;

/// A table with columns that are keywords.
fn with_events(fixture: &Fixture) {
    let table = match KIND {
        Kind::Mysql => "CREATE TABLE events (id BIGINT, `begin` BIGINT, `end` BIGINT)",
        Kind::Postgres | Kind::Sqlite => "CREATE TABLE events (id BIGINT, begin BIGINT, \"end\" BIGINT)",
    };
    fixture.observer("default").batch_execute(table).unwrap();
}

fn insert_event() -> &'static str {
    match KIND {
        Kind::Mysql => "INSERT INTO events (id, begin, `end`) VALUES (1, 2, 3)",
        Kind::Postgres | Kind::Sqlite => "INSERT INTO events (id, begin, \"end\") VALUES (1, 2, 3)",
    }
}

#[derive(QueryableByName)]
struct Count {
    #[diesel(sql_type = diesel::sql_types::BigInt)]
    n: i64,
}

fn events(fixture: &Fixture) -> i64 {
    let counted = diesel::sql_query("SELECT COUNT(*) AS n FROM events");
    counted.get_result::<Count>(&mut fixture.observer("default")).unwrap().n
}

#[test]
fn a_column_named_begin_hides_no_commit() {
    let Some(fixture) = fixture() else { return };
    with_events(&fixture);
    let _entered = fixture.databases().enter();
    let text = format!("{}; COMMIT; BEGIN", insert_event());
    let run = atomic::<Item>().run(|conn: &mut H| {
        put(1, 10)?;
        let refused = conn.batch_execute(&text).map_err(Error::from);
        assert!(matches!(refused, Err(Error::TransactionControl { .. })), "{refused:?}");
        Err::<(), _>(Mishap::OnPurpose)
    });
    assert!(matches!(run, Err(Mishap::OnPurpose)), "{run:?}");
    assert_eq!((events(&fixture), fixture.rows("default")), (0, vec![]));
}

#[test]
fn a_correct_script_over_a_column_named_begin_runs_in_autocommit() {
    let Some(fixture) = fixture() else { return };
    with_events(&fixture);
    let _entered = fixture.builder(1).build().unwrap().enter();
    let mut conn = connection::<Item, H>().unwrap();
    conn.batch_execute(&format!("BEGIN; {}; COMMIT", insert_event())).unwrap();
    assert_eq!(events(&fixture), 1);
    put(1, 10).unwrap();
    assert_eq!(fixture.rows("default"), [(1, 10)]);
}

#[test]
#[cfg(feature = "testing")]
fn a_commit_after_an_alias_named_begin_reaches_nothing_in_a_rolled_back_test() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.databases();
    {
        let _test = multidb::testing::rolled_back(&databases).unwrap();
        for inside in [true, false] {
            let text = "INSERT INTO items VALUES (1, 10); SELECT 1 AS begin; COMMIT";
            let ran = if inside {
                atomic::<Item>().run(|conn: &mut H| Ok::<_, Error>(conn.batch_execute(text)?))
            } else {
                connection::<Item, H>().unwrap().batch_execute(text).map_err(Error::from)
            };
            assert!(ran.is_err(), "{ran:?}");
        }
    }
    assert_eq!(fixture.rows("default"), []);
}

#[test]
fn a_chained_commit_loses_no_later_row() {
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.builder(1).build().unwrap().enter();
    for (id, end) in [(1, "COMMIT AND CHAIN"), (2, "ROLLBACK AND CHAIN"), (3, "COMMIT WORK AND CHAIN")] {
        let mut conn = connection_on::<H>("default").unwrap();
        let text = format!("BEGIN; INSERT INTO items VALUES ({}, 0); {end}", 100 + id);
        let chained = conn.batch_execute(&text);
        assert!(chained.is_err(), "{end}");
        put(id, 10).unwrap();
        diesel::insert_into(items::table)
            .values((items::id.eq(id + 10), items::value.eq(0)))
            .execute(&mut conn)
            .unwrap();
    }
    let rows = fixture.rows("default");
    let innocent = [1, 2, 3, 11, 12, 13];
    assert!(innocent.iter().all(|id| rows.iter().any(|(row, _)| row == id)), "{rows:?}");
}

#[derive(QueryableByName)]
struct Setting {
    #[diesel(sql_type = diesel::sql_types::Text)]
    s: String,
}

/// A setting of a text goes with its connection, or is taken back.
#[test]
fn a_setting_of_a_raw_text_does_not_reach_the_next_user() {
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.builder(1).build().unwrap().enter();
    let (change, ask) = match KIND {
        Kind::Postgres => {
            ("SET app.tenant = 'a'", "SELECT COALESCE(NULLIF(current_setting('app.tenant', true), ''), '') AS s")
        }
        Kind::Mysql => ("SET @@session.time_zone = '+07:00'", "SELECT REPLACE(@@time_zone, '+00:00', '') AS s"),
        Kind::Sqlite => {
            ("PRAGMA foreign_keys = 0", "SELECT REPLACE(foreign_keys, 1, '') AS s FROM pragma_foreign_keys")
        }
    };
    for way in 0..4 {
        let mut conn = connection::<Item, H>().unwrap();
        match way {
            0 => conn.batch_execute(change).unwrap(),
            1 => drop(diesel::sql_query(change).execute(&mut conn).unwrap()),
            2 => conn.with_raw(|raw: &mut Raw| raw.batch_execute(change).map_err(Error::from)).unwrap(),
            _ if KIND == Kind::Sqlite => {} // it can't be set in a transaction
            _ => atomic::<Item>().run(|conn: &mut H| Ok::<_, Error>(conn.batch_execute(change)?)).unwrap(),
        }
        let found: Setting = diesel::sql_query(ask).get_result(&mut connection::<Item, H>().unwrap()).unwrap();
        assert_eq!(found.s, "", "{way}");
    }
}

#[test]
fn an_instrumentation_set_inside_with_raw_does_not_blind_the_scope() {
    struct Quiet;
    impl diesel::connection::Instrumentation for Quiet {
        fn on_connection_event(&mut self, _: diesel::connection::InstrumentationEvent<'_>) {}
    }
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.databases().enter();
    for text in ["INSERT INTO items VALUES (1, 'x', 'y', 'z')", "COMMIT; BEGIN"] {
        let run = atomic::<Item>().run(|conn: &mut H| {
            put(1, 10)?;
            let _ = conn.with_raw(|raw: &mut Raw| {
                raw.set_instrumentation(Quiet);
                let _ = raw.batch_execute(text);
                Ok::<_, Error>(())
            });
            Ok::<_, Error>(())
        });
        match &run {
            // PostgreSQL answers no question in the transaction that it has aborted.
            Err(Error::ImplicitCommit { .. }) if text.starts_with("COMMIT") || KIND == Kind::Postgres => {}
            Err(Error::Doomed { .. }) if !text.starts_with("COMMIT") => assert_eq!(fixture.rows("default"), []),
            other => panic!("{text}: {other:?}"),
        }
    }
}
