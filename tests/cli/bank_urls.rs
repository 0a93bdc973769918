//! The bank on servers: the same program, with URLs.

use crate::bank::{Bank, SMALL};

#[test]
fn a_server_that_can_not_be_reached_or_is_not_built_in_stops_and_no_password_is_told() {
    let bank = Bank::new();
    let built_in = |feature: &str, on: bool| {
        if on { "no connection to database".to_owned() } else { format!("features = [\"{feature}\"]") }
    };
    for (option, url, told) in [
        ("--url-bank", "postgres://me:hunter@127.0.0.1:1/bank", built_in("postgres", cfg!(feature = "postgres"))),
        ("--url-ledger", "mysql://me:hunter@127.0.0.1:1/bank", built_in("mysql", cfg!(feature = "mysql"))),
        ("--url-ledger", "oracle://me:hunter@127.0.0.1:1/bank", "`oracle:` is no scheme".to_owned()),
    ] {
        let run = bank.run_with(&[option, url], "1,2,5\n").stopped_with(&told);
        assert!(!run.stderr.contains("hunter") && !run.stdout.contains("hunter"), "{run:#?}");
    }
}

#[test]
fn a_url_may_be_a_file_too() {
    let bank = Bank::new();
    let ledger = bank.path("elsewhere.db");
    let arguments = [&SMALL[..], &["--url-ledger", ledger.to_str().expect("a path in UTF-8")]].concat();
    let run = bank.run_with(&arguments, "1,2,300\n").went_well();
    assert!(run.stdout.contains("bank on SQLite, ledger on SQLite"), "{run:#?}");
    assert!(ledger.exists() && !bank.dir().join("ledger.db").exists());
    assert_eq!(bank.balances(), [700, 1300, 1000, 1000]);
}

#[cfg(all(feature = "postgres", feature = "mysql"))]
mod servers {
    use std::sync::atomic::{AtomicU32, Ordering};

    use diesel::connection::SimpleConnection;
    use diesel::prelude::*;

    use super::*;
    use crate::bank::Run;
    use crate::support;

    diesel::table! { accounts (id) { id -> BigInt, balance -> BigInt, } }
    diesel::table! { entries (id) { id -> BigInt, transfer -> BigInt, account -> BigInt, cents -> BigInt, } }

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Place {
        File,
        Postgres,
        MariaDb,
    }

    use Place::{File, MariaDb, Postgres};

    /// A bank with a fresh database for each part, or `None` where the servers are left out.
    struct Bench {
        bank: Bank,
        urls: [Option<String>; 2],
    }

    /// Runs on a plain connection to a server.
    macro_rules! on {
        ($url:expr, $conn:ident => $work:expr) => {
            if $url.starts_with("postgres") {
                let $conn = &mut PgConnection::establish($url).expect("the server");
                $work
            } else {
                let $conn = &mut MysqlConnection::establish($url).expect("the server");
                $work
            }
        };
    }

