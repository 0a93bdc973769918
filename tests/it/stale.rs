//! A connection on which an error would come back is not kept.

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use multidb::{Error, atomic, connection};

/// Whether the pool's one connection is another one after `body`.
macro_rules! replaced {
    ($handle:ty, $item:ty, $id:literal, $body:expr) => {{
        let id = || {
            let sql = diesel::dsl::sql::<diesel::sql_types::BigInt>($id);
            diesel::select(sql).get_result::<i64>(&mut connection::<$item, $handle>().unwrap()).unwrap()
        };
        let before = id();
        $body;
        before != id()
    }};
}

#[cfg(feature = "postgres")]
mod postgres {
    use std::io::Write;

    use diesel::deserialize::{self, FromSql, FromSqlRow};
    use diesel::expression::AsExpression;
    use diesel::pg::{Pg, PgValue};
    use diesel::serialize::{self, IsNull, Output, ToSql};
    use multidb::{PgConn, transactional};

    use super::*;
    use crate::postgres::{Fixture, Item, fixture, items, put};

    #[derive(diesel::sql_types::SqlType, diesel::query_builder::QueryId)]
    #[diesel(postgres_type(name = "mood"))]
    pub struct MoodType;

    #[derive(Debug, Clone, Copy, PartialEq, Eq, AsExpression, FromSqlRow)]
    #[diesel(sql_type = MoodType)]
    struct Happy;

