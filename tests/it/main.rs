//! The library on real databases. Each file of `each/` is compiled once for each backend, and runs the same claims
//! there. What the database holds is always read through a plain Diesel connection of the test's own.

#![cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
#![cfg_attr(
    all(feature = "postgres", feature = "mysql"),
    expect(clippy::duplicate_mod, reason = "the claims are compiled once for each backend")
)]
#![expect(clippy::unwrap_used, reason = "a test that can't go on panics")]

#[path = "../support/mod.rs"]
mod support;

mod documents;
mod fixture;
mod journal;
mod recorder;

/// The claims of `each/` on one backend.
macro_rules! backend {
    ($feature:literal, $name:ident, $kind:ident, $handle:ident, $raw:ident) => {
        #[cfg(feature = $feature)]
        #[path = "each"]
        mod $name {
            pub(crate) use diesel::$raw as Raw;
            pub(crate) use multidb::$handle as H;

            pub(crate) const KIND: crate::fixture::Kind = crate::fixture::Kind::$kind;

            mod database;
            pub(crate) use database::*;

            pub(crate) mod across;
            mod any;
            mod any_generic;
            mod attribute_options;
            #[cfg(feature = "testing")]
            mod best_effort;
            mod composition;
            mod django_errors;
            mod django_hooks;
            mod django_routers;
            mod django_transactions;
            mod doom;
            mod ended;
            mod exact;
            mod handle;
            mod handle_transactions;
            mod hooks;
            mod independent;
            mod lent;
            mod levels;
            mod manual;
            mod named_errors;
            mod newsroom;
            mod once;
            mod options;
            mod panics;
            mod peers;
            mod pools;
            mod propagations;
            mod raw_texts;
            #[cfg(feature = "testing")]
            mod rehearsed;
            #[cfg(feature = "testing")]
            mod rehearsed_across;
            mod retry;
            mod routes;
            mod secrets;
            mod spans;
            mod tables;
            #[cfg(feature = "testing")]
            mod test_kit;
            mod wandering;
        }
    };
}

mod addresses;
#[cfg(feature = "sqlite")]
mod aliases;
#[cfg(all(feature = "sqlite", feature = "postgres", feature = "mysql", feature = "testing"))]
mod best_effort;
mod checks;
mod cursors;
#[cfg(feature = "postgres")]
mod faked;
#[cfg(all(feature = "postgres", feature = "mysql", feature = "sqlite"))]
mod home_reads;
#[cfg(all(feature = "sqlite", feature = "testing"))]
mod layouts;
#[cfg(all(feature = "postgres", feature = "mysql", feature = "sqlite"))]
mod missing_tables;
#[cfg(feature = "mysql")]
mod mysql_across;
#[cfg(feature = "mysql")]
mod mysql_only;
#[cfg(feature = "mysql")]
mod mysql_reads;
#[cfg(feature = "mysql")]
mod mysql_sessions;
#[cfg(feature = "mysql")]
mod mysql_texts;
#[cfg(feature = "mysql")]
mod mysql_waits;
#[cfg(feature = "sqlite")]
mod one_file_each;
#[cfg(all(feature = "sqlite", feature = "postgres", feature = "mysql", feature = "testing"))]
mod placed;
#[cfg(feature = "postgres")]
mod postgres_across;
#[cfg(feature = "postgres")]
mod postgres_only;
#[cfg(feature = "postgres")]
mod postgres_roles;
#[cfg(feature = "postgres")]
mod postgres_schemas;
#[cfg(feature = "postgres")]
mod postgres_texts;
#[cfg(all(feature = "sqlite", feature = "postgres", feature = "mysql", feature = "testing"))]
mod programs;
#[cfg(feature = "sqlite")]
mod sqlite_locks;
#[cfg(feature = "sqlite")]
mod sqlite_migrations;
#[cfg(feature = "sqlite")]
mod sqlite_only;
#[cfg(feature = "sqlite")]
mod sqlite_texts;
#[cfg(any(feature = "postgres", feature = "mysql"))]
mod stale;
#[cfg(feature = "sqlite")]
mod variables;
mod wrong_backend;

/// The claims of `each_server/` on a backend that is a server.
macro_rules! server {
    ($feature:literal, $name:ident, $backend:ident) => {
        #[cfg(feature = $feature)]
        #[path = "each_server"]
        mod $name {
            pub(crate) use crate::$backend::*;

            mod acknowledged;
            mod asked;
            mod best_effort;
            mod contended;
            mod crossed;
            mod django_lost;
            mod elsewhere;
            mod faults;
            pub(crate) mod in_doubt;
            mod lost;
            mod recovery_thread;
            mod twins;
            mod verified;
            mod witness;
        }
    };
}

backend!("sqlite", sqlite, Sqlite, SqliteConn, SqliteConnection);
backend!("postgres", postgres, Postgres, PgConn, PgConnection);
backend!("mysql", mysql, Mysql, MysqlConn, MysqlConnection);
server!("postgres", postgres_server, postgres);
server!("mysql", mysql_server, mysql);

/// The harness shows what a test prints only where it fails, so this goes past it.
#[test]
fn what_is_left_out_is_told() {
    use std::io::Write;
    for (on, title) in [
        (cfg!(feature = "postgres"), "on PostgreSQL"),
        (cfg!(feature = "mysql"), "on MariaDB"),
        (cfg!(feature = "testing"), "of the feature `testing`"),
    ] {
        if !on {
            let _ = writeln!(std::io::stderr(), "left out: tests {title} (run scripts/test to include them)");
        }
    }
}
