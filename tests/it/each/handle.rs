//! The handle is a full Diesel connection.

use diesel::connection::{DefaultLoadingMode, SimpleConnection};
use diesel::prelude::*;
use diesel::sql_types::BigInt;
use multidb::{Error, atomic, connection};

use super::*;

#[test]
fn queries_of_every_kind_run_on_the_handle_inside_and_outside_of_a_scope() {
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.databases().enter();
    every_kind(&mut connection::<Item, H>().unwrap());
    assert_eq!(fixture.rows("default"), [(1, 12), (3, 3)]);
    connection::<Item, H>().unwrap().batch_execute("DELETE FROM items").unwrap();
    atomic::<Item>()
        .run(|conn: &mut H| {
            every_kind(conn);
            Ok::<_, Error>(())
        })
        .unwrap();
    assert_eq!(fixture.rows("default"), [(1, 12), (3, 3)]);
}

fn every_kind(conn: &mut H) {
    let all = [Item { id: 1, value: 10 }, Item { id: 2, value: 20 }, Item { id: 3, value: 30 }];
    assert_eq!(diesel::insert_into(items::table).values(&all[..]).execute(conn).unwrap(), 3);
    assert_eq!(items::table.order(items::id).select(Item::as_select()).load(conn).unwrap(), all);
    assert_eq!(items::table.find(2).first::<Item>(conn).unwrap(), all[1]);
    assert_eq!(items::table.find(9).first::<Item>(conn).optional().unwrap(), None);
    let values: i64 =
        items::table.load_iter::<Item, DefaultLoadingMode>(conn).unwrap().map(|item| item.unwrap().value).sum();
    assert_eq!(values, 60);
    let update = |conn: &mut H, by: i64| {
        let change = items::value.eq(items::value + by);
        diesel::update(items::table.find(1)).set(change).execute(conn).unwrap()
    };
    // From its second use on the text of an UPDATE is kept prepared.
    assert_eq!((update(conn, 1), update(conn, 2), update(conn, -1)), (1, 1, 1));
    assert_eq!(items::table.find(1).first::<Item>(conn).unwrap().value, 12);
    let saved: Item = Item { id: 3, value: 3 }.save_changes(conn).unwrap();
    assert_eq!(saved, Item { id: 3, value: 3 });
    assert_eq!(diesel::delete(items::table.find(2)).execute(conn).unwrap(), 1);
    assert_eq!(diesel::sql_query("UPDATE items SET value = value").execute(conn).unwrap(), 2);
    let counted: Vec<Counted> = diesel::sql_query("SELECT COUNT(*) AS n FROM items").load(conn).unwrap();
    assert_eq!(counted[0].n, 2);
    conn.batch_execute("UPDATE items SET value = value; UPDATE items SET value = value").unwrap();
}

#[derive(QueryableByName)]
struct Counted {
    #[diesel(sql_type = BigInt)]
    n: i64,
}

#[test]
fn a_boxed_query_and_a_dynamic_update_run_on_the_handle() {
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.databases().enter();
    atomic::<Item>()
        .run(|conn: &mut H| {
            for id in 1..=5 {
                put(id, id * 10)?;
            }
            for limit in [20_i64, 30, 40, 50] {
                let query = items::table.filter(items::value.ge(limit)).into_boxed();
                assert_eq!(query.count().get_result::<i64>(conn)?, 6 - limit / 10);
                let ids: Vec<i64> = (1..=limit / 10).collect();
                let found = items::table.filter(items::id.eq_any(ids)).count().get_result::<i64>(conn)?;
                assert_eq!(found, limit / 10);
            }
            Ok::<_, Mishap>(())
        })
        .unwrap();
}

