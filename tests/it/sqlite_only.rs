//! Claims that only SQLite can meet.

use diesel::connection::{DefaultLoadingMode, LoadConnection, SimpleConnection};
use diesel::prelude::*;
use multidb::{Databases, Error, FailureClass, SqliteConn, atomic, atomic_on, connection, schema};

use crate::sqlite::*;

#[test]
fn returning_and_on_conflict_run_on_the_handle() {
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.databases().enter();
    atomic::<Item>()
        .run(|conn: &mut SqliteConn| {
            let item = Item { id: 1, value: 10 };
            let put: Item = diesel::insert_into(items::table).values(item).get_result(conn)?;
            assert_eq!(put, item);
            for value in [11, 12, 13] {
                let upsert = diesel::insert_into(items::table).values((items::id.eq(1), items::value.eq(value)));
                upsert.on_conflict(items::id).do_update().set(items::value.eq(value)).execute(conn)?;
            }
            let nothing = diesel::insert_into(items::table).values(item).on_conflict_do_nothing().execute(conn)?;
            assert_eq!(nothing, 0);
            Ok::<_, Mishap>(())
        })
        .unwrap();
    assert_eq!(fixture.rows("default"), [(1, 13)]);
}

#[test]
fn the_loading_mode_is_inferred_as_on_the_plain_connection() {
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.databases().enter();
    put(1, 10).unwrap();
    let conn = &mut connection::<Item, SqliteConn>().unwrap();
    let values: i64 = items::table.load_iter::<Item, _>(conn).unwrap().map(|item| item.unwrap().value).sum();
    assert_eq!(values, 10);
}

#[test]
fn a_write_scope_takes_the_write_lock_at_its_first_statement_so_no_upgrade_fails() {
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.databases().enter();
    let mut other = fixture.observer("default");
    atomic::<Item>()
        .run(|conn: &mut SqliteConn| {
            other.batch_execute("INSERT INTO items VALUES (1, 10)").unwrap();
            let seen: i64 = items::table.count().get_result(conn)?;
            assert_eq!(seen, 1);
            let locked = other.batch_execute("INSERT INTO items VALUES (2, 20)");
            assert!(locked.unwrap_err().to_string().contains("locked"));
            put(3, 30).map_err(Mishap::from)
        })
        .unwrap();
    assert_eq!(fixture.rows("default"), [(1, 10), (3, 30)]);
}

#[test]
fn a_locked_file_is_a_retryable_error_and_leaves_a_usable_pool() {
    let Some(fixture) = fixture() else { return };
    let mut config = multidb::DatabaseConfig::new("default", fixture.urls[0].clone());
    config.sqlite.busy_timeout = Some("1ms".into());
    let databases = Databases::builder().database(config).build().unwrap();
    let _entered = databases.enter();
    let mut other = fixture.observer("default");
    other.batch_execute("BEGIN IMMEDIATE").unwrap();
    let error = put(1, 10).unwrap_err();
    assert!(error.is_retryable(), "{error}");
    let swallowed = atomic::<Item>().run(|_: &mut SqliteConn| {
        let _ = put(1, 10);
        Ok::<_, Error>(())
    });
    let Err(Error::Doomed { first, .. }) = swallowed else { panic!("{swallowed:?}") };
    assert_eq!(first.class(), FailureClass::Locked);
    other.batch_execute("COMMIT").unwrap();
    put(2, 20).unwrap();
    assert_eq!(fixture.rows("default"), [(2, 20)]);
}

#[test]
fn a_commit_that_finds_the_file_locked_is_rolled_back_and_retryable() {
    let Some(fixture) = fixture() else { return };
    let mut config = multidb::DatabaseConfig::new("default", fixture.urls[0].clone());
    config.sqlite.busy_timeout = Some("1ms".into());
    let databases = Databases::builder().database(config).build().unwrap();
    let _entered = databases.enter();
    put(1, 10).unwrap();
    let mut reader = fixture.observer("default");
    reader.batch_execute("BEGIN; SELECT * FROM items").unwrap();
    let error = put(2, 20).unwrap_err();
    assert!(error.is_retryable(), "{error}");
    reader.batch_execute("COMMIT").unwrap();
    assert_eq!(fixture.rows("default"), [(1, 10)]);
    let state = databases.database("default").unwrap().pool_state();
    assert_eq!((state.connections, state.idle_connections), (1, 1), "the connection is fit for the pool");
    put(3, 30).unwrap();
}

