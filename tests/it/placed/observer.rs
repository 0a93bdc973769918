//! Connections that know nothing of the library.

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sql_types::{Binary, Text};
use diesel::{MysqlConnection, PgConnection, SqliteConnection};

/// A plain Diesel connection to one database.
pub(super) enum Observer {
    Postgres(PgConnection),
    Mysql(MysqlConnection),
    Sqlite(SqliteConnection),
}

#[derive(QueryableByName)]
struct Line {
    #[diesel(sql_type = Text)]
    text: String,
}

/// Others' names need not be text.
#[derive(QueryableByName)]
struct Recovered {
    #[diesel(sql_type = Binary)]
    data: Vec<u8>,
}

impl Observer {
    /// Runs a text of statements.
    pub(super) fn run(&mut self, sql: &str) -> QueryResult<()> {
        match self {
            Self::Postgres(conn) => conn.batch_execute(sql),
            Self::Mysql(conn) => conn.batch_execute(sql),
            Self::Sqlite(conn) => conn.batch_execute(sql),
        }
    }

    /// The column `text` of a query.
    pub(super) fn texts(&mut self, sql: &str) -> Vec<String> {
        let query = diesel::sql_query(sql);
        let lines: Vec<Line> = match self {
            Self::Postgres(conn) => query.load(conn),
            Self::Mysql(conn) => query.load(conn),
            Self::Sqlite(conn) => query.load(conn),
        }
        .unwrap();
        lines.into_iter().map(|line| line.text).collect()
    }

    /// The names of the branches that the server has prepared.
    pub(super) fn prepared(&mut self) -> Vec<String> {
        match self {
            Self::Postgres(_) => self.texts("SELECT gid AS text FROM pg_prepared_xacts"),
            Self::Mysql(conn) => {
                let found: Vec<Recovered> = diesel::sql_query("XA RECOVER").load(conn).unwrap();
                found.into_iter().map(|row| String::from_utf8_lossy(&row.data).into_owned()).collect()
            }
            Self::Sqlite(_) => Vec::new(),
        }
    }

    /// Fails while anybody else holds a lock on a whole SQLite file.
    pub(super) fn finds_no_lock(&mut self) -> QueryResult<()> {
        if let Self::Sqlite(conn) = self { conn.batch_execute("BEGIN IMMEDIATE; ROLLBACK") } else { Ok(()) }
    }
}
