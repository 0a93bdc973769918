//! Where PostgreSQL's names lead, and where the library's own rows are.

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use multidb::{DatabaseConfig, Databases, Error, PgConn, Propagation, atomic, atomic_many, connection, schema};

use crate::fixture::{Kind, fresh_name, server};
use crate::postgres::across::own_rows;
use crate::postgres::*;

/// What hides the system's functions where it comes before them: each fails.
const SHADOWS: &str = "CREATE FUNCTION {}.current_setting(text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE 'hidden'; END $$;
    CREATE FUNCTION {}.set_config(text, text, boolean) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE 'hidden'; END $$;
    CREATE FUNCTION {}.clock_timestamp() RETURNS timestamptz LANGUAGE plpgsql AS $$ BEGIN RAISE 'hidden'; END $$;
    CREATE FUNCTION {}.pg_current_xact_id_if_assigned() RETURNS xid8 LANGUAGE plpgsql AS $$ BEGIN RAISE 'hidden'; END $$;
    CREATE FUNCTION {}.pg_is_in_recovery() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE 'hidden'; END $$;
    CREATE FUNCTION {}.pg_walfile_name(pg_lsn) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE 'hidden'; END $$;
    CREATE FUNCTION {}.substr(text, int, int) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE 'hidden'; END $$;
    CREATE FUNCTION {}.current_database() RETURNS name LANGUAGE plpgsql AS $$ BEGIN RAISE 'hidden'; END $$;
    CREATE FUNCTION {}.starts_with(text, text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE 'hidden'; END $$;
    CREATE FUNCTION {}.to_regclass(text) RETURNS regclass LANGUAGE plpgsql AS $$ BEGIN RAISE 'hidden'; END $$;
    CREATE FUNCTION {}.equals(text, text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE 'hidden'; END $$;
    CREATE VIEW {}.pg_prepared_xacts AS SELECT (1 / 0)::text AS gid, pg_catalog.current_database() AS database;
    CREATE VIEW {}.pg_settings AS SELECT (1 / 0)::text AS name, '' AS setting;
    CREATE DOMAIN {}.text AS pg_catalog.text CHECK (false)";

/// A schema's own equality, which only a session can have come to.
const OPERATOR: &str =
    "CREATE OPERATOR {}.= (LEFTARG = pg_catalog.text, RIGHTARG = pg_catalog.text, FUNCTION = {}.equals)";

fn installed(size: u32) -> Option<(Fixture, Databases)> {
    let fixture = fixture()?;
    let databases = fixture.builder(size).build().unwrap();
    schema::install(&databases).unwrap();
    Some((fixture, databases))
}

/// The schema of the first database.
fn own_schema(fixture: &Fixture) -> String {
    fixture.urls[0].rsplit_once('=').unwrap().1.to_owned()
}

fn raw() -> PgConnection {
    PgConnection::establish(server(Kind::Postgres).unwrap()).unwrap()
}

/// A schema of this name that is no other test's.
fn make_schema(name: &str, more: &str) -> String {
    let name = format!("{}{name}", fresh_name());
    let quoted = format!("\"{}\"", name.replace('"', "\"\""));
    raw().batch_execute(&format!("CREATE SCHEMA {quoted}; {}", more.replace("{}", &quoted))).unwrap();
    quoted
}

fn put_both_after(id: i64, text: &str) -> Result<(), Error> {
    atomic_many::<(Item, Record)>().run(|scope| {
        put(id, 10)?;
        put_record(id, 20)?;
        scope.conn::<Item, PgConn>()?.batch_execute(text)?;
        scope.conn::<Record, PgConn>()?.batch_execute(text)?;
        Ok(())
    })
}

fn verified_after(id: i64, text: &str) -> Result<(), Error> {
    atomic::<Item>().verify_commit().label("f").once(id).run(|conn: &mut PgConn| {
        put(id, 10)?;
        conn.batch_execute(text)?;
        Ok(())
    })
}

#[test]
fn a_body_that_sees_no_schema_or_only_anothers_commits_as_ever() {
    let Some((fixture, databases)) = installed(2) else { return };
    let _entered = databases.enter();
    let shadows = make_schema("", &format!("{SHADOWS}; {OPERATOR}"));
    let texts = ["SET LOCAL search_path TO ''".to_owned(), format!("SET LOCAL search_path TO {shadows}, pg_catalog")];
    for (id, text) in (1..).zip(texts) {
        put_both_after(id, &text).unwrap();
        verified_after(id + 10, &text).unwrap();
        let id = usize::try_from(id).unwrap();
        assert_eq!((fixture.rows("default").len(), fixture.rows("other").len()), (2 * id, id), "{text}");
    }
    assert_eq!((own_rows(&fixture, "default"), own_rows(&fixture, "other")), (4, 2));
    // Set for the session it holds until the connection goes back.
    let stays = format!("SET search_path TO {shadows}, pg_catalog");
    put_both_after(3, &stays).unwrap();
    put(4, 0).unwrap();
    let insert = |id: i64| format!("INSERT INTO {}.items VALUES ({id}, 0)", own_schema(&fixture));
    let verified = atomic::<Item>().verify_commit().label("f").once("stays").run(|conn: &mut PgConn| {
        conn.batch_execute(&stays)?;
        conn.batch_execute(&insert(5))?;
        let apart = atomic::<Item>().propagation(Propagation::RequiresNew);
        apart.run(|conn: &mut PgConn| Ok::<_, Error>(conn.batch_execute(&insert(6))?))
    });
    verified.unwrap();
    assert_eq!((fixture.rows("default").len(), own_rows(&fixture, "default")), (8, 6));
    assert!(databases.recover().unwrap().is_clear());
}

#[test]
fn a_service_whose_own_schemas_hide_what_the_system_has_works() {
    let Some(mut fixture) = fixture() else { return };
    schema::install(&fixture.databases()).unwrap();
    let shadows = make_schema("", SHADOWS).trim_matches('"').to_owned();
    let own = own_schema(&fixture);
    // The tables are in the second schema of the path.
    let path = format!("%3D{shadows},{own},pg_catalog&");
    fixture.urls[0] = fixture.urls[0].replacen(&format!("%3D{own}&"), &path, 1);
    let databases = fixture.builder(2).build().unwrap();
    let ran: Vec<usize> = schema::install(&databases).unwrap().applied().map(|(_, ran)| ran.len()).collect();
    assert_eq!(ran, [0, 0]);
    let _entered = databases.enter();
    put_both_after(1, "SELECT 1").unwrap();
    verified_after(2, "SELECT 1").unwrap();
    let apart = atomic::<Item>().run(|_: &mut PgConn| {
        put(3, 0)?;
        atomic::<Item>().propagation(Propagation::RequiresNew).run(|_: &mut PgConn| put(4, 0))
    });
    apart.unwrap();
    assert!(databases.recover().unwrap().is_clear());
    assert!(!databases.check().to_string().contains("hidden"));
    assert_eq!((fixture.rows("default").len(), fixture.rows("other").len()), (4, 1));
}

#[test]
fn a_schema_whose_name_needs_quotes_has_the_tables() {
    let Some(fixture) = fixture() else { return };
    let name = make_schema(
        "it's a \"Strange\" \\ na.me",
        "CREATE TABLE {}.items (id BIGINT PRIMARY KEY, value BIGINT NOT NULL)",
    );
    // As libpq reads options: a backslash stands before a space.
    let path = name.replace('\\', "\\\\").replace(' ', "\\ ");
    let path = path.bytes().fold(String::new(), |path, byte| path + &format!("%{byte:02X}"));
    let mut config =
        DatabaseConfig::new("default", format!("{}?options=-csearch_path%3D{path}", server(Kind::Postgres).unwrap()));
    config.pool.max_size = Some(1);
    let other = DatabaseConfig::new("other", fixture.urls[1].clone());
    let databases = Databases::builder().database(config).database(other).router(ByApp).build().unwrap();
    schema::install(&databases).unwrap();
    let _entered = databases.enter();
    put_both_after(1, "SET LOCAL search_path TO ''; SET LOCAL standard_conforming_strings = off").unwrap();
    verified_after(2, "SET LOCAL search_path TO ''").unwrap();
    let decisions = format!("SELECT COUNT(*) AS number FROM {name}.multidb_decision");
    assert_eq!(number(&mut raw(), &decisions), 2);
    assert!(databases.recover().unwrap().is_clear());
    assert!(!databases.check().to_string().contains("missing"), "{}", databases.check());
}

#[derive(QueryableByName)]
struct Number {
    #[diesel(sql_type = diesel::sql_types::BigInt)]
    number: i64,
}

fn number(raw: &mut PgConnection, sql: &str) -> i64 {
    diesel::sql_query(sql).get_result::<Number>(raw).unwrap().number
}

#[test]
fn a_view_or_a_temporary_table_of_the_same_name_hides_nothing() {
    let Some((fixture, databases)) = installed(1) else { return };
    let _entered = databases.enter();
    let tenant = make_schema(
        "",
        "CREATE VIEW {}.multidb_decision AS SELECT 1 AS nothing; CREATE VIEW {}.multidb_receipt AS SELECT 1 AS nothing; \
         CREATE VIEW {}.multidb_once AS SELECT 1 AS nothing; CREATE VIEW {}.multidb_meta AS SELECT 1 AS nothing",
    );
    let temporary = "CREATE TEMP TABLE multidb_decision (LIKE multidb_decision INCLUDING ALL); CREATE TEMP TABLE \
                     multidb_once (LIKE multidb_once INCLUDING ALL); CREATE TEMP TABLE multidb_meta AS SELECT 1 AS nothing";
    connection::<Item, PgConn>().unwrap().batch_execute(temporary).unwrap();
    put_both_after(1, &format!("SET LOCAL search_path TO {tenant}")).unwrap();
    verified_after(2, "SELECT 1").unwrap();
    verified_after(3, &format!("SET LOCAL search_path TO {tenant}, pg_temp")).unwrap();
    let mut observer = fixture.observer("default");
    assert_eq!(number(&mut observer, "SELECT COUNT(*) AS number FROM multidb_decision"), 3);
    assert_eq!(number(&mut observer, "SELECT COUNT(*) AS number FROM multidb_once"), 2);
    assert_eq!(own_rows(&fixture, "other"), 1);
}

#[test]
fn the_tables_stay_where_they_are_when_a_schema_comes_before_theirs() {
    let Some(mut fixture) = fixture() else { return };
    let databases = fixture.builder(1).build().unwrap();
    schema::install(&databases).unwrap();
    drop(databases);
    let own = own_schema(&fixture);
    let first = make_schema("", "").trim_matches('"').to_owned();
    fixture.urls[0] = fixture.urls[0].replacen(&format!("%3D{own}&"), &format!("%3D{first},{own}&"), 1);
    let databases = fixture.builder(1).build().unwrap();
    let ran: Vec<usize> = schema::install(&databases).unwrap().applied().map(|(_, ran)| ran.len()).collect();
    assert_eq!(ran, [0, 0]);
    let _entered = databases.enter();
    put_both_after(1, "SELECT 1").unwrap();
    let decisions = format!("SELECT COUNT(*) AS number FROM {own}.multidb_decision");
    assert_eq!(number(&mut raw(), &decisions), 1);
    let made = format!("SELECT COUNT(*) AS number FROM pg_tables WHERE schemaname = '{first}'");
    assert_eq!(number(&mut raw(), &made), 0, "nothing was made in the first one");
}

#[test]
fn a_second_application_in_the_same_database_has_its_own_rows() {
    let Some((first, one)) = installed(2) else { return };
    let Some((second, two)) = installed(2) else { return };
    for (databases, elsewhere) in [(&one, own_schema(&second)), (&two, own_schema(&first))] {
        let _entered = databases.enter();
        put_both_after(1, &format!("SET LOCAL search_path TO {elsewhere}")).unwrap();
    }
    for fixture in [&first, &second] {
        assert_eq!((own_rows(fixture, "default"), own_rows(fixture, "other")), (1, 1));
    }
    for databases in [&one, &two] {
        assert!(databases.recover().unwrap().is_clear());
    }
}

#[test]
fn without_any_schema_the_error_says_what_to_set() {
    let Some(fixture) = fixture() else { return };
    let url = format!("{}?options=-csearch_path%3D", server(Kind::Postgres).unwrap());
    let nowhere = Databases::builder().postgres("default", url).build().unwrap();
    let text = schema::install(&nowhere).unwrap_err().to_string();
    assert!(text.contains("`default`") && text.contains("search_path"), "{text}");
    let _entered = nowhere.enter();
    let text = atomic::<Item>().once(1).run(|_: &mut PgConn| Ok::<_, Error>(())).unwrap_err().to_string();
    assert!(text.contains("`default`") && text.contains("schema::install"), "{text}");
    assert_eq!(fixture.rows("default"), []);
}
