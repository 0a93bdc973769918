//! Transactions over two databases: claims that only PostgreSQL can meet.

use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sql_types::Text;
use multidb::{Databases, Error, PgConn, atomic, atomic_many, connection, schema, scope};

use crate::faked::fake;
use crate::journal::Journal;
use crate::postgres::*;
use crate::postgres_server::in_doubt::Far;
use crate::support::proxy::Loses;

#[derive(QueryableByName)]
struct Setting {
    #[diesel(sql_type = Text)]
    value: String,
}

fn setting(conn: &mut PgConn, name: &str) -> QueryResult<String> {
    let query = format!("SELECT current_setting('{name}') AS value");
    Ok(diesel::sql_query(query).get_result::<Setting>(conn)?.value)
}

fn installed() -> Option<(Fixture, Databases)> {
    let fixture = fixture()?;
    let databases = fixture.builder(1).build().unwrap();
    schema::install(&databases).unwrap();
    Some((fixture, databases))
}

/// Puts a row into both databases, and runs more on one of them.
fn with_more(on_home: bool, more: impl Fn(&mut PgConn) -> Result<(), diesel::result::Error>) -> Result<(), Error> {
    atomic_many::<(Item, Record)>().run(|scope| {
        put(1, 10)?;
        put_record(1, 20)?;
        let mut conn = if on_home { scope.conn::<Item, PgConn>()? } else { scope.conn::<Record, PgConn>()? };
        more(&mut conn)?;
        Ok(())
    })
}

#[test]
fn what_postgres_cannot_prepare_is_told_and_nothing_is_kept() {
    let Some((fixture, databases)) = installed() else { return };
    let _entered = databases.enter();
    let both_locks = "WITH id AS (SELECT hashtext(current_schema()) AS id) SELECT pg_advisory_lock(id), pg_advisory_xact_lock(id) \
                      FROM id";
    for (text, words, remedy) in [
        ("NOTIFY nobody", "has executed LISTEN, UNLISTEN, or NOTIFY", "on_commit"),
        ("SELECT pg_notify('nobody', '')", "has executed LISTEN, UNLISTEN, or NOTIFY", "on_commit"),
        ("LISTEN nobody", "has executed LISTEN, UNLISTEN, or NOTIFY", "a connection of its own"),
        ("CREATE TEMPORARY TABLE fleeting (id BIGINT) ON COMMIT DROP", "temporary objects", "ordinary table"),
        (both_locks, "session-level and transaction-level locks", "one kind of advisory lock"),
        ("DECLARE held CURSOR WITH HOLD FOR SELECT 1", "cursor WITH HOLD", "WITHOUT HOLD"),
    ] {
        let run = with_more(false, |conn| diesel::sql_query(text).execute(conn).map(drop));
        let error = run.unwrap_err();
        let told = error.to_string();
        assert!(!error.is_in_doubt() && !error.is_retryable(), "{text}: {error}");
        for part in ["database `other`", words, remedy, "a model of `other` first"] {
            assert!(told.contains(part), "{part} is missing for {text}: {error}");
        }
        assert_eq!((fixture.rows("default"), fixture.rows("other")), (vec![], vec![]), "{text}");
        assert_eq!((in_use(&databases, "default"), in_use(&databases, "other")), (0, 0), "{text}");
        assert!(databases.recover().unwrap().is_clear(), "{text}");
    }
    // Not after a nested scope, whose savepoint may still be open.
    let run = atomic_many::<(Item, Record)>().run(|scope| {
        for conn in [&mut scope.conn::<Item, PgConn>()?, &mut scope.conn::<Record, PgConn>()?] {
            diesel::insert_into(items::table).values((items::id.eq(1), items::value.eq(10))).execute(conn)?;
        }
        diesel::sql_query("SELECT pg_export_snapshot()").execute(&mut scope.conn::<Record, PgConn>()?)?;
        Ok::<_, Error>(())
    });
    let told = run.unwrap_err().to_string();
    assert!(told.contains("database `other`") && told.contains("export the snapshot in a scope of its own"), "{told}");
    assert_eq!((fixture.rows("default"), fixture.rows("other")), (vec![], vec![]));
    // Home isn't prepared.
    with_more(true, |conn| diesel::sql_query("NOTIFY nobody").execute(conn).map(drop)).unwrap();
    assert_eq!((fixture.rows("default").len(), fixture.rows("other").len()), (1, 1));
}