    /// The URL of a fresh database. `Some(None)` is a file of the folder.
    #[expect(clippy::option_option, reason = "no server, and no URL")]
    fn fresh(place: Place) -> Option<Option<String>> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("bank_{}_{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let (server, create, url) = match place {
            File => return Some(None),
            Postgres => {
                let server = support::postgres_url()?;
                (server, format!("CREATE SCHEMA {name}"), format!("{server}?options=-csearch_path%3D{name}"))
            }
            MariaDb => {
                let server = support::mysql_url()?;
                let (address, _) = server.rsplit_once('/').expect("a URL with a database");
                (server, format!("CREATE DATABASE {name}"), format!("{address}/{name}"))
            }
        };
        on!(server, conn => conn.batch_execute(&create).expect("a fresh database"));
        Some(Some(url))
    }

    impl Bench {
        fn new(bank: Place, ledger: Place) -> Option<Self> {
            Some(Self { urls: [fresh(bank)?, fresh(ledger)?], bank: Bank::new() })
        }

        fn arguments<'a>(&'a self, others: &[&'a str]) -> Vec<&'a str> {
            let options = ["--url-bank", "--url-ledger"].into_iter().zip(&self.urls);
            let urls = options.filter_map(|(option, url)| Some([option, url.as_deref()?]));
            urls.flatten().chain(others.iter().copied()).collect()
        }

        fn run(&self, others: &[&str], csv: &str) -> Run {
            self.bank.run_with(&self.arguments(others), csv)
        }

        fn balances(&self) -> Vec<i64> {
            let Some(url) = &self.urls[0] else { return self.bank.balances() };
            let balances = accounts::table.order(accounts::id).select(accounts::balance);
            on!(url, conn => balances.load(conn).expect("the balances"))
        }

        fn entries(&self) -> Vec<(i64, i64, i64)> {
            let Some(url) = &self.urls[1] else {
                return self.bank.entries().iter().map(|entry| (entry.transfer, entry.account, entry.cents)).collect();
            };
            let order = (entries::transfer, entries::cents);
            let entries = entries::table.order(order).select((entries::transfer, entries::account, entries::cents));
            on!(url, conn => entries.load(conn).expect("the entries"))
        }
    }

    #[test]
    fn the_same_transfers_leave_the_same_rows_wherever_the_two_databases_are() {
        for (bank, ledger, told) in [
            (Postgres, Postgres, "bank on PostgreSQL, ledger on PostgreSQL"),
            (MariaDb, MariaDb, "bank on MySQL or MariaDB, ledger on MySQL or MariaDB"),
            (Postgres, MariaDb, "bank on PostgreSQL, ledger on MySQL or MariaDB"),
            (MariaDb, Postgres, "bank on MySQL or MariaDB, ledger on PostgreSQL"),
            (File, Postgres, "bank on SQLite, ledger on PostgreSQL"),
            (MariaDb, File, "bank on MySQL or MariaDB, ledger on SQLite"),
        ] {
            let Some(bench) = Bench::new(bank, ledger) else { return };
            let run = bench.run(&SMALL, "1,2,300\n2,3,50\n9,1,5\n4,1,2000\n").went_well();
            assert!(run.stdout.contains(told), "{run:#?}");
            let rejected = [(3, "unknown account 9"), (4, "insufficient funds on account 4")];
            assert_eq!(run.rejected(), rejected, "{told}");
            assert_eq!(bench.balances(), [700, 1250, 1050, 1000], "{told}");
            let entries = [(1, 1, -300), (1, 2, 300), (2, 2, -50), (2, 3, 50)];
            assert_eq!(bench.entries(), entries, "{told}");

            // The next run goes on there, adds accounts, and refuses another opening.
            let run = bench.run(&["--accounts", "1500"], "1500,1,1000\n").went_well();
            assert_eq!(run.count("committed"), 1, "{told}");
            let balances = bench.balances();
            assert_eq!((balances.len(), balances[0], balances[1499]), (1500, 1700, 0), "{told}");
            assert_eq!(bench.entries()[4..], [(3, 1500, -1000), (3, 1, 1000)], "{told}");
            bench.run(&["--opening", "999"], "1,2,5\n").stopped_with("leave `--opening` out");
            let files = [bank, ledger].iter().filter(|place| **place == File).count();
            let found = bench.bank.dir().read_dir().map_or(0, Iterator::count);
            assert_eq!(found, files, "{told}: no file that nobody needs");
        }
    }

    #[test]
    fn a_kill_in_mid_commit_is_finished_by_the_next_start_on_servers_too() {
        for (bank, ledger) in [(Postgres, MariaDb), (MariaDb, Postgres), (File, Postgres), (Postgres, File)] {
            let Some(bench) = Bench::new(bank, ledger) else { return };
            bench.run(&SMALL, "").went_well();
            for (point, kept, said) in [
                ("transfer.recorded", false, ""),
                ("intent.after", false, ""),
                ("prepare.after.1", false, "0 committed, 1 rolled back"),
                ("decide.after_commit", true, "1 committed, 0 rolled back"),
                ("apply.after.1", true, ""),
            ] {
                let before = bench.entries().len();
                let run = bench.run(&["--crash", point], "1,2,1\n");
                assert_eq!(run.status, None, "killed at {point}: {run:#?}");
                // The server needs a moment to see that the process has gone.
                let mut runs = (0..1_000).map(|_| bench.run(&[], ""));
                let run = runs.find(|run| !run.stdout.contains("in doubt;")).expect("recovered").went_well();
                assert!(run.stdout.contains(said), "{point}: {run:#?}");
                assert_eq!(bench.entries().len() - before, if kept { 2 } else { 0 }, "{bank:?}, {ledger:?}, {point}");
            }
        }
    }

    #[test]
    fn both_parts_may_share_one_database_of_a_server() {
        for place in [Postgres, MariaDb] {
            let Some(mut bench) = Bench::new(place, place) else { return };
            bench.urls[1] = bench.urls[0].clone();
            bench.run(&SMALL, "1,2,300\n1,2,701\n").went_well();
            assert_eq!((bench.balances(), bench.entries().len()), (vec![700, 1300, 1000, 1000], 2), "{place:?}");
        }
    }

    #[test]
    fn the_check_finds_what_was_changed_on_a_server() {
        for place in [Postgres, MariaDb] {
            let Some(bench) = Bench::new(place, place) else { return };
            bench.run(&SMALL, "1,2,300\n").went_well();
            let url = bench.urls[0].as_deref().expect("a server");
            on!(url, conn => conn.batch_execute("UPDATE accounts SET balance = balance + 1 WHERE id = 3").expect("an update"));
            let run = bench.run(&[], "1,2,300\n");
            assert_eq!(run.status, Some(1), "{run:#?}");
            assert!(run.stdout.contains("account 3: its balance is 1001"), "{run:#?}");
        }
    }

    #[test]
    fn two_runs_at_once_take_turns_on_a_server_as_on_a_file() {
        const LINES: usize = 60;
        for (bank, ledger) in [(Postgres, MariaDb), (MariaDb, Postgres)] {
            let Some(bench) = Bench::new(bank, ledger) else { return };
            bench.run(&SMALL, "").went_well();
            let start = |from: i64, to: i64| {
                let file = bench.bank.path(&format!("from{from}.csv"));
                std::fs::write(&file, format!("{from},{to},1\n").repeat(LINES)).expect("the CSV file");
                let mut command = bench.bank.command();
                command.args(bench.arguments(&[])).arg(file);
                command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
                command.spawn().expect("the program starts")
            };
            let runs = [start(1, 2), start(3, 4)];
            for run in runs {
                Run::from(run.wait_with_output().expect("its output")).went_well();
            }
            assert_eq!(bench.balances(), [940, 1060, 940, 1060]);
            let mut transfers: Vec<i64> = bench.entries().iter().map(|(transfer, ..)| *transfer).collect();
            transfers.dedup();
            assert_eq!(transfers.len(), 2 * LINES, "each transfer has a number of its own");
        }
    }
}
