//! Bodies that change what a name means. The library's own rows are where everybody looks all the same.

use std::cell::Cell;

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use multidb::{Databases, Error, atomic, atomic_many, connection, schema, scope, status};

use super::across::own_rows;
use super::in_doubt::Far;
use super::lost::COMMIT;
use super::witness::behind_proxy;
use super::*;
use crate::fixture::{Kind, create_statement, fresh_name};

/// A tenant's schema or database beside the first one, with tables of the library's own too.
struct Tenant(String);

impl Tenant {
    fn new() -> Self {
        let name = fresh_name();
        let server = crate::fixture::server(KIND).unwrap();
        let (create, url) = create_statement(KIND, server, &name);
        Raw::establish(server).unwrap().batch_execute(&create).unwrap();
        let databases = Databases::builder().database(multidb::DatabaseConfig::new("default", url)).build().unwrap();
        schema::install(&databases).unwrap();
        Self(name)
    }

    /// Goes there, until the transaction or the session ends.
    fn enter(&self) -> String {
        match KIND {
            Kind::Mysql => format!("USE {}", self.0),
            _ => format!("SET LOCAL search_path TO {}", self.0),
        }
    }

    /// Goes there to stay.
    fn settle(&self) -> String {
        match KIND {
            Kind::Mysql => format!("USE {}", self.0),
            _ => format!("SET search_path TO {}, public", self.0),
        }
    }

    /// How many rows the library has written there.
    fn rows(&self) -> i64 {
        let server = crate::fixture::server(KIND).unwrap();
        let (_, url) = create_statement(KIND, server, &self.0);
        let mut raw = Raw::establish(&url).unwrap();
        let counted = ["multidb_decision", "multidb_once", "multidb_receipt"].map(|table| {
            let count = format!("SELECT COUNT(*) AS number FROM {table}");
            diesel::sql_query(count).get_result::<Number>(&mut raw).unwrap().number
        });
        counted.into_iter().sum()
    }
}

#[derive(QueryableByName)]
struct Number {
    #[diesel(sql_type = diesel::sql_types::BigInt)]
    number: i64,
}

fn installed(size: u32) -> Option<(Fixture, Databases)> {
    let fixture = fixture()?;
    let databases = fixture.builder(size).build().unwrap();
    schema::install(&databases).unwrap();
    Some((fixture, databases))
}

#[test]
fn a_decision_and_a_receipt_are_at_home_wherever_the_body_has_gone() {
    let Some((fixture, databases)) = installed(2) else { return };
    let _entered = databases.enter();
    let tenant = Tenant::new();
    for (id, on_home) in [(1, true), (2, false)] {
        let mut named = None;
        let run = atomic_many::<(Item, Record)>().run(|scope| {
            named = scope::current();
            put(id, 10)?;
            put_record(id, 20)?;
            let mut conn = if on_home { scope.conn::<Item, H>()? } else { scope.conn::<Record, H>()? };
            conn.batch_execute(&tenant.enter())?;
            Ok::<_, Error>(())
        });
        run.unwrap();
        assert_eq!(status(&named.unwrap()).unwrap(), multidb::TransactionStatus::Committed);
        let found = [own_rows(&fixture, "default"), own_rows(&fixture, "other"), tenant.rows()];
        assert_eq!(found, [id, id, 0], "on home {on_home}");
    }
    assert_eq!((fixture.rows("default").len(), fixture.rows("other").len()), (2, 2));
}

#[test]
fn a_database_that_joins_after_the_body_has_gone_elsewhere_is_told_the_right_home() {
    let Some((fixture, databases)) = installed(2) else { return };
    let _entered = databases.enter();
    let tenant = Tenant::new();
    let run = atomic::<Item>().run(|conn: &mut H| {
        put(1, 10)?;
        conn.batch_execute(&tenant.enter())?;
        put_record(1, 20)
    });
    run.unwrap();
    assert_eq!([own_rows(&fixture, "default"), own_rows(&fixture, "other"), tenant.rows()], [1, 1, 0]);
    assert!(databases.recover().unwrap().is_clear());
}

