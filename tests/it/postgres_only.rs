//! Claims that only PostgreSQL can meet.

use diesel::connection::SimpleConnection;
use diesel::pg::PgRowByRowLoadingMode;
use diesel::prelude::*;
use multidb::{DatabaseConfig, Databases, Error, FailureClass, PgConn, Propagation, atomic, connection, schema};

use crate::faked::fake;
use crate::postgres::*;
use crate::recorder::Recorder;

diesel::table! { texts (id) { id -> BigInt, text -> Text, } }

#[test]
fn returning_on_conflict_and_locking_reads_run_on_the_handle() {
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.databases().enter();
    atomic::<Item>()
        .run(|conn: &mut PgConn| {
            let item = Item { id: 1, value: 10 };
            let put: Item = diesel::insert_into(items::table).values(item).get_result(conn)?;
            assert_eq!(put, item);
            for value in [11, 12, 13] {
                let upsert = diesel::insert_into(items::table).values((items::id.eq(1), items::value.eq(value)));
                upsert.on_conflict(items::id).do_update().set(items::value.eq(value)).execute(conn)?;
            }
            let locked: Vec<Item> = items::table.for_update().skip_locked().load(conn)?;
            assert_eq!(locked, [Item { id: 1, value: 13 }]);
            let updated: Vec<i64> = diesel::update(items::table)
                .set(items::value.eq(items::value + 1))
                .returning(items::value)
                .load(conn)?;
            assert_eq!(updated, [14]);
            Ok::<_, Mishap>(())
        })
        .unwrap();
    assert_eq!(fixture.rows("default"), [(1, 14)]);
}

#[test]
fn copy_runs_through_with_raw_inside_the_transaction() {
    use diesel::pg::CopyFormat;
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.databases().enter();
    let copy = |conn: &mut PgConn| {
        conn.with_raw(|raw: &mut diesel::PgConnection| {
            let rows = [(1, 10), (2, 20)].map(|(id, value)| (items::id.eq(id), items::value.eq(value)));
            let copied = diesel::copy_from(items::table).from_insertable(rows.to_vec()).execute(raw)?;
            assert_eq!(copied, 2);
            let mut text = String::new();
            let mut out = diesel::copy_to(items::table).with_format(CopyFormat::Csv).load_raw(raw)?;
            std::io::Read::read_to_string(&mut out, &mut text).unwrap();
            assert_eq!(text, "1,10\n2,20\n");
            Ok::<_, Mishap>(())
        })
    };
    let undone = atomic::<Item>().run(|conn: &mut PgConn| copy(conn).and(Err::<(), _>(Mishap::OnPurpose)));
    assert!(matches!(undone, Err(Mishap::OnPurpose)));
    assert_eq!(fixture.rows("default"), []);
    atomic::<Item>().run(copy).unwrap();
    assert_eq!(fixture.rows("default"), [(1, 10), (2, 20)]);
}

#[test]
fn the_default_cursor_leaves_the_connection_free_and_row_by_row_does_not() {
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.databases().enter();
    let run = atomic::<Item>().run(|conn: &mut PgConn| {
        put(1, 10)?;
        put(2, 20)?;
        let mut reading =
            items::table.order(items::id).load_iter::<Item, diesel::connection::DefaultLoadingMode>(conn)?;
        assert_eq!(reading.next().unwrap()?.id, 1);
        put(3, 30)?;
        drop(reading);
        let mut reading = items::table.order(items::id).load_iter::<Item, PgRowByRowLoadingMode>(conn)?;
        assert_eq!(reading.next().unwrap()?.id, 1);
        assert!(matches!(put(4, 40), Err(Error::Busy { .. })));
        assert_eq!(reading.count(), 2);
        put(5, 50).map_err(Mishap::from)
    });
    run.unwrap();
    assert_eq!(fixture.rows("default"), [(1, 10), (2, 20), (3, 30), (5, 50)]);
}

#[test]
fn a_deferred_constraint_that_fails_at_commit_is_an_error_and_the_connection_survives() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.builder(1).build().unwrap();
    let _entered = databases.enter();
    connection::<Item, PgConn>()
        .unwrap()
        .batch_execute("CREATE TABLE later (id BIGINT UNIQUE DEFERRABLE INITIALLY DEFERRED)")
        .unwrap();
    let error = atomic::<Item>()
        .run(|conn: &mut PgConn| {
            put(1, 10)?;
            conn.batch_execute("INSERT INTO later VALUES (1), (1)")?;
            Ok::<_, Error>(())
        })
        .unwrap_err();
    assert!(matches!(error, Error::Query(_)) && !error.is_in_doubt(), "{error}");
    assert_eq!(fixture.rows("default"), []);
    let state = databases.database("default").unwrap().pool_state();
    assert_eq!((state.connections, state.idle_connections), (1, 1));
    put(2, 20).unwrap();
}

