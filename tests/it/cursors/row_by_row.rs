//! PostgreSQL: rows that arrive before their statement has ended, and an error at the end of its transaction.

use diesel::connection::{DefaultLoadingMode, SimpleConnection};
use diesel::pg::PgRowByRowLoadingMode;
use diesel::prelude::*;
use diesel::sql_types::BigInt;
use multidb::{Error, PgConn, atomic, connection};

use crate::postgres::*;

diesel::define_sql_function! { fn sneak(id: BigInt) -> BigInt; }
diesel::table! { children (id) { id -> BigInt, parent -> BigInt, } }

#[derive(QueryableByName)]
struct Returned {
    #[diesel(sql_type = BigInt)]
    #[expect(dead_code, reason = "never read")]
    id: i64,
}

const SET_UP: &str = "CREATE TABLE children (id BIGINT PRIMARY KEY, parent BIGINT REFERENCES items (id) DEFERRABLE \
                      INITIALLY DEFERRED); \
                      CREATE FUNCTION sneak(id BIGINT) RETURNS BIGINT LANGUAGE plpgsql AS $$ BEGIN \
                      IF id < 0 THEN RAISE 'negative'; END IF; INSERT INTO items VALUES (id, 0); RETURN id; END $$; \
                      CREATE FUNCTION nothing() RETURNS SETOF BIGINT LANGUAGE plpgsql AS $$ BEGIN \
                      INSERT INTO children VALUES (4, 99); END $$";

fn set_up() -> Option<Fixture> {
    let fixture = fixture()?;
    fixture.observer("default").batch_execute(SET_UP).unwrap();
    Some(fixture)
}

fn children(fixture: &Fixture) -> Vec<i64> {
    children::table.select(children::id).load(&mut fixture.observer("default")).unwrap()
}

/// The first row of a query, if there is one, and nothing more.
macro_rules! first {
    ($query:expr, $row:ty, $mode:ty, $conn:expr) => {
        $query.load_iter::<$row, $mode>($conn).and_then(|mut rows| rows.next().transpose()).map(|_| ())
    };
}

/// An orphan, whose key fails at the end of its transaction.
fn orphan(conn: &mut PgConn, way: usize) -> QueryResult<()> {
    let insert = diesel::insert_into(children::table).values((children::id.eq(4), children::parent.eq(99)));
    let insert = insert.returning(children::id);
    let text = diesel::sql_query("INSERT INTO children VALUES (4, 99) RETURNING id");
    let none = diesel::sql_query("SELECT * FROM nothing() AS n (id)");
    match way {
        0 => insert.get_result::<i64>(conn).map(|_| ()),
        1 => first!(insert, i64, DefaultLoadingMode, conn),
        2 => first!(insert, i64, PgRowByRowLoadingMode, conn),
        3 => first!(text, Returned, DefaultLoadingMode, conn),
        4 => first!(text, Returned, PgRowByRowLoadingMode, conn),
        5 => first!(none, Returned, DefaultLoadingMode, conn),
        6 => first!(none, Returned, PgRowByRowLoadingMode, conn),
        7 => text.execute(conn).map(|_| ()),
        _ => none.execute(conn).map(|_| ()),
    }
}

#[test]
fn a_deferred_key_that_fails_after_the_last_row_is_an_error() {
    let Some(fixture) = set_up() else { return };
    let databases = fixture.builder(1).build().unwrap();
    let _entered = databases.enter();
    for way in 0..9 {
        let result = orphan(&mut connection::<Item, PgConn>().unwrap(), way);
        assert!(matches!(&result, Err(error) if error.to_string().contains("foreign key")), "{way}: {result:?}");
        assert_eq!(children(&fixture), Vec::<i64>::new());
    }
}

#[test]
fn a_row_whose_statement_fails_later_is_never_given() {
    let Some(fixture) = set_up() else { return };
    let databases = fixture.builder(1).build().unwrap();
    let _entered = databases.enter();
    let failing = |conn: &mut PgConn, way: usize| {
        diesel::table! { ids (id) { id -> BigInt, } }
        let text = diesel::sql_query("SELECT sneak(id) AS id FROM ids ORDER BY id DESC");
        let typed = ids::table.select(sneak(ids::id)).order(ids::id.desc());
        match way {
            0 => first!(text, Returned, PgRowByRowLoadingMode, conn),
            1 => first!(typed, i64, PgRowByRowLoadingMode, conn),
            _ => first!(typed.into_boxed(), i64, PgRowByRowLoadingMode, conn),
        }
    };
    fixture
        .observer("default")
        .batch_execute("CREATE TABLE ids (id BIGINT); INSERT INTO ids VALUES (1), (-1)")
        .unwrap();
    for way in 0..3 {
        let result = failing(&mut connection::<Item, PgConn>().unwrap(), way);
        assert!(result.is_err(), "{way}: {result:?}");
        let run = atomic::<Item>().run(|conn: &mut PgConn| {
            put(9, 90)?;
            let result = failing(conn, way);
            assert!(result.is_err(), "{way}: {result:?}");
            Ok::<_, Error>(())
        });
        assert!(matches!(run, Err(Error::Doomed { .. })), "{way}: {run:?}");
        assert_eq!(fixture.rows("default"), [], "{way}");
    }
}

/// Reads the first row of a proven read whose second row fails.
fn read_one(conn: &mut PgConn) -> Result<(), Error> {
    let inverse = items::table.select(1_i64.into_sql::<BigInt>() / items::value).order(items::id);
    let mut reading = inverse.load_iter::<i64, PgRowByRowLoadingMode>(conn)?;
    assert_eq!(reading.next().expect("a row")?, 1);
    Ok(())
}

#[test]
fn a_read_that_fails_at_an_unread_row_dooms_the_level_of_its_query() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.builder(1).build().unwrap();
    let _entered = databases.enter();
    put(1, 1).unwrap();
    put(2, 0).unwrap();
    let run = atomic::<Item>().run(|conn: &mut PgConn| {
        put(5, 50)?;
        read_one(conn)
    });
    assert!(matches!(run, Err(Error::Doomed { .. })), "{run:?}");
    let run = atomic::<Item>().run(|_: &mut PgConn| {
        put(5, 50)?;
        let inner = atomic::<Item>().run(|conn: &mut PgConn| {
            put(6, 60)?;
            read_one(conn)
        });
        assert!(matches!(inner, Err(Error::Doomed { .. })), "{inner:?}");
        put(7, 70)
    });
    run.unwrap();
    assert_eq!(fixture.rows("default"), [(1, 1), (2, 0), (5, 50), (7, 70)]);
    assert_eq!(in_use(&databases, "default"), 0);
}
