//! A fresh database of each kind for each test.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::support::servers;

/// The rows and the hooks that each pair of propagations leaves.
pub(crate) const PROPAGATION: &str = include_str!("propagation.txt");

/// The three backends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Sqlite,
    Postgres,
    Mysql,
}

/// The server's own database, where fresh ones are made; `None` leaves the backend's tests out, visibly.
///
/// From then on each pool that closes is looked at: see [`support::idle`](crate::support::idle).
pub(crate) fn server(kind: Kind) -> Option<&'static str> {
    #[cfg(all(feature = "sqlite", feature = "postgres", feature = "mysql", feature = "testing"))]
    crate::support::idle::watch(true);
    match kind {
        Kind::Sqlite => Some(""),
        Kind::Postgres => servers::postgres_url(),
        Kind::Mysql => servers::mysql_url(),
    }
}

/// A name that no other test uses.
pub(crate) fn fresh_name() -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    format!("t_{}_{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed))
}

/// How to make a database of this name, and its URL.
pub(crate) fn create_statement(kind: Kind, server: &str, name: &str) -> (String, String) {
    match kind {
        Kind::Sqlite => unreachable!("a SQLite file makes itself"),
        Kind::Postgres => (
            format!("CREATE SCHEMA {name}"),
            format!("{server}?options=-csearch_path%3D{name}&application_name={name}"),
        ),
        Kind::Mysql => {
            let (address, _) = server.rsplit_once('/').unwrap();
            (format!("CREATE DATABASE {name}"), format!("{address}/{name}"))
        }
    }
}
