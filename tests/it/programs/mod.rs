//! Random programs of scopes, handles and texts with traps, on files and servers, against an oracle that knows nothing of the
//! library: `Ok` means that the rows are there, an error or a panic means that they aren't or that it says so, and what lies in
//! the pools afterwards is as it was born.
//!
//! A failure prints its seed and the smallest program that still fails.

mod grammar;
mod ground;
mod history;
mod judge;
mod program;
mod random;
mod run;
mod send;
mod shrink;
mod site;
mod trial;
mod trouble;

use std::collections::BTreeMap;
use std::sync::mpsc;
use std::time::Duration;

use self::trial::{Found, Trial};
use crate::fixture::Kind::{self, Mysql, Postgres, Sqlite};

/// How many programs each ground runs.
const PROGRAMS: u64 = 200;
/// Set to another number of programs, for a longer run.
const MORE: &str = "MULTIDB_TEST_PROGRAMS";
/// Set to the number that a failure tells, it gives the same programs again.
const SEED: &str = "MULTIDB_TEST_SEED";
/// Set to the number of a program that a failure tells, it runs this one alone.
const ONLY: &str = "MULTIDB_TEST_PROGRAM";

/// How many different failures end a run, unless the variable says another number.
const FAILURES_LIMIT: u64 = 8;
const FAILURES: &str = "MULTIDB_TEST_FAILURES";
/// How long one program may take. After this it will never end.
const LIMIT: Duration = Duration::from_secs(30);

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|number| number.parse().unwrap())
}

fn check(kinds: [Kind; 2], in_memory: bool) {
    let seed = number(SEED)
        .unwrap_or_else(|| u64::from(std::process::id()) ^ std::time::UNIX_EPOCH.elapsed().unwrap().as_secs());
    let programs = match number(ONLY) {
        Some(only) => only..only + 1,
        None => 0..number(MORE).unwrap_or(PROGRAMS),
    };
    let (tells, told) = mpsc::channel();
    // Apart, so that a program that never ends is found.
    let runs = std::thread::spawn(move || {
        let Some(mut trial) = Trial::new(kinds, in_memory) else { return };
        for number in programs {
            let mut rng = fastrand::Rng::with_seed(seed.wrapping_mul(1_000_003).wrapping_add(number));
            let program = random::program(&mut rng, kinds);
            let text = program.to_string();
            if tells.send((number, Event::Begins(text))).is_err() {
                return;
            }
            let found = trial.judge(program);
            if tells.send((number, Event::Ends(found))).is_err() {
                return;
            }
        }
    });
    let failures = watch(&told);
    if failures.is_empty() {
        runs.join().unwrap();
        return;
    }
    let list: Vec<&str> = failures.values().map(String::as_str).collect();
    panic!("{SEED}={seed} on {kinds:?}: {} failures\n{}", list.len(), list.join("\n"));
}

enum Event {
    Begins(String),
    Ends(Option<Found>),
}

/// Collects failures that differ.
fn watch(told: &mpsc::Receiver<(u64, Event)>) -> BTreeMap<String, String> {
    let mut failures = BTreeMap::new();
    let mut running = String::new();
    loop {
        match told.recv_timeout(LIMIT) {
            Ok((_, Event::Begins(program))) => running = program,
            Ok((_, Event::Ends(None))) => {}
            Ok((number, Event::Ends(Some(found)))) => {
                let text = format!("program {number}: {}\n{}", found.problem, found.program);
                failures.entry(found.kind()).or_insert(text);
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {
                failures.insert("hangs".into(), format!("this one never ends:\n{running}"));
                return failures;
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => return failures,
        }
        if failures.len() as u64 >= number(FAILURES).unwrap_or(FAILURES_LIMIT) {
            return failures;
        }
    }
}

macro_rules! grounds {
    ($($name:ident: $bank:ident $($in_memory:ident)?, $ledger:ident;)*) => {
        $(
            #[test]
            fn $name() {
                check([$bank, $ledger], <[&str]>::contains(&[$(stringify!($in_memory))?], &"in_memory"));
            }
        )*
    };
}

grounds! {
    random_programs_on_two_files_keep_their_word: Sqlite, Sqlite;
    random_programs_in_memory_keep_their_word: Sqlite in_memory, Sqlite;
    random_programs_on_postgres_keep_their_word: Postgres, Postgres;
    random_programs_on_mariadb_keep_their_word: Mysql, Mysql;
    random_programs_on_postgres_and_mariadb_keep_their_word: Postgres, Mysql;
    random_programs_on_mariadb_and_a_file_keep_their_word: Mysql, Sqlite;
    random_programs_on_a_file_and_postgres_keep_their_word: Sqlite, Postgres;
}