#[test]
fn a_lost_reply_is_resolved_where_the_row_is_wherever_the_body_has_gone() {
    let Some(fixture) = fixture() else { return };
    let (proxy, databases) = behind_proxy(&fixture, 2);
    schema::install(&databases).unwrap();
    let _entered = databases.enter();
    let tenant = Tenant::new();
    proxy.drop_replies_when(COMMIT);
    let runs = Cell::new(0);
    let run = atomic::<Item>().verify_commit().retry(3).run(|conn: &mut H| {
        runs.set(runs.get() + 1);
        put(runs.get(), 10)?;
        conn.batch_execute(&tenant.enter())?;
        Ok::<_, Error>(())
    });
    assert!(proxy.hit());
    proxy.clear();
    run.unwrap();
    assert_eq!((runs.get(), fixture.rows("default")), (1, vec![(1, 10)]));
    assert_eq!((own_rows(&fixture, "default"), tenant.rows()), (1, 0));
}

#[test]
fn a_key_is_found_again_wherever_the_connection_was_left() {
    let Some((fixture, databases)) = installed(1) else { return };
    let _entered = databases.enter();
    let tenant = Tenant::new();
    let runs = Cell::new(0);
    let call = || {
        atomic::<Item>().label("call").once("key").run(|_: &mut H| {
            runs.set(runs.get() + 1);
            Ok::<_, Error>(runs.get())
        })
    };
    assert_eq!(call().unwrap(), 1);
    connection::<Item, H>().unwrap().batch_execute(&tenant.settle()).unwrap();
    assert_eq!(call().unwrap(), 1, "after a session has gone elsewhere");
    let inside = atomic::<Item>().run(|conn: &mut H| {
        conn.batch_execute(&tenant.enter())?;
        call()
    });
    assert_eq!((inside.unwrap(), runs.get(), tenant.rows()), (1, 1, 0));
    let stored = atomic::<Item>().label("store").once("other").run(|conn: &mut H| {
        conn.batch_execute(&tenant.enter())?;
        Ok::<_, Error>(7)
    });
    assert_eq!((stored.unwrap(), tenant.rows()), (7, 0));
    connection::<Item, H>().unwrap().batch_execute(&tenant.settle()).unwrap();
    fixture.observer("default").batch_execute("UPDATE multidb_once SET created = 0").unwrap();
    assert_eq!(scope::forget_once(&databases, scope::ONCE_RETENTION).unwrap(), 2);
}

#[test]
fn tables_that_are_made_after_the_first_statement_are_found() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.builder(1).build().unwrap();
    let _entered = databases.enter();
    let tenant = Tenant::new();
    put(1, 10).unwrap();
    let verified = |id| {
        atomic::<Item>().verify_commit().run(|conn: &mut H| {
            put(id, 10)?;
            conn.batch_execute(&tenant.enter())?;
            Ok::<_, Error>(())
        })
    };
    let text = verified(2).unwrap_err().to_string();
    assert!(text.contains("schema::install") && text.contains("`default`"), "{text}");
    // Another process makes them.
    schema::install(&fixture.databases()).unwrap();
    verified(3).unwrap();
    assert_eq!(fixture.rows("default"), [(1, 10), (3, 10)]);
    assert_eq!((own_rows(&fixture, "default"), tenant.rows()), (1, 0));
}

#[test]
fn a_commit_that_is_in_doubt_is_finished_wherever_its_body_had_gone() {
    let Some(far) = Far::new() else { return };
    let tenant = Tenant::new();
    far.put_both(100).result.unwrap();
    far.proxies[0].drop_replies_when(COMMIT);
    let result = {
        let _entered = far.databases.enter();
        atomic_many::<(Item, Record)>().run(|scope| {
            put(1, 10)?;
            put_record(1, 20)?;
            scope.conn::<Item, H>()?.batch_execute(&tenant.enter())?;
            Ok::<_, Error>(())
        })
    };
    assert!(far.proxies[0].hit());
    far.proxies[0].clear();
    result.unwrap();
    far.recover();
    assert_eq!((far.prepared(), tenant.rows()), (0, 0));
    assert!(far.agree(1, "it has committed"));
}
