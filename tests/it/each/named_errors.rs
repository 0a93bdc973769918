//! Errors of a database: they have its name and their class, and stay what the database has reported.

use std::time::Duration;

use diesel::connection::{DefaultLoadingMode, SimpleConnection};
use diesel::prelude::*;
use diesel::result::{DatabaseErrorKind, Error as DieselError};
use diesel::sql_types::BigInt;
use multidb::{Error, FailureClass, atomic, connection_on};

use super::*;
use crate::fixture::Kind;

#[derive(Debug, QueryableByName)]
struct Id {
    #[diesel(sql_type = BigInt)]
    #[expect(dead_code, reason = "never given")]
    id: i64,
}

fn insert(conn: &mut H, id: i64) -> Result<(), DieselError> {
    diesel::insert_into(items::table).values((items::id.eq(id), items::value.eq(0))).execute(conn).map(drop)
}

type Statement = fn(&mut H) -> Result<(), DieselError>;

/// Statements that the database refuses, each in another way of Diesel's.
const REFUSED: [(&str, Statement); 6] = [
    ("execute", |conn| insert(conn, 1)),
    ("batch", |conn| conn.batch_execute("INSERT INTO items VALUES (1, 10)")),
    ("sql_query", |conn| diesel::sql_query("INSERT INTO items VALUES (1, 10)").execute(conn).map(drop)),
    ("load", |conn| diesel::sql_query("SELECT id FROM missing").load::<Id>(conn).map(drop)),
    ("first", |conn| diesel::sql_query("SELECT id FROM missing").get_result::<Id>(conn).map(drop)),
    ("iterate", |conn| {
        let query = diesel::sql_query("SELECT id FROM missing");
        query.load_iter::<Id, DefaultLoadingMode>(conn)?.try_for_each(|row| row.map(drop))
    }),
];

#[test]
fn an_error_that_a_database_has_reported_names_it_and_keeps_its_words() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.databases();
    let _entered = databases.enter();
    put(1, 10).unwrap();
    put_record(1, 10).unwrap();
    for alias in ["default", "other"] {
        let raw = &mut fixture.observer(alias);
        for (way, refused) in REFUSED {
            let conn = &mut connection_on::<H>(alias).unwrap();
            let alone = refused(conn).unwrap_err();
            let DieselError::DatabaseError(kind, reported) = &alone else { panic!("{way}: {alone}") };
            // Diesel's own error stays the server's.
            assert!(!reported.message().contains(alias), "{way}: {}", reported.message());
            // Diesel gives a text no kind on MySQL.
            let unique = ["execute", "sql_query"].contains(&way) || way == "batch" && KIND != Kind::Mysql;
            assert_eq!(matches!(kind, DatabaseErrorKind::UniqueViolation), unique, "{way}: {kind:?}");
            let words = reported.message().to_owned();
            let error = Error::from(alone);
            assert_eq!(error.to_string(), format!("database `{alias}`: {words}"), "{way}");
            let source = std::error::Error::source(&error).unwrap();
            assert_eq!(source.to_string(), words, "{way}");
            // The same in a scope, and in the error of the doom.
            let run = multidb::atomic_on(alias).run(|conn: &mut H| {
                let error = Error::from(refused(conn).unwrap_err());
                assert_eq!(error.to_string(), format!("database `{alias}`: {words}"), "{way}");
                Ok::<_, Error>(())
            });
            let Err(Error::Doomed { first, .. }) = &run else { panic!("{way}: {run:?}") };
            assert_eq!(
                (first.database().map(multidb::Alias::as_str), first.message()),
                (Some(alias), &*words),
                "{way}"
            );
            let text = run.unwrap_err().to_string();
            assert!(text.contains(&format!("database `{alias}`: {words}")), "{way}: {text}");
        }
        raw.batch_execute("SELECT 1").unwrap();
    }
}

#[test]
fn a_commit_that_the_database_refuses_names_it() {
    let Some(fixture) = fixture().filter(|_| KIND != Kind::Mysql) else { return };
    let _entered = fixture.databases().enter();
    fixture
        .observer("default")
        .batch_execute(
            "CREATE TABLE children (id BIGINT PRIMARY KEY, parent BIGINT NOT NULL REFERENCES items (id) DEFERRABLE INITIALLY \
             DEFERRED)",
        )
        .unwrap();
    let run =
        atomic::<Item>().run(|conn: &mut H| Ok::<_, Error>(conn.batch_execute("INSERT INTO children VALUES (1, 7)")?));
    let error = run.unwrap_err();
    assert!(error.to_string().contains("database `default`"), "{error}");
    assert_eq!(error.class(), Some(FailureClass::Constraint), "{error:?}");
    assert!(!error.is_timeout() && !error.is_retryable());
}

#[test]
fn each_limit_of_time_is_a_timeout() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.builder(1).build().unwrap();
    let _entered = databases.enter();
    let late = atomic::<Item>().timeout(Duration::from_nanos(1)).run(|_: &mut H| put(1, 10)).unwrap_err();
    assert_eq!(late.class(), Some(FailureClass::Timeout), "{late}");
    assert!(late.is_timeout() && !late.is_in_doubt(), "{late}");
    let exhausted = atomic::<Item>().run(|_: &mut H| {
        put(2, 20)?;
        atomic::<Item>().propagation(multidb::Propagation::RequiresNew).run(|conn: &mut H| Ok(insert(conn, 3)?))
    });
    let exhausted = exhausted.unwrap_err();
    let expected = matches!(exhausted, Error::PoolExhausted { .. }) || KIND == Kind::Sqlite;
    assert!(expected, "{exhausted}");
    assert_eq!(exhausted.is_timeout(), KIND != Kind::Sqlite, "{exhausted}");
    assert_eq!(fixture.rows("default"), []);
}

#[test]
fn a_statement_with_too_many_values_fails_alone() {
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.databases().enter();
    let many: Vec<_> = (10..75_000).map(|id| (items::id.eq(id), items::value.eq(0))).collect();
    let run = atomic::<Item>().run(|_: &mut H| {
        put(1, 10)?;
        let inner = atomic::<Item>().run(|conn: &mut H| {
            diesel::insert_into(items::table).values(&many).execute(conn)?;
            Ok::<_, Error>(())
        });
        let error = inner.unwrap_err();
        assert_eq!(error.class(), Some(FailureClass::Other), "{error}");
        assert!(!error.is_retryable(), "{error}");
        put(2, 20)
    });
    run.unwrap();
    assert_eq!(fixture.rows("default"), [(1, 10), (2, 20)]);
}
