//! A folder with a bank in it, and the program to run on it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Text};
use tempfile::TempDir;

use crate::program::program;

/// Enough for the small files of these tests, and the balances stay readable.
pub const SMALL: [&str; 4] = ["--accounts", "4", "--opening", "1000"];

/// Where files never reach a disk: each transfer waits for several syncs, which take long on a disk that others use.
const IN_MEMORY: &str = "/dev/shm";

pub struct Bank {
    folder: TempDir,
}

#[derive(QueryableByName, Debug, PartialEq, Eq)]
pub struct Entry {
    #[diesel(sql_type = BigInt)]
    pub transfer: i64,
    #[diesel(sql_type = BigInt)]
    pub account: i64,
    #[diesel(sql_type = BigInt)]
    pub cents: i64,
}

#[derive(QueryableByName)]
struct Balance {
    #[diesel(sql_type = BigInt)]
    balance: i64,
}

#[derive(QueryableByName)]
struct Mode {
    #[diesel(sql_type = Text)]
    journal_mode: String,
}

impl Bank {
    pub fn new() -> Self {
        let folder = if Path::new(IN_MEMORY).is_dir() { tempfile::tempdir_in(IN_MEMORY) } else { tempfile::tempdir() };
        Self { folder: folder.expect("a temporary folder") }
    }

    /// The folder that the program is given with `--dir`: it has to create it.
    pub fn dir(&self) -> PathBuf {
        self.folder.path().join("deep/bank")
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs a file with these bytes on four accounts of 1000 cents.
    pub fn run(&self, csv: impl AsRef<[u8]>) -> Run {
        self.run_with(&SMALL, csv)
    }

    pub fn run_with(&self, arguments: &[&str], csv: impl AsRef<[u8]>) -> Run {
        let file = self.path("lines.csv");
        fs::write(&file, csv).expect("the CSV file");
        Run::of(self.command().args(arguments).arg(file))
    }

    pub fn command(&self) -> Command {
        let mut command = Command::new(program("bank"));
        command.current_dir(self.folder.path()).arg("--dir").arg(self.dir());
        command
    }

    pub fn open(&self, database: &str) -> SqliteConnection {
        let file = self.dir().join(database);
        assert!(file.exists(), "{} does not exist", file.display());
        let mut conn = SqliteConnection::establish(file.to_str().expect("a path in UTF-8")).expect("the database");
        conn.batch_execute("PRAGMA busy_timeout = 20000").expect("a pragma");
        conn
    }

    pub fn balances(&self) -> Vec<i64> {
        let query = diesel::sql_query("SELECT balance FROM accounts ORDER BY id");
        let rows: Vec<Balance> = query.load(&mut self.open("bank.db")).expect("the balances");
        rows.into_iter().map(|row| row.balance).collect()
    }

    /// A balance, if the bank has come so far that it has one.
    pub fn look_at_balance(&self, id: i64) -> Option<i64> {
        if !self.dir().join("bank.db").exists() {
            return None;
        }
        let query = diesel::sql_query("SELECT balance FROM accounts WHERE id = ?").bind::<BigInt, _>(id);
        query.get_result(&mut self.open("bank.db")).ok().map(|row: Balance| row.balance)
    }

    pub fn entries(&self) -> Vec<Entry> {
        let query = diesel::sql_query("SELECT transfer, account, cents FROM entries ORDER BY transfer, cents");
        query.load(&mut self.open("ledger.db")).expect("the entries")
    }

    pub fn journal_mode(&self, database: &str) -> String {
        let mode: Mode = diesel::sql_query("PRAGMA journal_mode").get_result(&mut self.open(database)).expect("a mode");
        mode.journal_mode
    }

    pub fn execute(&self, database: &str, sql: &str) {
        self.open(database).batch_execute(sql).expect("a statement of the test");
    }
}

/// What the program said.
#[derive(Debug)]
pub struct Run {
    pub status: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Run {
    pub fn of(command: &mut Command) -> Self {
        Self::from(command.output().expect("the program starts"))
    }

    /// The number on the line of the summary that begins with `name`; 0 where there is none.
    pub fn count(&self, name: &str) -> u64 {
        let numbers = self.stdout.lines().filter_map(|line| line.trim().strip_prefix(name)?.trim().parse::<u64>().ok());
        numbers.sum()
    }

    /// The lines that were rejected: their numbers and the reasons.
    pub fn rejected(&self) -> Vec<(u64, &str)> {
        let lines = self.stderr.lines().filter_map(|line| line.strip_prefix("line ")?.split_once(": rejected: "));
        lines.map(|(number, reason)| (number.parse().expect("a line number"), reason)).collect()
    }

    /// Asserts that the run went through and that the check was good.
    #[track_caller]
    pub fn went_well(self) -> Self {
        assert_eq!(self.status, Some(0), "{self:#?}");
        assert!(self.stdout.contains("plus its entries: ok"), "{self:#?}");
        self
    }

    /// Asserts that the program refused or stopped, with this in its message.
    #[track_caller]
    pub fn stopped_with(self, text: &str) -> Self {
        assert_eq!(self.status, Some(2), "{self:#?}");
        assert!(self.stderr.contains(text), "{self:#?}");
        self
    }
}

impl From<Output> for Run {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).expect("output in UTF-8");
        Self { status: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}