#[test]
fn rows_that_were_kept_while_the_cursor_went_on_hold_their_own_values() {
    use diesel::connection::LoadConnection;
    use diesel::row::Row;
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.databases().enter();
    for id in 1..=4 {
        put(id, id * 10).unwrap();
    }
    for inside in [true, false] {
        let read = |conn: &mut H| {
            let cursor = LoadConnection::<DefaultLoadingMode>::load(conn, items::table.order(items::id))?;
            let rows = cursor.collect::<Result<Vec<_>, _>>()?;
            let read = |row: &_| Row::get_value::<BigInt, i64, _>(row, "value").unwrap();
            let values: Vec<i64> = rows.iter().map(read).collect();
            assert_eq!(values, [10, 20, 30, 40]);
            Ok::<_, Mishap>(())
        };
        if inside {
            atomic::<Item>().run(read).unwrap();
        } else {
            read(&mut connection::<Item, H>().unwrap()).unwrap();
        }
    }
    put(5, 50).unwrap();
}

#[test]
fn diesel_migrations_run_on_the_handle() {
    use diesel_migrations::{FileBasedMigrations, MigrationHarness};
    let Some(fixture) = fixture() else { return };
    let databases = fixture.databases();
    let _entered = databases.enter();
    let folder = tempfile::tempdir().unwrap();
    for (version, up) in
        [("1_tags", "CREATE TABLE tags (id BIGINT PRIMARY KEY)"), ("2_tag", "INSERT INTO tags VALUES (7)")]
    {
        let path = folder.path().join(version);
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join("up.sql"), up).unwrap();
        std::fs::write(path.join("down.sql"), "DROP TABLE tags").unwrap();
    }
    let migrations = FileBasedMigrations::from_path(folder.path()).unwrap();
    let mut conn = connection::<Item, H>().unwrap();
    assert_eq!(conn.run_pending_migrations(migrations.clone()).unwrap().len(), 2);
    assert_eq!(conn.run_pending_migrations(migrations).unwrap().len(), 0);
    let counted: Vec<Counted> =
        diesel::sql_query("SELECT COUNT(*) AS n FROM tags").load(&mut fixture.observer("default")).unwrap();
    assert_eq!(counted[0].n, 1);
    drop(conn);
    assert_eq!(in_use(&databases, "default"), 0);
}

#[test]
fn a_function_that_takes_diesels_own_connection_is_served_by_with_raw() {
    fn put_raw(conn: &mut Raw, id: i64) -> QueryResult<usize> {
        diesel::insert_into(items::table).values((items::id.eq(id), items::value.eq(0))).execute(conn)
    }
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.databases().enter();
    let run = atomic::<Item>().run(|conn: &mut H| {
        put(1, 10)?;
        conn.with_raw(|raw: &mut Raw| put_raw(raw, 2).map_err(Mishap::from))?;
        Err::<(), _>(Mishap::OnPurpose)
    });
    assert!(matches!(run, Err(Mishap::OnPurpose)));
    assert_eq!(fixture.rows("default"), []);
    connection::<Item, H>().unwrap().with_raw(|raw: &mut Raw| put_raw(raw, 3).map_err(Mishap::from)).unwrap();
    assert_eq!(fixture.rows("default"), [(3, 0)]);
}

#[test]
fn a_statement_inside_with_raw_of_the_same_connection_answers_busy() {
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.databases().enter();
    let run = atomic::<Item>().run(|conn: &mut H| {
        conn.with_raw(|_: &mut Raw| {
            let busy = put(1, 10);
            assert!(matches!(&busy, Err(Error::Busy { database, .. }) if database == "default"), "{busy:?}");
            Ok::<_, Error>(())
        })?;
        put(2, 20)
    });
    // The nested scope could not be ended while the connection was lent, so nothing may be committed.
    assert!(run.is_err() || fixture.rows("default") == [(2, 20)], "{run:?}");
}

#[test]
fn an_instrumentation_set_on_a_handle_stays_with_its_transaction() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.builder(1).build().unwrap();
    let _entered = databases.enter();
    let recorder = crate::recorder::Recorder::default();
    atomic::<Item>()
        .run(|conn: &mut H| {
            conn.set_instrumentation(recorder.clone());
            put(1, 10)
        })
        .unwrap();
    assert!(recorder.take().iter().any(|sent| sent.contains("INSERT INTO")));
    put(2, 20).unwrap();
    assert_eq!(recorder.take(), Vec::<String>::new(), "the next user of the connection is recorded");
}