#[test]
fn a_deadlock_and_a_serialization_failure_are_told_as_such() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.databases();
    let _entered = databases.enter();
    put(1, 10).unwrap();
    put(2, 20).unwrap();
    let barrier = std::sync::Barrier::new(2);
    let ends = std::thread::scope(|threads| {
        let threads = [(1_i64, 2_i64), (2, 1)].map(|(first, second)| {
            let (databases, barrier) = (&databases, &barrier);
            threads.spawn(move || {
                let _entered = databases.enter();
                atomic::<Item>().run(|conn: &mut PgConn| {
                    let bump = items::value.eq(items::value + 1);
                    diesel::update(items::table.find(first)).set(bump).execute(conn)?;
                    barrier.wait();
                    let bump = items::value.eq(items::value + 1);
                    let _ = diesel::update(items::table.find(second)).set(bump).execute(conn);
                    Ok::<_, Mishap>(())
                })
            })
        });
        threads.map(|thread| thread.join().unwrap())
    });
    let failed: Vec<_> = ends.into_iter().filter_map(Result::err).collect();
    assert_eq!(failed.len(), 1);
    let Mishap::Database(error) = &failed[0] else { panic!("{failed:?}") };
    let Error::Doomed { first, .. } = error else { panic!("{error}") };
    assert_eq!(first.class(), FailureClass::Deadlock);
    assert!(error.is_retryable());
    let mut values: Vec<i64> = fixture.rows("default").into_iter().map(|(_, value)| value).collect();
    values.sort_unstable();
    assert_eq!(values, [11, 21], "one of the two transactions, whole");
}

#[test]
fn a_serialization_failure_at_commit_is_retryable_and_not_in_doubt() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.builder(1).build().unwrap();
    let _entered = databases.enter();
    put(1, 10).unwrap();
    put(2, 20).unwrap();
    let mut other = fixture.observer("default");
    let run = atomic::<Item>().run(|conn: &mut PgConn| {
        diesel::sql_query("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE").execute(conn)?;
        let sum = "(SELECT sum(value) FROM items)";
        conn.batch_execute(&format!("UPDATE items SET value = {sum} WHERE id = 1"))?;
        // Each has read what the other changes, so no order of the two fits.
        other.batch_execute(&format!(
            "BEGIN ISOLATION LEVEL SERIALIZABLE; UPDATE items SET value = {sum} WHERE id = 2; COMMIT"
        ))?;
        Ok::<_, Mishap>(())
    });
    let Err(Mishap::Database(error @ Error::Query(_))) = run else { panic!("{run:?}") };
    assert!(error.is_retryable() && !error.is_in_doubt(), "{error}");
    assert_eq!(fixture.rows("default"), [(1, 10), (2, 30)], "the other one's alone");
    let state = databases.database("default").unwrap().pool_state();
    assert_eq!((state.connections, state.idle_connections), (1, 1), "the connection is fit for the pool");
    put(3, 30).unwrap();
    assert_eq!(fixture.rows("default").len(), 3);
}

#[test]
fn an_independent_transaction_does_not_wait_for_ever_for_a_lock_of_its_own_thread() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.databases();
    let _entered = databases.enter();
    put(1, 10).unwrap();
    let bump = || diesel::update(items::table.find(1)).set(items::value.eq(items::value + 1));
    let run = atomic::<Item>().run(|conn: &mut PgConn| {
        bump().execute(conn)?;
        let apart = atomic::<Item>().propagation(multidb::Propagation::RequiresNew).run(|conn: &mut PgConn| {
            bump().execute(conn)?;
            Ok::<_, Mishap>(())
        });
        let Err(Mishap::Query(error)) = apart else { panic!("{apart:?}") };
        let error = Error::from(error);
        assert!(error.is_retryable() && error.to_string().contains("lock timeout"), "{error}");
        Ok::<_, Mishap>(())
    });
    run.unwrap();
    assert_eq!(fixture.rows("default"), [(1, 11)]);
    assert_eq!(in_use(&databases, "default"), 0);
}

#[derive(QueryableByName)]
struct Setting {
    #[diesel(sql_type = diesel::sql_types::Text)]
    lock_timeout: String,
}

