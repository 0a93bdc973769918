//! What `Databases::check` says where the library's own tables are missing.

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use multidb::{CrossDatabase, Databases, DatabasesBuilder, Error, schema};

use crate::checks::schema_of;
use crate::fixture::{Kind, create_statement, fresh_name, server};

diesel::table! { items (id) { id -> BigInt, } }

/// The tables of the library's that a transaction over several databases needs.
const NEEDED: [&str; 3] = ["multidb_decision", "multidb_meta", "multidb_receipt"];

/// What is found on each database, without what should be.
fn found(databases: &Databases) -> Vec<(String, String, String)> {
    let report = databases.check();
    assert!(report.unreachable().is_empty(), "{report}");
    let findings = report.findings().iter();
    findings.map(|(alias, one)| (alias.to_string(), one.setting.clone(), one.found.clone())).collect()
}

/// A fresh database on a server, with a connection that knows nothing of the library.
fn fresh_postgres() -> Option<(String, diesel::PgConnection)> {
    let (create, url) = create_statement(Kind::Postgres, server(Kind::Postgres)?, &fresh_name());
    diesel::PgConnection::establish(server(Kind::Postgres)?).unwrap().batch_execute(&create).unwrap();
    let observer = diesel::PgConnection::establish(&url).unwrap();
    Some((url, observer))
}

fn fresh_mysql() -> Option<(String, diesel::MysqlConnection)> {
    let (create, url) = create_statement(Kind::Mysql, server(Kind::Mysql)?, &fresh_name());
    diesel::MysqlConnection::establish(server(Kind::Mysql)?).unwrap().batch_execute(&create).unwrap();
    let observer = diesel::MysqlConnection::establish(&url).unwrap();
    Some((url, observer))
}

#[test]
fn each_table_that_a_transaction_over_several_would_miss_is_told_with_the_remedy() {
    let (Some((postgres, mut on_postgres)), Some((mysql, mut on_mysql))) = (fresh_postgres(), fresh_mysql()) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("c.db");
    let databases =
        Databases::builder().postgres("a", &postgres).mysql("b", &mysql).sqlite("c", &file).build().unwrap();
    let missing = |alias: &str, table: &str| (alias.to_owned(), table.to_owned(), "missing".to_owned());
    let all: Vec<_> = ["a", "b", "c"].iter().flat_map(|alias| NEEDED.map(|table| missing(alias, table))).collect();
    assert_eq!(found(&databases), all);
    let told = databases.check().to_string();
    assert!(
        told.contains("`b`: `multidb_receipt` is missing, and should be made by `multidb::schema::install"),
        "{told}"
    );
    schema::install(&databases).unwrap();
    assert_eq!(found(&databases), []);

    on_postgres.batch_execute("DROP TABLE multidb_receipt").unwrap();
    on_mysql.batch_execute("DROP TABLE multidb_decision").unwrap();
    let mut on_sqlite = diesel::SqliteConnection::establish(file.to_str().unwrap()).unwrap();
    on_sqlite.batch_execute("DROP TABLE multidb_meta").unwrap();
    let some = [missing("a", "multidb_receipt"), missing("b", "multidb_decision"), missing("c", "multidb_meta")];
    assert_eq!(found(&databases), some);
}

#[test]
fn a_table_that_says_no_more_what_the_database_is_is_told() {
    let (Some((postgres, mut on_postgres)), Some((mysql, mut on_mysql))) = (fresh_postgres(), fresh_mysql()) else {
        return;
    };
    let databases = Databases::builder().postgres("a", &postgres).mysql("b", &mysql).build().unwrap();
    schema::install(&databases).unwrap();
    on_postgres.batch_execute("DELETE FROM multidb_meta").unwrap();
    on_mysql.batch_execute("DELETE FROM multidb_meta").unwrap();
    let empty = |alias: &str| (alias.to_owned(), "multidb_meta".to_owned(), "without its row".to_owned());
    assert_eq!(found(&databases), [empty("a"), empty("b")]);
    schema::install(&databases).unwrap();
    assert_eq!(found(&databases), []);
}

#[test]
fn tables_that_no_transaction_would_need_are_not_missed() {
    let Some((url, _)) = fresh_postgres() else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    let server = || Databases::builder().postgres("a", &url);
    let cases: [(&str, DatabasesBuilder); 5] = [
        ("one database", server()),
        ("one database, twice", server().postgres("b", &url)),
        ("one beside a database in memory", server().sqlite("b", ":memory:")),
        (
            "files, which commit as one by ATTACH",
            Databases::builder().sqlite("a", file("a.db")).sqlite("b", file("b.db")),
        ),
        ("none is wanted", server().sqlite("b", file("b.db")).cross_database(CrossDatabase::Refuse)),
    ];
    for (what, builder) in cases {
        let report = builder.build().unwrap().check();
        assert!(report.is_ok(), "{what}: {report}");
    }
}