#[test]
fn who_only_notifies_is_no_reader_that_is_committed_before_the_decision() {
    let Some((fixture, databases)) = installed() else { return };
    let _entered = databases.enter();
    let run = atomic_many::<(Item, Record)>().run(|scope| {
        put(1, 10)?;
        diesel::sql_query("SELECT pg_notify('nobody', '')").execute(&mut scope.conn::<Record, PgConn>()?)?;
        Ok::<_, Mishap>(())
    });
    assert!(run.unwrap_err().to_string().contains("NOTIFY"));
    assert_eq!(fixture.rows("default"), []);
}

#[test]
fn a_home_that_only_notifies_is_no_reader_that_is_committed_before_the_decision() {
    let Some((fixture, databases)) = installed() else { return };
    let _entered = databases.enter();
    let run = atomic_many::<(Item, Record)>().run(|scope| {
        diesel::sql_query("SELECT pg_notify('nobody', '')").execute(&mut scope.conn::<Item, PgConn>()?)?;
        put_record(1, 20)
    });
    run.unwrap();
    assert_eq!(across::own_rows(&fixture, "default"), 1, "it holds the decision");
}

#[test]
fn a_constraint_of_home_that_waits_is_checked_before_anything_is_prepared() {
    let Some((fixture, databases)) = installed() else { return };
    let _entered = databases.enter();
    let orphans = "CREATE TABLE orphans (parent BIGINT REFERENCES items DEFERRABLE INITIALLY DEFERRED)";
    fixture.observer("default").batch_execute(orphans).unwrap();
    let journal = Journal::default();
    let orphan = "INSERT INTO orphans VALUES (77)";
    let run = journal.watch(|| with_more(true, |conn| diesel::sql_query(orphan).execute(conn).map(drop)));
    assert!(run.unwrap_err().to_string().contains("foreign key"));
    let phases: Vec<String> =
        journal.events().into_iter().filter_map(|(_, fields)| fields.get("phase").cloned()).collect();
    assert_eq!(phases, ["start", "rollback", "rollback"]);
}

#[test]
fn deferred_constraints_are_checked_before_the_decision_on_both_databases() {
    let Some((fixture, databases)) = installed() else { return };
    let _entered = databases.enter();
    for alias in ["default", "other"] {
        let orphans = "CREATE TABLE orphans (parent BIGINT REFERENCES items DEFERRABLE INITIALLY DEFERRED)";
        fixture.observer(alias).batch_execute(orphans).unwrap();
    }
    for on_home in [true, false] {
        let orphan = "INSERT INTO orphans VALUES (77)";
        let error = with_more(on_home, |conn| diesel::sql_query(orphan).execute(conn).map(drop)).unwrap_err();
        assert!(error.to_string().contains("foreign key"), "{error}");
        assert_eq!((fixture.rows("default"), fixture.rows("other")), (vec![], vec![]));
        assert!(databases.recover().unwrap().is_clear());
        // Mended before the end.
        let mended = with_more(on_home, |conn| {
            diesel::sql_query(orphan).execute(conn)?;
            diesel::sql_query("DELETE FROM orphans").execute(conn).map(drop)
        });
        mended.unwrap();
        for alias in ["default", "other"] {
            fixture.observer(alias).batch_execute("DELETE FROM items").unwrap();
        }
    }
}