#[test]
fn a_statement_that_rolls_the_whole_transaction_back_is_never_followed_by_an_autocommit() {
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.databases().enter();
    put(1, 10).unwrap();
    let run = atomic::<Item>().run(|conn: &mut SqliteConn| {
        put(2, 20)?;
        let ended = diesel::sql_query("INSERT OR ROLLBACK INTO items VALUES (1, 99)").execute(conn);
        assert!(ended.is_err());
        assert!(put(3, 30).is_err());
        Ok::<_, Error>(())
    });
    assert!(matches!(run, Err(Error::Doomed { .. })), "{run:?}");
    let nested = atomic::<Item>().run(|_: &mut SqliteConn| {
        put(4, 40)?;
        let inner = atomic::<Item>().run(|conn: &mut SqliteConn| {
            diesel::sql_query("INSERT OR ROLLBACK INTO items VALUES (1, 99)").execute(conn)?;
            Ok::<_, Mishap>(())
        });
        assert!(inner.is_err());
        // The inner level could not be undone alone, so the outer one is doomed as well.
        assert!(matches!(put(5, 50), Err(Error::Doomed { .. })));
        Ok::<_, Error>(())
    });
    assert!(matches!(nested, Err(Error::Doomed { .. })), "{nested:?}");
    assert_eq!(fixture.rows("default"), [(1, 10)]);
}

#[test]
fn an_in_memory_database_is_one_connection_that_is_never_replaced() {
    let databases = Databases::builder().sqlite("default", ":memory:").build().unwrap();
    let _entered = databases.enter();
    connection::<Item, SqliteConn>()
        .unwrap()
        .batch_execute("CREATE TABLE items (id BIGINT PRIMARY KEY, value BIGINT NOT NULL)")
        .unwrap();
    put(1, 10).unwrap();
    assert!(put_and_fail(2).is_err());
    let rows: Vec<Item> = items::table.load(&mut connection::<Item, SqliteConn>().unwrap()).unwrap();
    assert_eq!(rows, [Item { id: 1, value: 10 }]);
    assert_eq!(databases.database("default").unwrap().pool_state().max_size, 1);
    let mut config = multidb::DatabaseConfig::new("default", ":memory:");
    config.pool.max_size = Some(2);
    let text = Databases::builder().database(config).build_lazy().unwrap_err().to_string();
    assert!(text.contains("`default`") && text.contains("pool.max_size"), "{text}");
}

#[test]
fn session_settings_hold_on_every_connection() {
    #[derive(QueryableByName)]
    struct Setting {
        #[diesel(sql_type = diesel::sql_types::Text)]
        journal_mode: String,
    }
    let Some(fixture) = fixture() else { return };
    let toml = format!(
        "[default]\nurl = {:?}\n[default.sqlite]\njournal_mode = \"wal\"\nsynchronous = \"full\"\n",
        fixture.urls[0]
    );
    let _entered = Databases::from_toml(&toml).unwrap().build().unwrap().enter();
    atomic_on("default")
        .run(|conn: &mut SqliteConn| {
            let mode: Vec<Setting> = diesel::sql_query("PRAGMA journal_mode").load(conn)?;
            assert_eq!(mode[0].journal_mode, "wal");
            conn.batch_execute(
                "CREATE TABLE parents (id INTEGER PRIMARY KEY);
                 CREATE TABLE children (parent INTEGER REFERENCES parents (id))",
            )?;
            let orphan = conn.batch_execute("INSERT INTO children VALUES (7)");
            assert!(orphan.unwrap_err().to_string().contains("FOREIGN KEY"));
            Err::<(), _>(Mishap::OnPurpose)
        })
        .unwrap_err();
}