#[test]
fn a_role_that_may_neither_read_the_tables_nor_make_them_is_told_what_it_needs() {
    let (Some((postgres, mut on_postgres)), Some((mysql, mut on_mysql))) = (fresh_postgres(), fresh_mysql()) else {
        return;
    };
    let role = fresh_name();
    let schema = schema_of(&postgres).to_owned();
    let create = format!("CREATE ROLE {role} LOGIN PASSWORD 'x'; GRANT USAGE ON SCHEMA {schema} TO {role}");
    on_postgres.batch_execute(&create).unwrap();
    // It sees the database, and nothing else of it.
    let database = mysql.rsplit_once('/').unwrap().1;
    let create = format!("CREATE USER {role} IDENTIFIED BY 'x'; GRANT CREATE VIEW ON {database}.* TO {role}");
    on_mysql.batch_execute(&create).unwrap();
    let as_role = |url: &str| {
        let (kind, rest) = url.split_once("://").unwrap();
        format!("{kind}://{role}:x@{}", rest.split_once('@').unwrap().1)
    };
    let builder = Databases::builder().postgres("a", as_role(&postgres)).mysql("b", as_role(&mysql));
    let poor = builder.build().unwrap();
    let report = poor.check();
    for table in NEEDED {
        let on = |alias: &str| report.findings().iter().find(|(at, one)| *at == alias && one.setting == table).unwrap();
        let (on_a, on_b) = (&on("a").1, &on("b").1);
        assert!(on_a.found == "missing" && on_a.wanted.contains("a role that may create tables"), "{report}");
        // The server doesn't tell it whether the table is there.
        assert!(on_b.found.contains("denied") && on_b.wanted.contains("granted SELECT, INSERT"), "{report}");
    }
    let error = schema::install(&poor).unwrap_err();
    assert!(matches!(&error, Error::Migration { .. }) && error.to_string().contains("permission denied"), "{error}");
    let rich = Databases::builder().postgres("a", &postgres).mysql("b", &mysql).build().unwrap();
    schema::install(&rich).unwrap();
    assert_eq!(found(&rich), []);
    let report = poor.check();
    let of_a: Vec<_> = report.findings().iter().filter(|(alias, _)| *alias == "a").collect();
    assert!(of_a.len() == 4 && of_a.iter().all(|(_, one)| one.found == "not granted"), "{report}");
    let grants = format!("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO {role}");
    on_postgres.batch_execute(&grants).unwrap();
    on_mysql.batch_execute(&format!("GRANT SELECT, INSERT, UPDATE, DELETE ON {database}.* TO {role}")).unwrap();
    assert_eq!(found(&poor), []);
    drop(poor);
    on_postgres.batch_execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).unwrap();
    on_mysql.batch_execute(&format!("DROP USER {role}")).unwrap();
}

/// Runs what needs each of the library's tables: a key, a proof of the commit, and a commit over several databases.
fn own_work(databases: &Databases) -> Vec<Error> {
    let _entered = databases.enter();
    let verified = multidb::atomic_on("a")
        .verify_commit()
        .run(|conn: &mut multidb::AnyConn| Ok::<_, Error>(conn.batch_execute("INSERT INTO items VALUES (1)")?));
    vec![keyed(databases), verified.unwrap_err()]
}

/// What a scope with a key fails with.
fn keyed(databases: &Databases) -> Error {
    let scope = multidb::atomic_on("a").databases(databases).once("a key");
    scope.run(|_: &mut multidb::AnyConn| Ok::<_, Error>(1)).unwrap_err()
}

#[track_caller]
fn each_has(errors: Vec<Error>, parts: &[&str], lacks: &[&str]) {
    for error in errors {
        let text = error.to_string();
        assert!(matches!(error, Error::Config { .. }), "{error:?}");
        for part in parts {
            assert!(text.contains(part), "{part} is missing in: {text}");
        }
        for part in lacks {
            assert!(!text.contains(part), "{part} is in: {text}");
        }
    }
}

