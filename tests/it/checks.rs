//! What `Databases::check` says of servers that are not set up for transactions over several databases.

#[cfg(any(feature = "postgres", feature = "mysql"))]
use diesel::connection::{Connection, SimpleConnection};
#[cfg(any(feature = "postgres", feature = "mysql"))]
use multidb::schema;
use multidb::{DatabaseConfig, Databases};

#[cfg(any(feature = "postgres", feature = "mysql"))]
use crate::fixture::{Kind, create_statement, fresh_name, server};

/// The findings on one database: settings with what they should be.
fn findings(databases: &Databases) -> Vec<(String, String)> {
    let report = databases.check();
    assert!(report.unreachable().is_empty(), "{report}");
    assert_eq!(report.is_ok(), report.findings().is_empty());
    report.findings().iter().map(|(_, found)| (found.setting.clone(), found.wanted.clone())).collect()
}

#[cfg(feature = "postgres")]
#[test]
fn on_postgres_a_pool_larger_than_max_prepared_transactions_and_a_missing_privilege_are_told() {
    let Some(server) = server(Kind::Postgres) else { return };
    let (create, url) = create_statement(Kind::Postgres, server, &fresh_name());
    let mut admin = diesel::PgConnection::establish(server).unwrap();
    admin.batch_execute(&create).unwrap();
    let databases = Databases::builder().postgres("default", &url).build().unwrap();
    schema::install(&databases).unwrap();
    assert_eq!(findings(&databases), []);

    let mut large = DatabaseConfig::new("default", url.clone());
    large.pool.max_size = Some(10_000);
    let databases = Databases::builder().database(large).build().unwrap();
    let [(setting, wanted)] = &findings(&databases)[..] else { panic!("{}", databases.check()) };
    assert_eq!(setting, "max_prepared_transactions");
    assert!(wanted.contains("10000") && databases.check().to_string().contains("`default`"), "{wanted}");

    let role = fresh_name();
    let grant = format!("CREATE ROLE {role} LOGIN PASSWORD 'x'; GRANT USAGE ON SCHEMA {} TO {role}", schema_of(&url));
    admin.batch_execute(&grant).unwrap();
    let (_, place) = url.split_once('@').unwrap();
    let poor = Databases::builder().postgres("default", format!("postgres://{role}:x@{place}")).build().unwrap();
    let found: Vec<String> = findings(&poor).into_iter().map(|(setting, _)| setting).collect();
    for table in ["multidb_decision", "multidb_meta", "multidb_once", "multidb_receipt"] {
        assert!(found.iter().any(|setting| setting == table), "{table}: {found:?}");
    }
}

#[cfg(feature = "postgres")]
pub(crate) fn schema_of(url: &str) -> &str {
    url.split_once("search_path%3D").and_then(|(_, rest)| rest.split('&').next()).unwrap()
}

#[cfg(feature = "postgres")]
#[test]
fn on_postgres_messages_in_another_language_are_told() {
    let Some(server) = server(Kind::Postgres) else { return };
    let role = fresh_name();
    let create =
        format!("CREATE ROLE {role} SUPERUSER LOGIN PASSWORD 'x'; ALTER ROLE {role} SET lc_messages = 'de_DE.UTF-8'");
    let mut admin = diesel::PgConnection::establish(server).unwrap();
    if admin.batch_execute(&create).is_err() {
        // The system doesn't know the language, and the server refuses it.
        return;
    }
    let (_, place) = server.split_once('@').unwrap();
    let databases = Databases::builder().postgres("default", format!("postgres://{role}:x@{place}")).build().unwrap();
    let found = findings(&databases);
    assert!(found.iter().any(|(setting, wanted)| setting == "lc_messages" && wanted.contains("en_US")), "{found:?}");
}

#[cfg(feature = "mysql")]
#[test]
fn on_mysql_a_table_that_is_no_part_of_transactions_is_told() {
    let Some(server) = server(Kind::Mysql) else { return };
    let (create, url) = create_statement(Kind::Mysql, server, &fresh_name());
    diesel::MysqlConnection::establish(server).unwrap().batch_execute(&create).unwrap();
    let databases = Databases::builder().mysql("default", &url).build().unwrap();
    schema::install(&databases).unwrap();
    assert_eq!(findings(&databases), []);
    let table = "CREATE TABLE loose (id INT) ENGINE = MyISAM";
    diesel::MysqlConnection::establish(&url).unwrap().batch_execute(table).unwrap();
    assert_eq!(findings(&databases), [("table loose".to_owned(), "in InnoDB".to_owned())]);
}

#[cfg(feature = "sqlite")]
#[test]
fn on_sqlite_a_session_that_may_lose_commits_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = DatabaseConfig::new("default", folder.path().join("a.db").to_str().unwrap());
    let databases = |config: &DatabaseConfig| Databases::builder().database(config.clone()).build().unwrap();
    assert_eq!(findings(&databases(&config)), []);
    config.sqlite.synchronous = Some("normal".into());
    let [(setting, wanted)] = &findings(&databases(&config))[..] else { panic!("one finding") };
    assert!(setting == "synchronous" && wanted.contains("full"), "{setting}: {wanted}");
}

#[cfg(feature = "sqlite")]
#[test]
fn a_database_that_cannot_be_asked_is_told_and_stops_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let builder = Databases::builder().sqlite("default", folder.path().join("a.db"));
    let databases = builder.sqlite("away", folder.path().join("nowhere/b.db")).build_lazy().unwrap();
    let report = databases.check();
    assert_eq!(report.unreachable().len(), 1);
    assert!(!report.is_ok() && report.to_string().contains("`away`: can't be asked"), "{report}");
}