#[test]
fn limits_and_name_are_those_of_the_transaction_alone_and_never_looser_than_the_users() {
    let Some((_fixture, databases)) = installed() else { return };
    let _entered = databases.enter();
    let names = ["lock_timeout", "idle_in_transaction_session_timeout", "application_name", "synchronous_commit"];
    let all = |conn: &mut PgConn| names.map(|name| setting(conn, name).unwrap());
    let before = all(&mut connection::<Record, PgConn>().unwrap());
    for (own, expected) in [("1s", "1s"), ("1min", "5s"), ("0", "5s")] {
        let run = atomic::<Item>().run(|conn: &mut PgConn| {
            diesel::sql_query(format!("SET LOCAL lock_timeout = '{own}'")).execute(conn)?;
            put(1, 10)?;
            let id = scope::current().unwrap();
            atomic::<Record>().run(|conn: &mut PgConn| {
                let [lock, idle, name, _] = all(conn);
                assert_eq!((&*lock, &*idle), ("5s", "1min"));
                assert!(name.starts_with("multidb "), "{name}");
                put_record(1, 20)
            })?;
            let [lock, idle, name, _] = all(conn);
            assert_eq!((&*lock, &*idle), (expected, "1min"), "{own}");
            let letters = scope::current().unwrap().to_string();
            assert!(letters.ends_with(name.split(' ').nth(1).unwrap()), "{name} of {id}");
            Err::<(), _>(Mishap::OnPurpose)
        });
        assert!(matches!(run, Err(Mishap::OnPurpose)), "{run:?}");
    }
    with_more(true, |conn| diesel::sql_query("SET LOCAL synchronous_commit = off").execute(conn).map(drop)).unwrap();
    assert_eq!(all(&mut connection::<Record, PgConn>().unwrap()), before);
    assert_eq!(all(&mut connection::<Item, PgConn>().unwrap())[..2], before[..2]);
}

#[test]
fn a_branch_that_the_server_ends_for_being_idle_is_never_committed_in_part() {
    const LIMIT: Duration = Duration::from_secs(30);
    for on_home in [true, false] {
        let Some((fixture, databases)) = installed() else { return };
        let _entered = databases.enter();
        let mut observer = fixture.observer("default");
        let run = with_more(on_home, |conn| {
            let mine = "SELECT pg_backend_pid()::text AS value";
            let mine: Setting = diesel::sql_query(mine).get_result(conn)?;
            diesel::sql_query("SET LOCAL idle_in_transaction_session_timeout = '50ms'").execute(conn)?;
            let lives = format!("SELECT pid::text AS value FROM pg_stat_activity WHERE pid = {}", mine.value);
            let begin = Instant::now();
            while !diesel::sql_query(&lives).load::<Setting>(&mut observer_of(&fixture)).unwrap().is_empty() {
                assert!(begin.elapsed() < LIMIT, "the server has not ended the session");
                std::thread::sleep(Duration::from_millis(1));
            }
            Ok(())
        });
        let error = run.unwrap_err();
        assert!(!error.is_in_doubt(), "{error}");
        assert!(databases.recover().unwrap().is_clear());
        assert_eq!((fixture.rows("default"), fixture.rows("other")), (vec![], vec![]));
        observer.batch_execute("SELECT 1").unwrap();
        with_more(on_home, |_| Ok(())).unwrap();
    }
}

fn observer_of(fixture: &Fixture) -> diesel::PgConnection {
    fixture.observer("default")
}

#[test]
fn the_server_gets_the_statements_of_the_protocol_in_its_order() {
    let Some(far) = Far::new() else { return };
    let log = std::env::var("MULTIDB_TEST_SERVERS_DIR").map(|folder| format!("{folder}/postgres/server.log")).unwrap();
    let id = far.put_both(1).id.to_string();
    let letters = id.rsplit('_').next().unwrap();
    let text = String::from_utf8_lossy(&std::fs::read(log).unwrap()).into_owned();
    let phases: Vec<&str> = text
        .lines()
        .filter(|line| line.contains(letters) && line.contains("LOG: "))
        .filter_map(|line| {
            let phases =
                ["multidb_receipt", "multidb_decision", "; PREPARE TRANSACTION", "COMMIT PREPARED", ": COMMIT"];
            phases.into_iter().find(|phase| line.contains(phase))
        })
        .collect();
    let expected = ["multidb_receipt", "multidb_decision", "; PREPARE TRANSACTION", ": COMMIT", "COMMIT PREPARED"];
    assert_eq!(phases, expected);
}

