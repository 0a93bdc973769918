//! Foreign keys and migrations on SQLite, and pragmas that it ignores in a transaction.

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sql_types::BigInt;
use diesel_migrations::FileBasedMigrations;
use multidb::{Databases, Error, SqliteConn, atomic, connection};

use crate::sqlite::{Fixture, Item, fixture, put};

const FAMILY: &str = "CREATE TABLE parents (id INTEGER PRIMARY KEY, name TEXT);
    CREATE TABLE children (id INTEGER PRIMARY KEY, parent INTEGER NOT NULL REFERENCES parents (id) ON DELETE CASCADE);
    INSERT INTO parents VALUES (1, 'a'), (2, 'b');
    INSERT INTO children VALUES (10, 1), (20, 2);";
/// As SQLite's documentation changes a table.
const REBUILD: &str = "CREATE TABLE new_parents (id INTEGER PRIMARY KEY, name TEXT NOT NULL);
    INSERT INTO new_parents SELECT id, name FROM parents;
    DROP TABLE parents;
    ALTER TABLE new_parents RENAME TO parents;";

#[derive(QueryableByName)]
struct Number {
    #[diesel(sql_type = BigInt)]
    number: i64,
}

fn number(conn: &mut impl LoadsNumbers, sql: &str) -> i64 {
    conn.number(sql)
}

/// Both kinds of connection.
trait LoadsNumbers {
    fn number(&mut self, sql: &str) -> i64;
}

impl LoadsNumbers for SqliteConnection {
    fn number(&mut self, sql: &str) -> i64 {
        diesel::sql_query(sql).get_result::<Number>(self).unwrap().number
    }
}

impl LoadsNumbers for SqliteConn {
    fn number(&mut self, sql: &str) -> i64 {
        diesel::sql_query(sql).get_result::<Number>(self).unwrap().number
    }
}

const CHILDREN: &str = "SELECT count(*) AS number FROM children";
const ENFORCED: &str = "SELECT foreign_keys AS number FROM pragma_foreign_keys";

/// Runs these migrations; each is given with its name, and whether it runs in a transaction.
fn migrate(databases: &Databases, migrations: &[(&str, &str, bool)]) -> Result<(), Error> {
    let folder = tempfile::tempdir().unwrap();
    for (at, (name, sql, in_transaction)) in migrations.iter().enumerate() {
        let folder = folder.path().join(format!("2026-01-{:02}-000000_{name}", at + 1));
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("up.sql"), sql).unwrap();
        std::fs::write(folder.join("metadata.toml"), format!("run_in_transaction = {in_transaction}")).unwrap();
    }
    databases.migrate("family", FileBasedMigrations::from_path(folder.path()).unwrap()).map(drop)
}

fn only_default(fixture: &Fixture) -> Databases {
    Databases::builder().sqlite("default", &fixture.urls[0]).build().unwrap()
}

#[test]
fn a_migration_that_rebuilds_a_table_keeps_the_rows_that_refer_to_it() {
    let switched = format!("PRAGMA foreign_keys = OFF;\n{REBUILD}\nPRAGMA foreign_keys = ON;");
    for rebuild in [REBUILD, &switched] {
        for beside in [true, false] {
            let fixture = fixture().unwrap();
            let databases = only_default(&fixture);
            let beside = ("beside", "PRAGMA foreign_keys = ON; CREATE TABLE beside (id INTEGER)", beside);
            migrate(&databases, &[("family", FAMILY, true), beside, ("rebuild", rebuild, true)]).unwrap();
            assert_eq!(number(&mut fixture.observer("default"), CHILDREN), 2);
            let _entered = databases.enter();
            assert_eq!(number(&mut connection::<Item, SqliteConn>().unwrap(), ENFORCED), 1);
        }
    }
}

