//! The private servers that `scripts/servers` started for the tests.
//!
//! Killing or restarting a server disturbs every test that uses it at that moment.

use std::env;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
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

    /// Its name on the command line of `scripts/servers`.
    fn name(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::MariaDb => "mariadb",
        }
    }

    /// Where it writes the statements that it gets, inside the servers' folder.
    fn log_file(self) -> &'static str {
        match self {
            Self::Postgres => "postgres/server.log",
            Self::MariaDb => "mariadb/statements.log",
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

/// Ends the server at once with SIGKILL, as a crash does.
pub fn kill_server(server: Server) {
    run_script("kill", server);
}

/// Starts the server again on the same port and waits until it accepts connections.
/// A server that runs is stopped first.
pub fn restart_server(server: Server) {
    run_script("restart", server);
}

/// Every statement that the server got since it was made, with the server's own messages.
pub fn server_log(server: Server) -> String {
    let path = PathBuf::from(variable("MULTIDB_TEST_SERVERS_DIR")).join(server.log_file());
    match std::fs::read(&path) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) => panic!("the log {} cannot be read: {error}", path.display()),
    }
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

fn run_script(action: &str, server: Server) {
    let output = Command::new(variable("MULTIDB_TEST_SERVERS_SCRIPT"))
        .args([action, &variable("MULTIDB_TEST_SERVERS_DIR"), server.name()])
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("scripts/servers cannot be run: {error}"));
    assert!(
        output.status.success(),
        "scripts/servers {action} {} failed:\n{}",
        server.name(),
        String::from_utf8_lossy(&output.stderr)
    );
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run scripts/test"))
}
