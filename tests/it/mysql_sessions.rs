//! Bodies that change their session on MySQL and MariaDB: the library's own rows are where everybody looks.

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sql_types::{Nullable, Text};
use multidb::{DatabaseConfig, Databases, Error, MysqlConn, atomic, atomic_many, connection, schema};

use crate::fixture::{Kind, fresh_name, server};
use crate::mysql::across::own_rows;
use crate::mysql::*;

fn raw() -> diesel::MysqlConnection {
    diesel::MysqlConnection::establish(server(Kind::Mysql).unwrap()).unwrap()
}

fn installed(size: u32) -> Option<(Fixture, Databases)> {
    let fixture = fixture()?;
    let databases = fixture.builder(size).build().unwrap();
    schema::install(&databases).unwrap();
    Some((fixture, databases))
}

fn verified_after(id: i64, text: &str) -> Result<(), Error> {
    atomic::<Item>().verify_commit().label("f").once(id).run(|conn: &mut MysqlConn| {
        put(id, 10)?;
        conn.batch_execute(text)?;
        Ok(())
    })
}

fn put_both_after(id: i64, on_home: bool, text: &str) -> Result<(), Error> {
    atomic_many::<(Item, Record)>().run(|scope| {
        put(id, 10)?;
        put_record(id, 20)?;
        let mut conn = if on_home { scope.conn::<Item, MysqlConn>()? } else { scope.conn::<Record, MysqlConn>()? };
        conn.batch_execute(text)?;
        Ok(())
    })
}

#[test]
fn a_temporary_table_that_hides_one_of_the_librarys_is_told_and_nothing_is_kept() {
    let Some((fixture, databases)) = installed(1) else { return };
    let _entered = databases.enter();
    for table in ["multidb_decision", "multidb_receipt", "multidb_once", "multidb_meta"] {
        let make = format!("CREATE TEMPORARY TABLE {table} (id BIGINT)");
        for text in [
            verified_after(1, &make).unwrap_err().to_string(),
            put_both_after(1, true, &make).unwrap_err().to_string(),
            put_both_after(1, false, &make).unwrap_err().to_string(),
        ] {
            assert!(text.contains(&format!("`{table}`")) && text.contains("temporary"), "{text}");
            assert!(text.contains("`default`") || text.contains("`other`"), "{text}");
        }
        for model in ["default", "other"] {
            let mut conn: MysqlConn = if model == "default" {
                connection::<Item, MysqlConn>().unwrap()
            } else {
                connection::<Record, MysqlConn>().unwrap()
            };
            conn.batch_execute(&format!("DROP TEMPORARY TABLE IF EXISTS {table}")).unwrap();
        }
    }
    assert_eq!((fixture.rows("default"), fixture.rows("other")), (vec![], vec![]));
    assert_eq!((own_rows(&fixture, "default"), own_rows(&fixture, "other")), (0, 0));
    verified_after(2, "SELECT 1").unwrap();
    put_both_after(3, true, "CREATE TEMPORARY TABLE anything (id BIGINT)").unwrap();
    assert!(databases.recover().unwrap().is_clear());
}

#[test]
fn a_database_whose_name_needs_quotes_has_the_tables() {
    let Some(fixture) = fixture() else { return };
    let name = format!("{}-it's", fresh_name());
    let quoted = format!("`{}`", name.replace('`', "``"));
    let table = format!("CREATE TABLE {quoted}.items (id BIGINT PRIMARY KEY, value BIGINT NOT NULL)");
    raw().batch_execute(&format!("CREATE DATABASE {quoted}; {table}")).unwrap();
    let (address, _) = server(Kind::Mysql).unwrap().rsplit_once('/').unwrap();
    let mut config = DatabaseConfig::new("default", format!("{address}/{name}"));
    config.pool.max_size = Some(1);
    let other = DatabaseConfig::new("other", fixture.urls[1].clone());
    let databases = Databases::builder().database(config).database(other).router(ByApp).build().unwrap();
    schema::install(&databases).unwrap();
    let _entered = databases.enter();
    for (id, text) in
        [(1, "USE test"), (2, "SET sql_mode = 'ANSI_QUOTES,NO_BACKSLASH_ESCAPES'"), (3, "SET sql_mode = 'ORACLE'")]
    {
        put_both_after(id, true, text).unwrap();
        verified_after(id + 10, text).unwrap();
    }
    let report = databases.recover().unwrap();
    assert!(report.is_clear(), "{report}");
    assert!(!databases.check().to_string().contains("missing"), "{}", databases.check());
}

#[derive(QueryableByName)]
struct Role {
    #[diesel(sql_type = Nullable<Text>)]
    role: Option<String>,
}

fn current_role(conn: &mut MysqlConn) -> QueryResult<Option<String>> {
    Ok(diesel::sql_query("SELECT CURRENT_ROLE() AS role").get_result::<Role>(conn)?.role)
}

#[test]
fn a_body_that_gives_its_role_up_writes_the_librarys_rows_as_the_service() {
    let Some(mut fixture) = fixture() else { return };
    let (user, owner, other) = (fresh_name(), fresh_name(), fresh_name());
    let names = fixture.urls.clone().map(|url| url.rsplit_once('/').unwrap().1.to_owned());
    let mut made = format!(
        "CREATE ROLE {owner}; CREATE ROLE {other}; CREATE USER {user} IDENTIFIED BY 'secret'; GRANT {owner} TO {user}; GRANT \
         {other} TO {user}; SET DEFAULT ROLE {owner} FOR {user}"
    );
    for name in &names {
        let grants = format!("; GRANT ALL ON {name}.* TO {owner}; GRANT INSERT, SELECT ON {name}.items TO {user}");
        made.push_str(&grants);
    }
    raw().batch_execute(&made).unwrap();
    for url in &mut fixture.urls {
        *url = url.replacen("tester:", &format!("{user}:"), 1);
    }
    let databases = fixture.builder(1).build().unwrap();
    schema::install(&databases).unwrap();
    let _entered = databases.enter();
    for (id, text) in (1..).zip(["SET ROLE NONE".to_owned(), format!("SET ROLE {other}")]) {
        let stays = if text.ends_with("NONE") { None } else { Some(other.clone()) };
        put_both_after(id, true, &text).unwrap_or_else(|error| panic!("{text}: {error}"));
        put_both_after(id + 10, false, &text).unwrap_or_else(|error| panic!("{text}: {error}"));
        verified_after(id + 20, &text).unwrap_or_else(|error| panic!("{text}: {error}"));
        let joined = atomic::<Item>().run(|conn: &mut MysqlConn| {
            conn.batch_execute(&text)?;
            put(id + 30, 10)?;
            put_record(id + 30, 20)?;
            assert_eq!(current_role(conn)?, stays);
            Ok::<_, Error>(())
        });
        joined.unwrap_or_else(|error| panic!("{text}: {error}"));
    }
    let report = databases.recover().unwrap();
    assert!(report.is_clear(), "{report}");
    assert_eq!((fixture.rows("default").len(), fixture.rows("other").len()), (8, 6));
}