#[test]
fn a_statement_in_autocommit_does_not_wait_for_ever_for_a_lock_of_its_own_thread() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.builder(2).build().unwrap();
    let _entered = databases.enter();
    put(1, 10).unwrap();
    let bump = || diesel::update(items::table.find(1)).set(items::value.eq(items::value + 1));
    let run = atomic::<Item>().run(|conn: &mut PgConn| {
        bump().execute(conn)?;
        let apart = atomic::<Item>().propagation(multidb::Propagation::NotSupported);
        let waited = apart.run(|conn: &mut PgConn| bump().execute(conn).map_err(Error::from));
        assert!(matches!(&waited, Err(error) if error.to_string().contains("lock timeout")), "{waited:?}");
        Ok::<_, Mishap>(())
    });
    run.unwrap();
    assert_eq!(fixture.rows("default"), [(1, 11)]);
    // The limit does not stay on the connection.
    let setting = diesel::sql_query("SHOW lock_timeout");
    let setting: Setting = setting.get_result(&mut connection::<Item, PgConn>().unwrap()).unwrap();
    assert_eq!(setting.lock_timeout, "0");
}

#[test]
fn a_copy_sent_as_a_text_is_refused_and_a_transaction_never_reports_success_for_it() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.builder(1).build().unwrap();
    let _entered = databases.enter();
    let run = atomic::<Item>().run(|conn: &mut PgConn| {
        put(1, 10)?;
        for refused in [
            conn.batch_execute("COPY items FROM STDIN"),
            diesel::sql_query("COPY items TO STDOUT").execute(conn).map(drop),
        ] {
            let text = Error::from(refused.unwrap_err()).to_string();
            assert!(text.contains("copy_from") && text.contains("`default`"), "{text}");
        }
        Ok::<_, Error>(())
    });
    run.unwrap();
    assert_eq!(fixture.rows("default"), [(1, 10)]);
    // Where the guard can't see it, COMMIT would answer success and roll back.
    let lent = atomic::<Item>().run(|conn: &mut PgConn| {
        put(2, 20)?;
        conn.with_raw(|raw: &mut diesel::PgConnection| raw.batch_execute("COPY items FROM STDIN").map_err(Error::from))
    });
    assert!(lent.is_err(), "{lent:?}");
    assert_eq!(fixture.rows("default"), [(1, 10)]);
    put(3, 30).unwrap();
}

#[test]
fn a_begin_that_fails_after_the_server_has_begun_does_not_reach_the_next_user() {
    let Some(mut fixture) = fixture() else { return };
    // The batch of a transaction begun inside another one calls it.
    let made = "CREATE FUNCTION pg_catalog.set_config(text, text, boolean) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE \
                EXCEPTION 'on purpose'; END $$";
    fake(&mut fixture, 1, "set_config", "text, text, boolean", made);
    let mut config = DatabaseConfig::new("other", fixture.urls[1].clone());
    config.pool.max_size = Some(1);
    let default = DatabaseConfig::new("default", fixture.urls[0].clone());
    let databases = Databases::builder().database(default).database(config).router(ByApp).build().unwrap();
    let _entered = databases.enter();
    let run = atomic::<Item>().run(|conn: &mut PgConn| {
        conn.batch_execute("SELECT 1")?;
        assert!(put_record_apart(1, 10).is_err());
        Ok::<_, Mishap>(())
    });
    run.unwrap();
    let mut conn = connection::<Record, PgConn>().unwrap();
    conn.batch_execute("INSERT INTO items VALUES (2, 20)").unwrap();
    put_record(3, 30).unwrap();
    assert_eq!(fixture.rows("other"), [(2, 20), (3, 30)]);
}

#[test]
fn a_transaction_of_an_outside_handle_does_not_wait_for_ever_for_a_lock_of_its_own_thread() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.databases();
    let _entered = databases.enter();
    put(1, 10).unwrap();
    let bump = || diesel::update(items::table.find(1)).set(items::value.eq(items::value + 1));
    let mut outside = connection::<Item, PgConn>().unwrap();
    let run = atomic::<Item>().run(|conn: &mut PgConn| {
        bump().execute(conn)?;
        let waited = outside.transaction(|conn| bump().execute(conn));
        let error = Error::from(waited.unwrap_err());
        assert!(error.is_retryable() && error.to_string().contains("lock timeout"), "{error}");
        Ok::<_, Mishap>(())
    });
    run.unwrap();
    assert_eq!(fixture.rows("default"), [(1, 11)]);
    assert_eq!(in_use(&databases, "default"), 0);
}