#[test]
fn a_database_that_can_not_be_opened_is_found_at_the_start() {
    let error = Databases::builder().sqlite("orders", "/nonexistent/orders.db").build().unwrap_err();
    assert!(matches!(&error, Error::Pool { database, .. } if *database == "orders"), "{error}");
}

#[test]
fn a_path_that_is_not_utf8_is_refused_and_opens_no_other_file() {
    use std::os::unix::ffi::OsStrExt;
    let path = std::path::Path::new(std::ffi::OsStr::from_bytes(b"/tmp/\xff.db"));
    let text = Databases::builder().sqlite("orders", path).build().unwrap_err().to_string();
    assert!(text.contains("`orders`") && text.contains("UTF-8"), "{text}");
}

#[test]
fn a_cursor_that_fails_inside_an_inner_level_dooms_the_level_of_its_query() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.databases();
    let _entered = databases.enter();
    let before = [(1, 10), (2, 20), (i64::MAX, 20)];
    for (id, value) in before {
        put(id, value).unwrap();
    }
    let run = atomic::<Item>().run(|_: &mut SqliteConn| {
        put(3, 30)?;
        let mut other = connection::<Item, SqliteConn>()?;
        // The second sum is too large.
        let query = items::table.group_by(items::value).order(items::value).select(diesel::dsl::sum(items::id));
        let mut reading = LoadConnection::<DefaultLoadingMode>::load(&mut other, query)?;
        assert!(reading.next().unwrap().is_ok());
        let inner = atomic::<Item>().run(|_: &mut SqliteConn| {
            assert!(reading.next().unwrap().is_err());
            assert!(reading.next().is_none(), "it doesn't begin anew");
            Err::<(), _>(Mishap::OnPurpose)
        });
        assert!(inner.is_err());
        drop(reading);
        assert!(multidb::scope::is_doomed());
        assert!(put(4, 40).is_err());
        Ok::<_, Mishap>(())
    });
    assert!(run.is_err(), "{run:?}");
    assert_eq!(fixture.rows("default"), before);
}

#[test]
fn a_trigger_that_rolls_back_and_a_full_disk_are_never_ok() {
    fn nest(depth: u32, text: &str) -> Result<(), Mishap> {
        atomic::<Item>().run(|conn: &mut SqliteConn| {
            let at = i64::from(depth) * 100;
            put(at, 0)?;
            // It belongs to the connection, which the pool does not keep with it.
            conn.batch_execute("PRAGMA max_page_count = 100")?;
            if depth > 1 {
                let _ = nest(depth - 1, text);
            } else {
                let _ = diesel::sql_query(text).execute(conn);
            }
            let _ = put(at + 1, 0);
            Ok(())
        })
    }
    let Some(fixture) = fixture() else { return };
    let databases = fixture.builder(1).build().unwrap();
    let _entered = databases.enter();
    let mut observer = fixture.observer("default");
    let trigger =
        "CREATE TRIGGER stop BEFORE INSERT ON items WHEN NEW.value = 666 BEGIN SELECT RAISE(ROLLBACK, 'stop'); END";
    observer.batch_execute(trigger).unwrap();
    observer.batch_execute("CREATE TABLE blobs (b BLOB)").unwrap();
    put(1, 10).unwrap();
    for depth in 1..=3 {
        for text in ["INSERT INTO items VALUES (5, 666)", "INSERT INTO blobs VALUES (randomblob(3000000))"] {
            // SQLite has undone the levels around as well, so none of them may be kept.
            let run = nest(depth, text);
            assert!(run.is_err(), "{depth} {text}");
            assert_eq!(fixture.rows("default"), [(1, 10)], "{depth} {text}");
            assert_eq!(in_use(&databases, "default"), 0);
        }
    }
    put(2, 20).unwrap();
    assert_eq!(fixture.rows("default"), [(1, 10), (2, 20)]);
}

