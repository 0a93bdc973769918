//! The private servers that `scripts/servers` started for the tests.

use std::env;
use std::io::{self, Write};
use std::sync::OnceLock;

/// A server that the tests use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Server {
    Postgres,
    MariaDb,
}

impl Server {
    fn title(self) -> &'static str {
        match self {
            Self::Postgres => "PostgreSQL",
            Self::MariaDb => "MariaDB",
        }
    }

    fn url_variable(self) -> &'static str {
        match self {
            Self::Postgres => "MULTIDB_TEST_POSTGRES_URL",
            Self::MariaDb => "MULTIDB_TEST_MYSQL_URL",
        }
    }
}

/// The URL of the PostgreSQL server, or `None` if its tests are left out.
pub fn postgres_url() -> Option<&'static str> {
    static URL: OnceLock<Option<String>> = OnceLock::new();
    URL.get_or_init(|| url_of(Server::Postgres)).as_deref()
}

/// The URL of the MariaDB server, or `None` if its tests are left out.
pub fn mysql_url() -> Option<&'static str> {
    static URL: OnceLock<Option<String>> = OnceLock::new();
    URL.get_or_init(|| url_of(Server::MariaDb)).as_deref()
}

fn url_of(server: Server) -> Option<String> {
    let url = env::var(server.url_variable()).ok().filter(|url| !url.is_empty());
    if url.is_none() {
        let title = server.title();
        assert!(
            env::var("MULTIDB_TEST_SERVERS").as_deref() != Ok("required"),
            "the {title} server is missing: run scripts/test"
        );
        // The test harness would hide what `eprintln!` writes. If nobody can
        // read the note, the tests are still left out.
        let _ = writeln!(io::stderr(), "left out: tests on {title} (run scripts/test to include them)");
    }
    url
}