#[test]
fn each_reason_for_which_postgres_keeps_the_tables_from_us_has_its_own_text() {
    let Some((url, mut observer)) = fresh_postgres() else { return };
    let (role, schema) = (fresh_name(), schema_of(&url).to_owned());
    let poor = {
        let rest = url.split_once('@').unwrap().1;
        Databases::builder().postgres("a", format!("postgres://{role}:x@{rest}")).build_lazy().unwrap()
    };
    let made = format!(
        "CREATE TABLE items (id BIGINT); CREATE ROLE {role} LOGIN PASSWORD 'x'; GRANT USAGE ON SCHEMA {schema} TO {role}; \
         GRANT ALL ON items TO {role}"
    );
    observer.batch_execute(&made).unwrap();
    let missing = "a table of the library is missing";
    each_has(own_work(&poor), &["database `a`", missing, "schema::install"], &["grant"]);
    schema::install(&Databases::builder().postgres("a", &url).build().unwrap()).unwrap();
    each_has(own_work(&poor), &["database `a`", "permission denied for table", "grant SELECT"], &["install"]);
    let all =
        format!("GRANT ALL ON ALL TABLES IN SCHEMA {schema} TO {role}; REVOKE USAGE ON SCHEMA {schema} FROM {role}");
    observer.batch_execute(&all).unwrap();
    let named = format!("permission denied for schema {schema}");
    each_has(vec![keyed(&poor)], &["database `a`", &named, "grant USAGE on the schema"], &["install"]);
    let grant =
        format!("GRANT USAGE ON SCHEMA {schema} TO {role}; ALTER ROLE {role} SET default_transaction_read_only = on");
    drop(poor);
    observer.batch_execute(&grant).unwrap();
    let rest = url.split_once('@').unwrap().1;
    let reads = Databases::builder().postgres("a", format!("postgres://{role}:x@{rest}")).build().unwrap();
    each_has(vec![keyed(&reads)], &["database `a`", "read-only", "primary"], &["install", "grant"]);
    drop(reads);
    observer.batch_execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).unwrap();
}

#[test]
fn an_empty_search_path_hides_no_table_of_ours() {
    let Some((url, mut observer)) = fresh_postgres() else { return };
    observer.batch_execute("CREATE TABLE items (id BIGINT)").unwrap();
    let databases = Databases::builder().postgres("a", &url).build().unwrap();
    schema::install(&databases).unwrap();
    let _entered = databases.enter();
    for key in ["one", "two"] {
        let run = multidb::atomic_on("a").once(key).verify_commit().run(|conn: &mut multidb::AnyConn| {
            conn.batch_execute("INSERT INTO items VALUES (1); SET LOCAL search_path TO ''")?;
            Ok::<_, Error>(1)
        });
        assert!(run.is_ok(), "{run:?}");
    }
    assert_eq!(items::table.count().get_result::<i64>(&mut observer), Ok(2));
}

#[test]
fn each_reason_for_which_mariadb_keeps_the_tables_from_us_has_its_own_text() {
    let Some((url, mut observer)) = fresh_mysql() else { return };
    let role = fresh_name();
    let (address, database) = url.rsplit_once('/').unwrap();
    let host = address.split_once('@').unwrap().1;
    let made = format!(
        "CREATE TABLE items (id BIGINT); CREATE USER {role} IDENTIFIED BY 'x'; GRANT ALL ON {database}.* TO {role}"
    );
    observer.batch_execute(&made).unwrap();
    let open = || Databases::builder().mysql("a", format!("mysql://{role}:x@{host}/{database}")).build().unwrap();
    let missing = "a table of the library is missing";
    each_has(own_work(&open()), &["database `a`", missing, "schema::install"], &["grant"]);
    schema::install(&Databases::builder().mysql("a", &url).build().unwrap()).unwrap();
    let less = format!("REVOKE ALL ON {database}.* FROM {role}; GRANT ALL ON {database}.items TO {role}");
    observer.batch_execute(&less).unwrap();
    each_has(own_work(&open()), &["database `a`", "command denied", "grant SELECT"], &["install"]);
    observer.batch_execute(&format!("DROP USER {role}")).unwrap();
}

#[test]
fn a_file_that_can_not_be_written_is_told_as_read_only() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.db");
    let mut observer = diesel::SqliteConnection::establish(file.to_str().unwrap()).unwrap();
    observer.batch_execute("CREATE TABLE items (id BIGINT)").unwrap();
    let open = |mode: &str| {
        let url = format!("sqlite:{}?mode={mode}", file.display());
        Databases::builder().sqlite("a", url).build().unwrap()
    };
    let missing = "a table of the library is missing";
    each_has(own_work(&open("rw")), &["database `a`", missing, "schema::install"], &["grant"]);
    schema::install(&open("rw")).unwrap();
    each_has(vec![keyed(&open("ro"))], &["database `a`", "read-only", "mode"], &["install", "grant"]);
}
