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
        std::thread::sleep(Duration::from_millis(1500));
        other.batch_execute("ROLLBACK").expect("no lock");
        let (bank, run) = fed.finish();
        assert_eq!(run.went_well().count("committed"), 2);
        assert_eq!(bank.entries().len(), 4);
    }
}

/// A reader lets the balances be written to the cache and not to the file, so the second commit is the one that fails.
#[test]
fn a_transfer_that_only_the_ledger_has_stops_the_run_and_is_named() {
    let mut fed = Fed::start();
    let mut reader = fed.bank.open("bank.db");
    reader.batch_execute("BEGIN; SELECT count(*) FROM accounts").expect("a read lock");
    fed.feed("2,3,5\n3,4,5\n");
    let (bank, run) = fed.finish();
    reader.batch_execute("ROLLBACK").expect("no lock");
    run.stopped_with("transfer 2 is in the ledger");
    assert_eq!(bank.balances(), [700, 1300, 1000, 1000]);
    assert_eq!(bank.entries().len(), 4);

    let run = bank.run("");
    assert_eq!(run.status, Some(1), "{run:#?}");
    assert!(run.stdout.contains("account 2: its balance is 1300, its opening plus its entries is 1295"), "{run:#?}");
    bank.execute("ledger.db", "DELETE FROM entries WHERE transfer = 2");
    bank.run("").went_well();
}

/// What the example says of itself as long as there is no atomic commit over two databases.
#[test]
fn a_kill_between_the_two_commits_is_found_by_the_next_check() {
    let mut fed = Fed::start();
    let mut reader = fed.bank.open("bank.db");
    reader.batch_execute("BEGIN; SELECT count(*) FROM accounts").expect("a read lock");
    fed.feed("2,3,5\n");
    wait_until("the ledger has the second line", || fed.bank.entries().len() == 4);
    fed.child.kill().expect("a kill");
    let (bank, run) = fed.finish();
    reader.batch_execute("ROLLBACK").expect("no lock");
    assert_eq!(run.status, None, "{run:#?}");
    assert_eq!(bank.balances(), [700, 1300, 1000, 1000]);
    let run = bank.run("");
    assert_eq!(run.status, Some(1), "{run:#?}");
    assert!(run.stdout.contains("account 3: its balance is 1000, its opening plus its entries is 1005"), "{run:#?}");
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
