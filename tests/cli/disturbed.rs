//! Other programs on the same files.
//!
//! The program reads its lines from a pipe, so that a test decides what happens between two of them.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection;

use crate::bank::{Bank, Run, SMALL};

const LIMIT: Duration = Duration::from_secs(30);

struct Fed {
    bank: Bank,
    child: Child,
    pipe: File,
}

impl Fed {
    /// A run that has committed its first line, `1,2,300`, and waits for the second.
    fn start() -> Self {
        let bank = Bank::new();
        let path = bank.path("lines.fifo");
        assert!(Command::new("mkfifo").arg(&path).status().expect("mkfifo starts").success());
        // Open for reading too: opening a pipe that nobody reads yet would wait, for ever if the program has failed.
        let mut pipe = OpenOptions::new().read(true).write(true).open(&path).expect("the pipe");
        pipe.write_all(b"1,2,300\n").expect("a line");
        let child = bank.command().args(SMALL).arg(&path).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let fed = Self { child: child.expect("the program starts"), bank, pipe };
        wait_until("the first line is committed", || fed.bank.look_at_balance(1) == Some(700));
        fed
    }

    fn feed(&mut self, line: &str) {
        self.pipe.write_all(line.as_bytes()).expect("a line");
    }

    fn finish(self) -> (Bank, Run) {
        let Self { bank, child, pipe } = self;
        drop(pipe);
        (bank, Run::from(child.wait_with_output().expect("the program ends")))
    }
}

fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < LIMIT, "this did not come about: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_file_that_stays_locked_stops_the_run_after_a_summary() {
    for database in ["bank.db", "ledger.db"] {
        let mut fed = Fed::start();
        let mut other = fed.bank.open(database);
        other.batch_execute("BEGIN IMMEDIATE").expect("the lock");
        fed.feed("2,3,5\n3,4,5\n");
        let (bank, run) = fed.finish();
        other.batch_execute("ROLLBACK").expect("no lock");
        let run = run.stopped_with("stopped at line 2, the lines before it are done");
        assert!(run.stderr.contains("locked"), "{run:#?}");
        assert_eq!((run.count("committed"), run.count("rejected")), (1, 0), "{run:#?}");
        assert!(run.stdout.contains("check: not made"), "{run:#?}");
        assert_eq!(bank.balances(), [700, 1300, 1000, 1000]);
        assert_eq!(bank.entries().len(), 2);
        bank.run("").went_well();
    }
}

#[test]
fn a_lock_that_goes_away_in_time_is_waited_for() {
    for database in ["bank.db", "ledger.db"] {
        let mut fed = Fed::start();
        let mut other = fed.bank.open(database);
        other.batch_execute("BEGIN IMMEDIATE").expect("the lock");
        fed.feed("2,3,5\n");
        // Longer than SQLite waits by itself: the program has to try again.
        std::thread::sleep(Duration::from_millis(1100));
        other.batch_execute("ROLLBACK").expect("no lock");
        let (bank, run) = fed.finish();
        assert_eq!(run.went_well().count("committed"), 2);
        assert_eq!(bank.entries().len(), 4);
    }
}

/// A reader lets the balances be written to the cache and not to the file, so it is the COMMIT that fails.
#[test]
fn a_commit_that_fails_leaves_neither_file_with_the_transfer() {
    for database in ["bank.db", "ledger.db"] {
        let mut fed = Fed::start();
        let mut reader = fed.bank.open(database);
        let table = if database == "bank.db" { "accounts" } else { "entries" };
        reader.batch_execute(&format!("BEGIN; SELECT count(*) FROM {table}")).expect("a read lock");
        fed.feed("2,3,5\n3,4,5\n");
        let (bank, run) = fed.finish();
        reader.batch_execute("ROLLBACK").expect("no lock");
        run.stopped_with("stopped at line 2, the lines before it are done");
        assert_eq!(bank.balances(), [700, 1300, 1000, 1000]);
        assert_eq!(bank.entries().len(), 2);
        bank.run("").went_well();
    }
}

/// The points that a run on two files passes.
const POINTS: [&str; 7] = [
    "transfer.debited",
    "transfer.credited",
    "transfer.recorded",
    "transfer.committed",
    "alone.before_commit.0",
    "alone.after_commit.0",
    "connection.before_return",
];

#[test]
fn a_kill_at_any_point_leaves_both_files_with_the_transfer_or_both_without_it() {
    let lines = "1,2,300\n2,3,50\n";
    for point in POINTS {
        let bank = Bank::new();
        // The scopes that set the bank up are on one file each, and pass none of these points.
        let run = bank.run_with(&[&SMALL[..], &["--crash", point, "--crash-after", "1"]].concat(), lines);
        assert_eq!(run.status, None, "killed at {point}: {run:#?}");
        let run = bank.run("").went_well();
        assert!(run.stdout.starts_with("recovery: "), "{run:#?}");
        let is_in = ["transfer.committed", "alone.after", "connection."].iter().any(|done| point.starts_with(done));
        assert_eq!(bank.entries().len(), if is_in { 4 } else { 2 }, "{point}");
        let found = run.stdout.contains("an unfinished commit was found");
        assert_eq!(found, !is_in, "{point}: {run:#?}");
    }
}

#[test]
fn a_kill_at_any_moment_leaves_both_files_in_agreement() {
    const KILLS: u64 = 20;
    let bank = Bank::new();
    bank.run("").went_well();
    std::fs::write(bank.path("many.csv"), "1,2,1\n2,1,1\n".repeat(2_000)).expect("the CSV file");
    let mut before = 0;
    for kill in 0..KILLS {
        let mut command = bank.command();
        let child = command.arg(bank.path("many.csv")).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let mut child = child.expect("the program starts");
        // At another moment each time: nobody knows which, and any must do.
        wait_until("some lines are committed", || bank.entries().len() > before);
        std::thread::sleep(Duration::from_micros(997 * kill));
        child.kill().expect("a kill");
        child.wait().expect("its end");
        bank.run("").went_well();
        before = bank.entries().len();
    }
    assert!(before >= usize::try_from(2 * KILLS).expect("few"), "only {before} entries");
}

#[test]
fn a_point_that_does_not_exist_or_is_never_passed_is_told() {
    let bank = Bank::new();
    bank.run_with(&["--crash", "nowhere"], "").stopped_with("`--points` lists them");
    let run = bank.run_with(&[&SMALL[..], &["--crash", "prepare.after.1"]].concat(), "1,2,5\n").went_well();
    assert!(run.stderr.contains("`prepare.after.1` was never passed"), "{run:#?}");
    let listed = bank.run_with(&["--points"], "");
    assert!(POINTS.iter().all(|point| listed.stdout.lines().any(|line| line == *point)), "{listed:#?}");
}

#[test]
fn two_runs_on_one_folder_lose_nothing() {
    let bank = Bank::new();
    bank.run("").went_well();
    let lines = "1,2,1\n".repeat(60);
    std::fs::write(bank.path("many.csv"), lines).expect("the CSV file");
    let start = || {
        let mut command = bank.command();
        command.arg(bank.path("many.csv")).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()
    };
    let children = [start(), start()].map(|child| child.expect("the program starts"));
    for child in children {
        let run = Run::from(child.wait_with_output().expect("the program ends")).went_well();
        assert_eq!(run.count("committed"), 60);
    }
    assert_eq!(bank.balances(), [880, 1120, 1000, 1000]);
    assert_eq!(bank.entries().len(), 240);
}