#[test]
fn a_copy_that_fails_half_way_is_never_followed_by_a_false_ok() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.databases();
    let _entered = databases.enter();
    let table = "CREATE TABLE texts (id BIGINT PRIMARY KEY, text TEXT NOT NULL)";
    let mut observer = fixture.observer("default");
    observer.batch_execute(table).unwrap();
    observer.batch_execute("INSERT INTO texts VALUES (1, 'a'), (2, '\u{3a9}')").unwrap();
    let run = atomic::<Item>().run(|conn: &mut PgConn| {
        put(1, 10)?;
        // The second row can't be sent in it.
        conn.batch_execute("SET LOCAL client_encoding = 'LATIN1'")?;
        conn.with_raw(|raw: &mut diesel::PgConnection| {
            let mut copied = String::new();
            let mut out = diesel::copy_to(texts::table).load_raw(raw)?;
            // Diesel reports no error here.
            let _ = std::io::Read::read_to_string(&mut out, &mut copied);
            Ok::<_, Mishap>(())
        })
    });
    assert!(run.is_err(), "{run:?}");
    assert_eq!(fixture.rows("default"), []);
    assert_eq!(in_use(&databases, "default"), 0);
    put(2, 20).unwrap();
}

#[test]
fn a_kept_update_survives_what_changes_under_it() {
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.builder(1).build().unwrap().enter();
    put(1, 10).unwrap();
    let mut conn = connection::<Item, PgConn>().unwrap();
    let bump = || diesel::update(items::table.find(1)).set(items::value.eq(items::value + 1));
    let mut observer = fixture.observer("default");
    for change in [
        "ALTER TABLE items ADD COLUMN more INT DEFAULT 1",
        "ALTER TABLE items ALTER COLUMN value TYPE NUMERIC",
        "ALTER TABLE items ALTER COLUMN value TYPE BIGINT",
    ] {
        for _ in 0..3 {
            bump().execute(&mut conn).unwrap();
        }
        observer.batch_execute(change).unwrap();
        assert_eq!(bump().execute(&mut conn), Ok(1), "{change}");
    }
    for forget in ["DEALLOCATE ALL", "DISCARD ALL"] {
        conn.batch_execute(forget).unwrap();
        assert_eq!(bump().execute(&mut conn), Ok(1), "{forget}");
        assert_eq!(bump().execute(&mut conn), Ok(1), "{forget}");
    }
    let other = fixture.urls[1].rsplit_once('=').unwrap().1;
    fixture.observer("other").batch_execute("INSERT INTO items VALUES (1, 100)").unwrap();
    atomic::<Item>()
        .run(|conn: &mut PgConn| {
            for _ in 0..3 {
                bump().execute(conn)?;
            }
            conn.batch_execute("DEALLOCATE ALL")?;
            bump().execute(conn)?;
            conn.batch_execute(&format!("SET LOCAL search_path = {other}"))?;
            bump().execute(conn)?;
            Ok::<_, Mishap>(())
        })
        .unwrap();
    let held = |alias| items::table.select(items::value).first::<i64>(&mut fixture.observer(alias)).unwrap();
    assert_eq!((held("default"), held("other")), (30, 101));
}

#[test]
fn a_cursor_whose_unread_rows_fail_is_never_followed_by_a_false_ok() {
    use diesel::sql_types::BigInt;
    let Some(fixture) = fixture() else { return };
    let databases = fixture.databases();
    let _entered = databases.enter();
    for id in [1, 0] {
        put(id, id).unwrap();
    }
    let run = atomic::<Item>().run(|conn: &mut PgConn| {
        put(5, 50)?;
        let inverse = 1_i64.into_sql::<BigInt>() / items::value;
        let mut reading = items::table
            .select(inverse)
            .order(items::id.desc())
            .filter(items::id.lt(5))
            .load_iter::<i64, PgRowByRowLoadingMode>(conn)?;
        assert_eq!(reading.next().unwrap()?, 1);
        // The server fails at the second row, and nobody asks for it.
        drop(reading);
        Ok::<_, Mishap>(())
    });
    assert!(run.is_err(), "{run:?}");
    assert_eq!(fixture.rows("default"), [(0, 0), (1, 1)]);
    assert_eq!(in_use(&databases, "default"), 0);
}