    impl ToSql<MoodType, Pg> for Happy {
        fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
            out.write_all(b"happy")?;
            Ok(IsNull::No)
        }
    }

    impl FromSql<MoodType, Pg> for Happy {
        fn from_sql(_: PgValue<'_>) -> deserialize::Result<Self> {
            Ok(Self)
        }
    }

    diesel::table! {
        use diesel::sql_types::{Integer, Text};
        use super::MoodType;
        people (id) { id -> Integer, name -> Text, mood -> MoodType, }
    }

    const TABLE: &str = "CREATE TYPE mood AS ENUM ('happy', 'sad');
        CREATE TABLE people (id INTEGER PRIMARY KEY, name TEXT NOT NULL, mood mood NOT NULL)";

    #[transactional(Item)]
    fn add(#[conn] conn: &mut PgConn, id: i32) -> Result<(), Error> {
        let person = (people::id.eq(id), people::name.eq("a"), people::mood.eq(Happy));
        diesel::insert_into(people::table).values(person).execute(conn)?;
        Ok(())
    }

    #[transactional(Item)]
    fn names(#[conn] conn: &mut PgConn) -> Result<Vec<String>, Error> {
        Ok(people::table.select(people::name).order(people::id).load(conn)?)
    }

    #[transactional(Item)]
    fn moods(#[conn] conn: &mut PgConn) -> Result<Vec<Happy>, Error> {
        Ok(people::table.select(people::mood).filter(people::mood.eq(Happy)).load(conn)?)
    }

    fn with_people() -> Option<(Fixture, multidb::Databases)> {
        let fixture = fixture()?;
        fixture.observer("default").batch_execute(TABLE).unwrap();
        let databases = fixture.builder(1).build().unwrap();
        Some((fixture, databases))
    }

    /// The first call may fail, and the second one must not.
    fn twice<T>(mut call: impl FnMut() -> Result<T, Error>) -> T {
        call().or_else(|_| call()).unwrap()
    }

    #[test]
    fn after_a_type_was_made_anew_the_next_scope_works() {
        let Some((fixture, databases)) = with_people() else { return };
        let _entered = databases.enter();
        add(1).unwrap();
        moods().unwrap();
        for id in 2..5 {
            fixture.observer("default").batch_execute(&format!("DROP TABLE people; DROP TYPE mood; {TABLE}")).unwrap();
            twice(|| add(id));
            assert_eq!(twice(moods), [Happy]);
        }
    }

    #[test]
    fn after_a_column_has_changed_its_type_the_next_scope_works() {
        let Some((fixture, databases)) = with_people() else { return };
        let _entered = databases.enter();
        add(1).unwrap();
        let change = |to: &str| {
            fixture.observer("default").batch_execute(&format!("ALTER TABLE people ALTER name TYPE {to}")).unwrap();
        };
        assert_eq!(names().unwrap(), ["a"]);
        change("VARCHAR(10)");
        let error = names().expect_err("a cached plan").to_string();
        assert!(error.contains("cached plan"), "{error}");
        assert_eq!(names().unwrap(), ["a"]);
        // In autocommit, by Diesel's cursor and by one that reads row by row.
        let query = || people::table.select(people::name);
        let mut conn = connection::<Item, PgConn>().unwrap();
        query().load::<String>(&mut conn).unwrap();
        change("TEXT");
        query().load::<String>(&mut conn).unwrap_err();
        assert_eq!(query().load::<String>(&mut conn).unwrap(), ["a"]);
        change("VARCHAR(10)");
        let row_by_row = |conn: &mut PgConn| {
            let rows = query().load_iter::<String, diesel::pg::PgRowByRowLoadingMode>(conn);
            rows.and_then(Iterator::collect::<QueryResult<Vec<_>>>)
        };
        row_by_row(&mut conn).unwrap_err();
        assert_eq!(row_by_row(&mut conn).unwrap(), ["a"]);
        change("TEXT");
        let in_scope = || atomic::<Item>().run(|conn: &mut PgConn| Ok::<_, Error>(row_by_row(conn)?));
        in_scope().unwrap_err();
        assert_eq!(in_scope().unwrap(), ["a"]);
        change("VARCHAR(10)");
        let raw = || connection::<Item, PgConn>()?.with_raw(|raw| Ok::<_, Error>(query().load::<String>(raw)?));
        raw().unwrap_err();
        assert_eq!(raw().unwrap(), ["a"]);
        // A level that is undone saves the scope, and not the connection.
        names().unwrap();
        change("TEXT");
        let run = atomic::<Item>().run(|_: &mut PgConn| {
            names().unwrap_err();
            Ok::<_, Error>(())
        });
        run.unwrap();
        assert_eq!(names().unwrap(), ["a"]);
    }

    #[test]
    fn after_its_statements_were_forgotten_the_next_scope_works() {
        let Some((_fixture, databases)) = with_people() else { return };
        let _entered = databases.enter();
        add(1).unwrap();
        names().unwrap();
        let forget = "DO $$ BEGIN EXECUTE 'DEALLOCATE ALL'; END $$";
        connection::<Item, PgConn>().unwrap().batch_execute(forget).unwrap();
        assert_eq!(twice(names), ["a"]);
    }

    #[test]
    fn a_connection_whose_server_takes_no_writes_is_replaced() {
        let Some((fixture, databases)) = with_people() else { return };
        let _entered = databases.enter();
        let replaced = replaced!(PgConn, Item, "pg_backend_pid()::bigint", {
            // As a primary that has become a standby answers.
            let demoted = "DO $$ BEGIN RAISE EXCEPTION 'cannot execute INSERT in a read-only transaction' USING ERRCODE = \
                           '25006'; END $$";
            let run = atomic::<Item>().run(|conn: &mut PgConn| Ok::<_, Error>(conn.batch_execute(demoted)?));
            run.unwrap_err();
            put(1, 10).unwrap();
        });
        assert!(replaced);
        assert_eq!(fixture.rows("default"), [(1, 10)]);
    }

    #[test]
    fn a_scope_that_is_read_only_by_itself_keeps_its_connection() {
        let Some((_fixture, databases)) = with_people() else { return };
        let _entered = databases.enter();
        let writes = |conn: &mut PgConn| -> Result<(), Error> {
            Ok(diesel::sql_query("INSERT INTO items VALUES (1, 1)").execute(conn).map(drop)?)
        };
        let replaced = replaced!(PgConn, Item, "pg_backend_pid()::bigint", {
            atomic::<Item>().read_only().run(writes).unwrap_err();
            let run = atomic::<Item>().run(|_: &mut PgConn| {
                put(2, 20)?;
                atomic::<Item>().read_only().run(writes).unwrap_err();
                Ok::<_, Error>(())
            });
            run.unwrap();
        });
        assert!(!replaced);
        assert_eq!(items::table.count().get_result(&mut connection::<Item, PgConn>().unwrap()), Ok(1_i64));
    }
}

#[cfg(feature = "mysql")]
mod mysql {
    use multidb::MysqlConn;

    use super::*;
    use crate::mysql::{Item, fixture};

    #[test]
    fn a_connection_whose_mariadb_says_read_only_is_replaced() {
        let Some(fixture) = fixture() else { return };
        let _entered = fixture.builder(1).build().unwrap().enter();
        for (number, text, expected) in [
            (
                1290,
                "The MariaDB server is running with the --read-only option so it cannot execute this statement",
                true,
            ),
            (1243, "Unknown prepared statement handler (5) given to mysqld_stmt_execute", true),
            (1644, "the account is read-only", false),
        ] {
            let signal = format!("SIGNAL SQLSTATE 'HY000' SET MYSQL_ERRNO = {number}, MESSAGE_TEXT = '{text}'");
            let replaced = replaced!(MysqlConn, Item, "CAST(CONNECTION_ID() AS SIGNED)", {
                let run = atomic::<Item>().run(|conn: &mut MysqlConn| Ok::<_, Error>(conn.batch_execute(&signal)?));
                run.unwrap_err();
            });
            assert_eq!(replaced, expected, "{text}");
        }
    }
}
