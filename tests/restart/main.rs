//! Servers that crash and come back. Each test has a server of its own, because a crash disturbs all who use it.
//!
//! What the database holds after the crash is read through a plain Diesel connection.

#![expect(clippy::unwrap_used, reason = "a test that can't go on panics")]
#![expect(clippy::duplicate_mod, reason = "the claims are compiled once for each server")]

#[cfg(feature = "testing")]
#[path = "../support/idle/mod.rs"]
#[expect(dead_code, reason = "other tests need the rest")]
mod idle;
mod models;
#[path = "../support/server.rs"]
mod server;
mod settings;
mod unprepared;

/// The claims on one server.
macro_rules! server {
    ($name:ident, $program:literal, $handle:ident, $raw:ident, $hurry:literal) => {
        #[path = "."]
        mod $name {
            pub(crate) use diesel::$raw as Raw;
            pub(crate) use multidb::$handle as H;

            pub(crate) const PROGRAM: &str = $program;

            /// Lets the server leave the disk alone: a server crashes here, and never the machine.
            pub(crate) const HURRY: &str = $hurry;

            mod crashes;
        }
    };
}

server!(postgres, "postgres", PgConn, PgConnection, "ALTER SYSTEM SET fsync = off");
server!(mysql, "mariadb", MysqlConn, MysqlConnection, "SET GLOBAL innodb_flush_log_at_trx_commit = 2");