#[test]
fn each_phase_is_an_event_with_the_transaction_and_the_database() {
    let Some((_fixture, databases)) = installed() else { return };
    let _entered = databases.enter();
    let journal = Journal::default();
    let mut id = None;
    let mut run = |fails: bool| {
        journal.watch(|| {
            let result = atomic_many::<(Item, Record)>().run(|scope| {
                id = scope::current();
                put(i64::from(fails), 10)?;
                put_record(i64::from(fails), 20)?;
                if fails {
                    diesel::sql_query("NOTIFY nobody").execute(&mut scope.conn::<Record, PgConn>()?)?;
                }
                Ok::<_, Mishap>(())
            });
            assert_eq!(result.is_err(), fails, "{result:?}");
        });
        let id = id.take().unwrap().to_string();
        let events = journal.events();
        assert!(!events.is_empty(), "no events at all");
        let phases = events.into_iter().filter(|(text, _)| text.starts_with("a phase over"));
        phases
            .map(|(_, fields)| {
                assert_eq!(fields["id"], id);
                format!("{} {} {}", fields["phase"], fields["alias"], fields["answer"])
            })
            .collect::<Vec<_>>()
    };
    let committed = ["start default Wrote", "prepare other Done", "decide default Committed", "commit other Done"];
    assert_eq!(run(false), committed);
    let rolled_back = ["start default Wrote", "prepare other Failed", "rollback default Done", "rollback other Done"];
    assert_eq!(run(true), rolled_back);
}

#[cfg(target_os = "linux")]
/// How long the system waits before it asks whether the peer of this local port is there, in hundredths of a second.
fn time_to_keepalive(local_port: i64) -> Option<u64> {
    const KEEPALIVE: &str = "02";
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    table.lines().find_map(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let (_, port) = columns.get(1)?.split_once(':')?;
        let (timer, when) = columns.get(5)?.split_once(':')?;
        let is_it = i64::from_str_radix(port, 16) == Ok(local_port) && timer == KEEPALIVE;
        is_it.then(|| u64::from_str_radix(when, 16).unwrap())
    })
}

#[cfg(target_os = "linux")]
#[test]
fn a_connection_asks_a_silent_server_within_half_a_minute_unless_its_url_says_otherwise() {
    #[derive(QueryableByName)]
    struct Port {
        #[diesel(sql_type = diesel::sql_types::BigInt)]
        port: i64,
    }
    let Some(fixture) = fixture() else { return };
    let own = format!("{}&keepalives_idle=1000", fixture.urls[0]);
    for (url, least, most) in [(&*fixture.urls[0], 0, 3_000), (&*own, 90_000, 100_000)] {
        let databases = Databases::builder().postgres("default", url).build().unwrap();
        let _entered = databases.enter();
        let asked = diesel::sql_query("SELECT inet_client_port()::bigint AS port");
        let found: Port = asked.get_result(&mut connection::<Item, PgConn>().unwrap()).unwrap();
        let begin = Instant::now();
        let time = loop {
            // An acknowledgement may be awaited first.
            if let Some(time) = time_to_keepalive(found.port) {
                break time;
            }
            assert!(begin.elapsed() < Duration::from_secs(10), "no keepalive at all");
        };
        assert!((least..=most).contains(&time), "{time}");
    }
}

/// Databases of which the first has another function of the system's than it should.
fn faking(function: &str, arguments: &str, made: &str) -> Option<Fixture> {
    let mut fixture = fixture()?;
    fake(&mut fixture, 0, function, arguments, made);
    Some(fixture)
}

