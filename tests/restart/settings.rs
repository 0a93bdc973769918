//! MariaDB with settings that are those of the whole server.

use diesel::connection::{Connection, SimpleConnection};
use diesel::prelude::*;
use multidb::{Databases, Error, MysqlConn, atomic_many, atomic_on, connection_on, schema};

use crate::models::{Account, ByApp, Entry, accounts, entries};
use crate::server::Server;

fn put_both(databases: &Databases) -> Result<(), Error> {
    let _entered = databases.enter();
    atomic_many::<(Account, Entry)>().run(|scope| {
        let account = &mut scope.conn::<Account, MysqlConn>()?;
        diesel::insert_into(accounts::table).values(accounts::id.eq(1)).execute(account)?;
        let entry = &mut scope.conn::<Entry, MysqlConn>()?;
        diesel::insert_into(entries::table).values(entries::id.eq(1)).execute(entry)?;
        Ok::<_, Error>(())
    })
}

#[test]
fn a_mariadb_that_is_read_only_or_may_lose_commits_is_refused_until_that_is_mended() {
    #[cfg(feature = "testing")]
    crate::idle::watch(false);
    let Some(server) = Server::start("mariadb") else { return };
    let mut admin = diesel::MysqlConnection::establish(server.url()).unwrap();
    let (address, _) = server.url().rsplit_once('/').unwrap();
    let urls = ["accounts", "entries"].map(|name| {
        let create = format!("CREATE DATABASE d_{name}; CREATE TABLE d_{name}.{name} (id BIGINT PRIMARY KEY)");
        admin.batch_execute(&create).unwrap();
        format!("{address}/d_{name}")
    });
    // Each with fresh connections, which ask the server.
    let databases =
        || Databases::builder().mysql("accounts", &urls[0]).mysql("entries", &urls[1]).router(ByApp).build().unwrap();
    schema::install(&databases()).unwrap();
    for (setting, wrong, mended, named) in [
        ("read_only", 1, 0, "standby"),
        ("innodb_flush_log_at_trx_commit", 2, 1, "`innodb_flush_log_at_trx_commit` is `2`"),
        ("innodb_flush_log_at_trx_commit", 0, 1, "`innodb_flush_log_at_trx_commit` is `0`"),
    ] {
        admin.batch_execute(&format!("SET GLOBAL {setting} = {wrong}")).unwrap();
        let text = put_both(&databases()).unwrap_err().to_string();
        assert!(text.contains(named) && text.contains("`accounts`"), "{named} is missing in: {text}");
        admin.batch_execute(&format!("SET GLOBAL {setting} = {mended}")).unwrap();
    }
    put_both(&databases()).unwrap();
}

#[test]
fn a_server_without_autocommit_loses_nothing_and_check_reports_it() {
    let Some(server) = Server::start("mariadb") else { return };
    let mut admin = diesel::MysqlConnection::establish(server.url()).unwrap();
    let (address, _) = server.url().rsplit_once('/').unwrap();
    admin.batch_execute("CREATE DATABASE d_plain; CREATE TABLE d_plain.accounts (id BIGINT PRIMARY KEY)").unwrap();
    for (at, setting) in (1_i64..).zip(["autocommit = 0", "completion_type = 'CHAIN'", "sql_mode = ''"]) {
        admin.batch_execute(&format!("SET GLOBAL {setting}")).unwrap();
        let databases = Databases::builder().mysql("accounts", format!("{address}/d_plain")).build().unwrap();
        let _entered = databases.enter();
        let insert = |id: i64, conn: &mut MysqlConn| {
            diesel::insert_into(accounts::table).values(accounts::id.eq(id)).execute(conn)
        };
        insert(at, &mut connection_on::<MysqlConn>("accounts").unwrap()).unwrap();
        atomic_on("accounts").run(|conn: &mut MysqlConn| Ok::<_, Error>(insert(10 + at, conn)?)).unwrap();
        insert(20 + at, &mut connection_on::<MysqlConn>("accounts").unwrap()).unwrap();
        let stored: i64 = diesel::dsl::sql::<diesel::sql_types::BigInt>("SELECT COUNT(*) FROM d_plain.accounts")
            .get_result(&mut admin)
            .unwrap();
        assert_eq!(stored, 3 * at, "{setting}");
        let report = databases.check().to_string();
        let name = setting.split(' ').next().unwrap();
        assert!(report.contains(name), "{name} is missing in: {report}");
    }
}
