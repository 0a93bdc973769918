//! PostgreSQL that says something else than it is: what the library calls is replaced, in a database of its own.

use diesel::connection::SimpleConnection;
use diesel::prelude::*;

use crate::fixture::{Kind, create_statement, fresh_name, server};
use crate::postgres::Fixture;

/// Gives one of the databases a server's database of its own, in which `function` of the system's, with these types of
/// arguments, has another body. Its own name begins with `real_`.
pub(crate) fn fake(fixture: &mut Fixture, at: usize, function: &str, arguments: &str, made: &str) {
    let server = server(Kind::Postgres).unwrap();
    let name = fresh_name();
    let (schema, url) = create_statement(Kind::Postgres, server, &name);
    let url = url.replacen("/test?", &format!("/{name}?"), 1);
    PgConnection::establish(server).unwrap().batch_execute(&format!("CREATE DATABASE {name}")).unwrap();
    let table = "CREATE TABLE items (id BIGINT PRIMARY KEY, value BIGINT NOT NULL)";
    let mut raw = PgConnection::establish(&url).unwrap();
    raw.batch_execute(&format!("{schema}; {table}")).unwrap();
    let rename = format!("ALTER FUNCTION pg_catalog.{function}({arguments}) RENAME TO real_{function}");
    raw.batch_execute(&rename).unwrap();
    raw.batch_execute(made).unwrap();
    fixture.urls[at] = url;
}