#[test]
fn a_migration_that_breaks_a_foreign_key_is_undone_and_told_of() {
    let fixture = fixture().unwrap();
    let databases = only_default(&fixture);
    migrate(&databases, &[("family", FAMILY, true)]).unwrap();
    let breaks = ("breaks", "DELETE FROM parents WHERE id = 2", true);
    for more in [vec![], vec![("alone", "CREATE TABLE alone (id INTEGER)", false)]] {
        let all: Vec<_> = [("family", FAMILY, true), breaks].into_iter().chain(more).collect();
        let error = migrate(&databases, &all).unwrap_err().to_string();
        for part in ["`default`", "breaks", "`children`", "`parents`", "rowid 20"] {
            assert!(error.contains(part), "{part} is missing in: {error}");
        }
        let parents = "SELECT count(*) AS number FROM parents";
        assert_eq!(number(&mut fixture.observer("default"), parents), 2);
    }
    // What was broken before is not the migration's.
    let orphan = "PRAGMA foreign_keys = OFF; INSERT INTO children VALUES (30, 3)";
    fixture.observer("default").batch_execute(orphan).unwrap();
    migrate(&databases, &[("family", FAMILY, true), ("fits", "DELETE FROM children WHERE id = 10", true)]).unwrap();
}

#[test]
fn a_database_in_memory_has_its_foreign_keys_back_after_migrations() {
    let databases = Databases::builder().sqlite("default", ":memory:").build().unwrap();
    let _entered = databases.enter();
    migrate(&databases, &[("family", FAMILY, true), ("rebuild", REBUILD, true)]).unwrap();
    let mut conn = connection::<Item, SqliteConn>().unwrap();
    assert_eq!((number(&mut conn, CHILDREN), number(&mut conn, ENFORCED)), (2, 1));
    drop(conn);
    let all = [("family", FAMILY, true), ("rebuild", REBUILD, true), ("breaks", "DELETE FROM parents", true)];
    migrate(&databases, &all).unwrap_err();
    let mut conn = connection::<Item, SqliteConn>().unwrap();
    assert_eq!((number(&mut conn, CHILDREN), number(&mut conn, ENFORCED)), (2, 1));
}

#[test]
fn where_foreign_keys_are_not_enforced_migrations_may_break_them() {
    let fixture = fixture().unwrap();
    let mut config = multidb::DatabaseConfig::new("default", fixture.urls[0].clone());
    config.sqlite.foreign_keys = Some(false);
    let databases = Databases::builder().database(config).build().unwrap();
    migrate(&databases, &[("family", FAMILY, true), ("breaks", "DELETE FROM parents", true)]).unwrap();
    assert_eq!(number(&mut fixture.observer("default"), CHILDREN), 2);
}

#[test]
fn a_pragma_that_sqlite_would_ignore_in_a_transaction_is_an_error() {
    let fixture = fixture().unwrap();
    let _entered = fixture.databases().enter();
    let texts = ["PRAGMA foreign_keys = OFF", "pragma main.foreign_keys(0)", "PRAGMA journal_mode = TRUNCATE"];
    for text in texts {
        let run = atomic::<Item>().run(|conn: &mut SqliteConn| {
            put(1, 10)?;
            Ok::<_, Error>(conn.batch_execute(text)?)
        });
        assert!(matches!(run, Err(Error::IneffectivePragma { .. })), "{text}: {run:?}");
        let mut conn = connection::<Item, SqliteConn>().unwrap();
        if !text.contains(';') {
            let run = conn.transaction(|conn| {
                put(1, 10)?;
                Ok::<_, Error>(diesel::sql_query(text).execute(conn).map(drop)?)
            });
            assert!(matches!(run, Err(Error::IneffectivePragma { .. })), "{text}: {run:?}");
        }
        if text.contains("journal_mode") {
            continue;
        }
        let run = conn.batch_execute(&format!("BEGIN; {text}; COMMIT")).map_err(Error::from);
        assert!(matches!(run, Err(Error::IneffectivePragma { .. })), "{text}: {run:?}");
    }
    assert!(fixture.rows("default").is_empty());
    let run = atomic::<Item>().run(|conn: &mut SqliteConn| {
        // What changes nothing, and what does its work.
        for text in ["PRAGMA foreign_keys = ON", "PRAGMA foreign_keys", "PRAGMA defer_foreign_keys = ON"] {
            conn.batch_execute(text)?;
        }
        put(1, 10)
    });
    run.unwrap();
    assert_eq!(fixture.rows("default"), [(1, 10)]);
}
