//! PostgreSQL as it comes: `max_prepared_transactions = 0`.

use diesel::connection::{Connection, SimpleConnection};
use diesel::prelude::*;
use multidb::{CommitMode, Databases, Error, PgConn, SqliteConn, atomic_many, schema};

use crate::models::{Account, ByApp, Entry, accounts, entries};
use crate::server::Server;

/// A server that prepares no transactions, with two schemas; their URLs.
fn server() -> Option<(Server, [String; 2])> {
    let server = Server::start("postgres")?;
    let mut admin = diesel::PgConnection::establish(server.url()).unwrap();
    admin.batch_execute("ALTER SYSTEM SET max_prepared_transactions = 0").unwrap();
    let urls = ["accounts", "entries"].map(|name| {
        let create = format!("CREATE SCHEMA s_{name}; CREATE TABLE s_{name}.{name} (id BIGINT PRIMARY KEY)");
        admin.batch_execute(&create).unwrap();
        format!("{}?options=-csearch_path%3Ds_{name}", server.url())
    });
    drop(admin);
    server.kill();
    server.restart();
    Some((server, urls))
}

fn rows(url: &str, table: &str) -> i64 {
    #[derive(QueryableByName)]
    struct Count {
        #[diesel(sql_type = diesel::sql_types::BigInt)]
        n: i64,
    }
    let raw = &mut diesel::PgConnection::establish(url).unwrap();
    diesel::sql_query(format!("SELECT COUNT(*) AS n FROM {table}")).get_result::<Count>(raw).unwrap().n
}

fn put_both(databases: &Databases) -> Result<(), Error> {
    put_both_by(databases, CommitMode::Atomic)
}

fn put_both_by(databases: &Databases, mode: CommitMode) -> Result<(), Error> {
    let _entered = databases.enter();
    atomic_many::<(Account, Entry)>().commit(mode).run(|scope| {
        diesel::insert_into(accounts::table)
            .values(accounts::id.eq(1))
            .execute(&mut scope.conn::<Account, PgConn>()?)?;
        diesel::insert_into(entries::table).values(entries::id.eq(1)).execute(&mut scope.conn::<Entry, PgConn>()?)?;
        Ok::<_, Error>(())
    })
}

#[test]
fn two_databases_that_prepare_nothing_are_refused_and_the_error_says_what_to_set() {
    let Some((_server, urls)) = server() else { return };
    let builder = || Databases::builder().postgres("accounts", &urls[0]).postgres("entries", &urls[1]).router(ByApp);
    let known = builder().build().unwrap();
    schema::install(&known).unwrap();
    let refused = put_both(&known).unwrap_err();
    assert!(matches!(refused, Error::NotAtomic { .. }), "{refused}");
    // Without a look at the servers it is found out at PREPARE.
    let found_out = put_both(&builder().build_lazy().unwrap()).unwrap_err();
    for (error, aliases) in [(refused, &["`accounts`", "`entries`"][..]), (found_out, &["`entries`"])] {
        let text = error.to_string();
        for named in aliases.iter().chain(&["max_prepared_transactions", "restart"]) {
            assert!(text.contains(named), "{named} is missing in: {text}");
        }
    }
    assert_eq!((rows(&urls[0], "accounts"), rows(&urls[1], "entries")), (0, 0));
    // They commit one after the other where that is wanted.
    put_both_by(&known, CommitMode::BestEffort).unwrap();
    assert_eq!((rows(&urls[0], "accounts"), rows(&urls[1], "entries")), (1, 1));
}

#[test]
fn one_that_prepares_nothing_beside_a_file_is_refused() {
    let Some((_server, urls)) = server() else { return };
    let folder = tempfile::tempdir().unwrap();
    let builder = Databases::builder().postgres("accounts", &urls[0]).router(ByApp);
    let databases = builder.sqlite("entries", folder.path().join("entries.db")).build().unwrap();
    let _entered = databases.enter();
    let run = atomic_many::<(Account, Entry)>().run(|scope| {
        scope.conn::<Account, PgConn>()?;
        scope.conn::<Entry, SqliteConn>()?;
        Ok::<_, Error>(())
    });
    let text = run.unwrap_err().to_string();
    for named in ["`accounts`", "max_prepared_transactions", "`entries` is SQLite"] {
        assert!(text.contains(named), "{named} is missing in: {text}");
    }
}

#[test]
fn one_that_prepares_nothing_holds_the_decision_wherever_it_is_listed() {
    let Some((_server, urls)) = server() else { return };
    let Some(other) = Server::start("postgres") else { return };
    let table = "CREATE TABLE entries (id BIGINT PRIMARY KEY)";
    diesel::PgConnection::establish(other.url()).unwrap().batch_execute(table).unwrap();
    let builder = Databases::builder().postgres("accounts", &urls[0]).postgres("entries", other.url());
    let databases = builder.router(ByApp).build().unwrap();
    schema::install(&databases).unwrap();
    put_both(&databases).unwrap();
    let _entered = databases.enter();
    let run = atomic_many::<(Entry, Account)>().run(|scope| {
        diesel::insert_into(entries::table).values(entries::id.eq(2)).execute(&mut scope.conn::<Entry, PgConn>()?)?;
        diesel::insert_into(accounts::table)
            .values(accounts::id.eq(2))
            .execute(&mut scope.conn::<Account, PgConn>()?)?;
        Ok::<_, Error>(())
    });
    run.unwrap();
    assert_eq!((rows(&urls[0], "accounts"), rows(other.url(), "entries")), (2, 2));
    assert_eq!(rows(&urls[0], "multidb_decision"), 2, "the decisions are there");
}