#[test]
fn a_transaction_does_not_wait_for_ever_for_a_lock_of_one_that_was_begun_above_it() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.databases();
    let _entered = databases.enter();
    put(1, 10).unwrap();
    let bump = || diesel::update(items::table.find(1)).set(items::value.eq(items::value + 1));
    let run = atomic::<Item>().run(|outer: &mut PgConn| {
        outer.batch_execute("SELECT 1")?;
        let apart = atomic::<Item>().propagation(multidb::Propagation::RequiresNew);
        apart.run(|inner: &mut PgConn| {
            bump().execute(inner)?;
            let waited = bump().execute(outer).map_err(Error::from);
            assert!(matches!(&waited, Err(error) if error.to_string().contains("lock timeout")), "{waited:?}");
            Ok::<_, Mishap>(())
        })
    });
    assert!(run.is_err(), "the outer transaction is doomed");
    assert_eq!(fixture.rows("default"), [(1, 11)]);
    assert_eq!(in_use(&databases, "default"), 0);
}

#[test]
fn a_key_leaves_an_independent_transaction_its_lock_limit() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.databases();
    schema::install(&databases).unwrap();
    let _entered = databases.enter();
    let limit = |conn: &mut PgConn| -> Result<String, Error> {
        let setting = diesel::dsl::sql::<diesel::sql_types::Text>("SELECT current_setting('lock_timeout')");
        Ok(setting.get_result(conn)?)
    };
    let run = atomic::<Item>().run(|_: &mut PgConn| {
        put(1, 10)?;
        let apart = || atomic::<Item>().propagation(Propagation::RequiresNew);
        // Without one it would wait for a lock of the transaction around it for ever.
        let expected = apart().run(limit)?;
        assert_ne!(expected, "0");
        assert_eq!(apart().once("a").run(limit)?, expected);
        Ok::<_, Error>(())
    });
    run.unwrap();
    // Alone it waits as long as it is told to.
    assert_eq!(atomic::<Item>().label("alone").once("b").run(limit).unwrap(), "0");
}

#[test]
fn two_inner_scopes_with_one_statement_each_take_at_most_four_fifths_of_the_round_trips_of_diesels_own() {
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.databases().enter();
    let ours = Recorder::default();
    let run = atomic::<Item>().run(|conn: &mut PgConn| {
        conn.set_instrumentation(ours.clone());
        put(1, 10)?;
        put(2, 20)
    });
    run.unwrap();

    let by_hand = Recorder::default();
    let mut conn = fixture.observer("default");
    conn.set_instrumentation(by_hand.clone());
    let insert = |conn: &mut diesel::PgConnection, id: i64| {
        diesel::insert_into(items::table).values((items::id.eq(id), items::value.eq(0))).execute(conn)
    };
    let run = conn.transaction(|conn| {
        conn.transaction(|conn| insert(conn, 3))?;
        conn.transaction(|conn| insert(conn, 4))
    });
    run.unwrap();

    // Each text is one round trip.
    let (ours, by_hand) = (ours.take(), by_hand.take());
    assert_eq!((ours.len(), by_hand.len()), (5, 8), "{ours:?} and {by_hand:?}");
    assert_eq!(fixture.rows("default").len(), 4);
}

#[test]
fn an_alias_that_is_said_to_be_the_same_as_another_is_one_database_with_it() {
    let Some(fixture) = fixture() else { return };
    let url = &fixture.urls[0];
    let mut reporting = DatabaseConfig::new("other", format!("{url}%20-cwork_mem%3D8MB"));
    let build = |other: &DatabaseConfig| fixture.builder(2).database(other.clone()).build();
    let run = |databases: &Databases| {
        let _entered = databases.enter();
        atomic::<Item>().run(|_: &mut PgConn| {
            put(1, 10)?;
            put_record(2, 20)
        })
    };
    let undeclared = build(&reporting).unwrap();
    multidb::schema::install(&undeclared).unwrap();
    let text = run(&undeclared).unwrap_err().to_string();
    assert!(text.contains("one database") && text.contains("same_as = \"default\""), "{text}");
    assert_eq!(fixture.rows("default"), []);
    reporting.same_as = Some("default".into());
    run(&build(&reporting).unwrap()).unwrap();
    assert_eq!(fixture.rows("default"), [(1, 10), (2, 20)]);
    for wrong in ["nowhere", "other"] {
        reporting.same_as = Some(wrong.into());
        let text = build(&reporting).unwrap_err().to_string();
        assert!(text.contains("`other`, key `same_as`"), "{text}");
    }
}