#[test]
fn a_database_in_memory_survives_a_statement_that_rolls_everything_back() {
    let _entered = Databases::builder().sqlite("default", ":memory:").build().unwrap().enter();
    let table = "CREATE TABLE items (id BIGINT PRIMARY KEY, value BIGINT NOT NULL)";
    connection::<Item, SqliteConn>().unwrap().batch_execute(table).unwrap();
    put(1, 10).unwrap();
    for depth in 1..=2 {
        let ended = atomic::<Item>().run(|conn: &mut SqliteConn| {
            put(2, 20)?;
            let end = "INSERT OR ROLLBACK INTO items VALUES (1, 99)";
            if depth == 1 {
                diesel::sql_query(end).execute(conn)?;
                return Ok(());
            }
            conn.transaction(|conn| diesel::sql_query(end).execute(conn).map(drop)).map_err(Mishap::from)
        });
        assert!(ended.is_err());
        let rows: Vec<Item> = items::table.load(&mut connection::<Item, SqliteConn>().unwrap()).unwrap();
        assert_eq!(rows, [Item { id: 1, value: 10 }]);
    }
}

#[test]
fn two_aliases_of_one_file_are_one_database() {
    let Some(fixture) = fixture() else { return };
    let link = std::path::Path::new(&fixture.urls[0]).with_file_name("link.db");
    std::fs::hard_link(&fixture.urls[0], &link).unwrap();
    let databases =
        Databases::builder().sqlite("default", &fixture.urls[0]).sqlite("other", link).router(ByApp).build().unwrap();
    let _entered = databases.enter();
    let run = atomic::<Item>().run(|_: &mut SqliteConn| {
        put(1, 10)?;
        // A level of the same transaction, on the same connection.
        put_record(2, 20)?;
        assert_eq!(connection::<Record, SqliteConn>()?.alias(), &"default");
        // Refused at once, since this thread holds the lock of the file.
        let apart = put_record_apart(3, 30);
        assert!(matches!(apart, Err(Error::Busy { .. })), "{apart:?}");
        Ok::<_, Error>(())
    });
    run.unwrap();
    assert_eq!(fixture.rows("default"), [(1, 10), (2, 20)]);
    assert_eq!(databases.database("other").unwrap().pool_state().connections, 0);
    // By itself it is what it is called.
    assert_eq!(connection::<Record, SqliteConn>().unwrap().alias(), &"other");
}

#[cfg(feature = "testing")]
#[test]
fn two_databases_in_memory_stay_two_in_a_test() {
    use multidb::testing::{committed, rolled_back};
    let databases =
        Databases::builder().sqlite("default", ":memory:").sqlite("other", ":memory:").router(ByApp).build().unwrap();
    for rolled in [true, false] {
        let _test = if rolled { rolled_back(&databases) } else { committed(&databases) }.unwrap();
        connection::<Item, SqliteConn>().unwrap().batch_execute("CREATE TABLE items (id INTEGER)").unwrap();
        let other = connection::<Record, SqliteConn>().unwrap().batch_execute("SELECT id FROM items");
        assert!(other.is_err(), "rolled back: {rolled}");
    }
}

#[test]
fn a_temporary_table_hides_none_of_the_librarys() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.builder(1).build().unwrap();
    schema::install(&databases).unwrap();
    let _entered = databases.enter();
    let hides = "CREATE TEMP TABLE multidb_once (id TEXT, function TEXT, body TEXT, result TEXT, created INT); CREATE TEMP TABLE \
                 multidb_decision (gid TEXT, state TEXT, participants TEXT, created INT); CREATE TEMP VIEW multidb_meta AS \
                 SELECT 1 AS one";
    let call = |text: &str| {
        atomic::<Item>().label("call").once("key").verify_commit().run(|conn: &mut SqliteConn| {
            conn.batch_execute(text)?;
            put(1, 10)
        })
    };
    call(hides).unwrap();
    call("SELECT 1").unwrap();
    assert_eq!((fixture.rows("default"), across::own_rows(&fixture, "default")), (vec![(1, 10)], 2));
}
