//! MariaDB: rows of a statement that fails later.

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sql_types::BigInt;
use multidb::{Error, MysqlConn, atomic, connection};

use crate::mysql::*;

diesel::define_sql_function! { fn sneak(id: BigInt) -> BigInt; }

#[derive(Debug, QueryableByName)]
struct Returned {
    #[diesel(sql_type = BigInt)]
    #[expect(dead_code, reason = "only shown")]
    id: i64,
}

/// Two rows, of which the second violates the primary key.
const TWICE: &str = "INSERT INTO items (id, value) VALUES (1, 1), (1, 2) RETURNING id";

/// A function that inserts its number, and fails at a negative one.
const SNEAK: &str = "CREATE FUNCTION sneak(id BIGINT) RETURNS BIGINT MODIFIES SQL DATA BEGIN \
                     IF id < 0 THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'negative'; END IF; \
                     INSERT INTO items VALUES (id, 0); RETURN id; END";

fn sneaky() -> Option<Fixture> {
    let fixture = fixture()?;
    fixture.observer("default").batch_execute(SNEAK).unwrap();
    fixture
        .observer("default")
        .batch_execute("CREATE TABLE ids (id BIGINT); INSERT INTO ids VALUES (1), (-1)")
        .unwrap();
    Some(fixture)
}

/// Each way to send what fails at its second row.
fn failing(conn: &mut MysqlConn, way: usize) -> QueryResult<String> {
    diesel::table! { ids (id) { id -> BigInt, } }
    let by_function = ids::table.select(sneak(ids::id)).order(ids::id.desc());
    let by_text = "SELECT sneak(id) AS id FROM ids ORDER BY id DESC";
    match way {
        0 => diesel::sql_query(TWICE).load::<Returned>(conn).map(|rows| format!("{rows:?}")),
        1 => diesel::sql_query(TWICE).execute(conn).map(|count| format!("{count}")),
        2 => by_function.get_result::<i64>(conn).map(|id| format!("{id}")),
        3 => by_function.execute(conn).map(|count| format!("{count}")),
        4 => by_function.into_boxed().get_result::<i64>(conn).map(|id| format!("{id}")),
        5 => diesel::sql_query(by_text).get_result::<Returned>(conn).map(|row| format!("{row:?}")),
        _ => diesel::sql_query(by_text).execute(conn).map(|count| format!("{count}")),
    }
}

#[test]
fn a_row_whose_statement_fails_later_is_never_given() {
    let Some(fixture) = sneaky() else { return };
    let databases = fixture.builder(1).build().unwrap();
    let _entered = databases.enter();
    // The rows of `INSERT .. RETURNING` itself can't be had: MariaDB names no columns when it is prepared, and Diesel asks then.
    let refused = failing(&mut connection::<Item, MysqlConn>().unwrap(), 0);
    assert!(matches!(refused, Err(diesel::result::Error::DeserializationError(_))), "{refused:?}");
    for way in 1..7 {
        let result = failing(&mut connection::<Item, MysqlConn>().unwrap(), way);
        assert!(matches!(result, Err(diesel::result::Error::DatabaseError(..))), "{way}: {result:?}");
        assert_eq!(fixture.rows("default"), [], "{way}");
        let run = atomic::<Item>().run(|conn: &mut MysqlConn| {
            put(9, 90)?;
            let result = failing(conn, way);
            assert!(matches!(result, Err(diesel::result::Error::DatabaseError(..))), "{way}: {result:?}");
            Ok::<_, Error>(())
        });
        assert!(matches!(run, Err(Error::Doomed { .. })), "{way}: {run:?}");
        assert_eq!(fixture.rows("default"), [], "{way}");
    }
}