#[test]
fn a_standby_is_refused_as_home_until_it_is_promoted() {
    let made = "CREATE TABLE standby AS SELECT false AS \"is\"; CREATE FUNCTION pg_catalog.pg_is_in_recovery() RETURNS \
                boolean LANGUAGE sql AS 'SELECT \"is\" FROM standby'";
    let Some(fixture) = faking("pg_is_in_recovery", "", made) else { return };
    // One connection alone, which outlives the promotion.
    let databases = fixture.builder(1).build().unwrap();
    schema::install(&databases).unwrap();
    let becomes = |is: bool| fixture.observer("default").batch_execute(&format!("UPDATE standby SET \"is\" = {is}"));
    becomes(true).unwrap();
    let _entered = databases.enter();
    let text = with_more(true, |_| Ok(())).unwrap_err().to_string();
    assert!(text.contains("`default`") && text.contains("standby"), "{text}");
    assert_eq!((fixture.rows("default"), fixture.rows("other")), (vec![], vec![]));
    becomes(false).unwrap();
    with_more(true, |_| Ok(())).unwrap();
    assert_eq!((fixture.rows("default").len(), fixture.rows("other").len()), (1, 1));
}

#[test]
fn a_server_that_may_lose_a_confirmed_commit_is_refused() {
    for setting in ["fsync", "full_page_writes"] {
        let made = format!(
            "CREATE FUNCTION pg_catalog.current_setting(text) RETURNS text LANGUAGE sql AS $$ SELECT CASE $1 WHEN \
             '{setting}' THEN 'off' ELSE pg_catalog.real_current_setting($1) END $$"
        );
        let Some(fixture) = faking("current_setting", "text", &made) else { return };
        let databases = fixture.builder(1).build().unwrap();
        schema::install(&databases).unwrap();
        let _entered = databases.enter();
        let text = with_more(true, |_| Ok(())).unwrap_err().to_string();
        for named in ["`default`", setting, "`off`", "`on`"] {
            assert!(text.contains(named), "{named} is missing in: {text}");
        }
        assert_eq!((fixture.rows("default"), fixture.rows("other")), (vec![], vec![]));
    }
}

#[test]
fn a_lost_commit_of_a_home_that_was_failed_over_is_an_unknown_outcome() {
    let made = "CREATE TABLE timeline AS SELECT '0000000A'::text AS now; CREATE FUNCTION pg_catalog.pg_walfile_name(pg_lsn) \
                RETURNS text LANGUAGE sql AS 'SELECT now FROM timeline'";
    let Some(far) = faking("pg_walfile_name", "pg_lsn", made).map(Far::of) else { return };
    // Its connections know home as it was.
    far.put_both(100).result.unwrap();
    far.proxies[0].lose_once(b"COMMIT", Loses::Request);
    {
        let _entered = far.databases.enter();
        let run = atomic_many::<(Item, Record)>().run(|_| {
            put(1, 10)?;
            put_record(1, 20)?;
            far.fixture.observer("default").batch_execute("UPDATE timeline SET now = '0000000B'").unwrap();
            Ok::<_, Error>(())
        });
        assert!(far.proxies[0].hit());
        let error = run.unwrap_err();
        assert!(error.is_in_doubt() && !error.is_retryable(), "{error}");
    }
    let report = far.near.recover().unwrap();
    let left: Vec<_> = report.left().iter().map(|left| left.reason).collect();
    assert_eq!((left, far.prepared()), (vec![multidb::Reason::Failover], 1), "{report}");
    far.near.adopt("default").unwrap();
    far.recover();
    assert_eq!((far.prepared(), far.fixture.rows("default").len(), far.fixture.rows("other").len()), (0, 1, 1));
}

#[test]
fn an_error_of_a_deferred_trigger_at_prepare_stays_the_databases_own() {
    let Some((fixture, databases)) = installed() else { return };
    let _entered = databases.enter();
    let trigger = "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not in the morning'; END $$; \
                   CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON items DEFERRABLE INITIALLY DEFERRED FOR EACH ROW \
                   EXECUTE FUNCTION refuse()";
    fixture.observer("other").batch_execute(trigger).unwrap();
    let error = with_more(false, |_| Ok(())).unwrap_err();
    assert!(matches!(error, Error::Query(_)) && error.to_string().contains("not in the morning"), "{error:?}");
    assert_eq!((fixture.rows("default"), fixture.rows("other")), (vec![], vec![]));
}
