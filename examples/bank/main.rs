//! A bank with two databases: balances in bank.db, what was done in ledger.db. Or on servers, where a URL says so.
//!
//! ```sh
//! cargo run --example bank -- [--dir DIR] [--accounts N] [--opening CENTS] [FILE.csv]
//! cargo run --example bank -- --points
//! cargo run --example bank -- --crash transfer.credited
//! cargo run --example bank --features postgres,mysql -- --url-bank postgres://.. --url-ledger mysql://..
//! ```
//!
//! Each line `from,to,cents` of the CSV file is one call of the annotated `transfer`, which calls `debit`, `credit` and
//! `record`. None of them is given a connection: the router says which model lives in which database. A line that can't be
//! done is rejected with its number and a reason, and the next one runs. At the end every balance is compared with what
//! the ledger says. A second run on the same folder goes on where the first one ended.
//!
//! # Any backend
//!
//! The handle of each function is `AnyConn`, so the same functions run on a SQLite file, on PostgreSQL and on MariaDB, and
//! either database may be any of them. What that takes: the tables are written in the words of each backend, and made
//! outside of scopes on servers, since a DDL on MariaDB commits (`tables.rs`); and as `AnyConn` has only what all backends
//! have, which a locking read is not, other runs are kept out by a row that is written (`lock_bank`). A URL may hold a
//! password, and other users of the machine can read a command line: `PGPASSWORD` and `PGPASSFILE` keep it out of there.
//!
//! # Two databases, one commit
//!
//! `transfer` lists models of both databases, so it commits on both or on neither: two files are committed by SQLite as one,
//! and servers in two phases. A kill at any moment, also of the machine, leaves both with the transfer or both without it.
//! What a killed run has left half-done on servers is finished by the next start, which says what it did. `--points` lists
//! points at which `--crash` kills the run.
//!
//! # Exit status
//!
//! 0 when all is well, whatever was rejected; 1 when the check failed; 2 for bad usage and for an error that stopped
//! the run, such as a file that another program keeps locked.

mod check;
mod cli;
mod crash;
mod csv_lines;
mod error;
mod input;
mod order;
mod progress;
mod reason;
mod recovery;
mod setup;
mod store;
mod summary;
mod tables;
mod transfer;

use std::fmt::Display;
use std::io::{self, BufRead, Write};
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;

use crate::cli::Arguments;
use crate::csv_lines::Lines;
use crate::error::{BankError, retry};
use crate::input::Input;
use crate::order::Order;
use crate::progress::Progress;
use crate::setup::Bank;
use crate::store::Backends;
use crate::summary::Summary;

const CHECK_FAILED: u8 = 1;
const STOPPED: u8 = 2;

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(CHECK_FAILED),
        Err(error) => {
            drop(writeln!(io::stderr(), "error: {error}"));
            ExitCode::from(STOPPED)
        }
    }
}

/// Whether the check found the two files to agree.
fn run(arguments: &Arguments) -> Result<bool, BankError> {
    if arguments.points {
        say(crash::points().join("\n"))?;
        return Ok(true);
    }
    if let Some(point) = &arguments.crash {
        crash::arm(point, arguments.crash_after)?;
    }
    let input = Input::open(arguments.file.as_deref())?;
    let journals = recovery::journals(arguments);
    let (databases, backends) = store::open(arguments)?;
    say(recovery::recover(&databases, &journals)?)?;
    let bank = retry(|| setup::set_up_bank(arguments.accounts, arguments.opening))?;
    retry(setup::set_up_ledger)?;
    say(introduction(arguments, &backends, &bank))?;

    let mut summary = Summary::default();
    let progress = Progress::new(input.bytes);
    let begin = Instant::now();
    let done = transfer_all(arguments, input.reader, &progress, &mut summary);
    summary.took = begin.elapsed();
    drop(progress);

    say(summary)?;
    if let Err(error) = done {
        say("check: not made, because the run was stopped")?;
        return Err(error);
    }
    let report = retry(|| check::check(bank.opening))?;
    say(&report)?;
    if let Some(point) = &arguments.crash {
        drop(writeln!(io::stderr(), "note: the point `{point}` was never passed"));
    }
    Ok(report.is_ok())
}

fn introduction(arguments: &Arguments, backends: &Backends, bank: &Bank) -> String {
    let Bank { opening, accounts, added } = bank;
    let dir = arguments.dir.display();
    let place = match (&arguments.url_bank, &arguments.url_ledger) {
        (None, None) => format!("in {dir}"),
        _ => format!("on {}, ledger on {}", backends.bank, backends.ledger),
    };
    let kept = match arguments.accounts {
        Some(asked) if asked < *accounts => "; none is taken away",
        _ => "",
    };
    format!("bank {place}: {accounts} accounts, {added} of them new, each opened with {opening} cents{kept}")
}

/// Runs the lines one by one. What is rejected is told and counted; any other error stops.
fn transfer_all(
    arguments: &Arguments,
    reader: impl BufRead,
    progress: &Progress,
    summary: &mut Summary,
) -> Result<(), BankError> {
    let mut lines = Lines::new(reader);
    loop {
        let line = lines.number() + 1;
        let at = |source| {
            let path = Input::name(arguments.file.as_deref()).to_owned();
            stopped(line, BankError::File { path, source })
        };
        let Some(content) = lines.read().map_err(at)? else {
            return Ok(());
        };
        let order = match content {
            Ok(b"") => continue,
            Ok(content) if line == 1 && order::is_header(content) => continue,
            Ok(content) => Order::parse(content),
            Err(reason) => Err(reason.into()),
        };
        match order.and_then(transfer::run) {
            Ok(()) => summary.commit(),
            Err(BankError::Rejected(reason)) => {
                progress.say(format_args!("line {line}: rejected: {reason}"));
                summary.reject(&reason);
            }
            Err(error) => return Err(stopped(line, error)),
        }
        progress.at(lines.bytes());
    }
}

fn stopped(line: u64, error: BankError) -> BankError {
    BankError::Stopped { line, source: Box::new(error) }
}

fn say(text: impl Display) -> Result<(), BankError> {
    writeln!(io::stdout(), "{text}").map_err(BankError::Output)
}
