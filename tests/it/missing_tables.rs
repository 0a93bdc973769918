//! What `Databases::check` says where the library's own tables are missing.

use diesel::connection::{Connection, SimpleConnection};
use multidb::{CrossDatabase, Databases, DatabasesBuilder, Error, schema};

use crate::checks::schema_of;
use crate::fixture::{Kind, create_statement, fresh_name, server};

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
