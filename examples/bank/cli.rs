//! What may be written on the command line.

use std::path::PathBuf;

use clap::{Parser, value_parser};

/// The most accounts of one bank: the check holds a number for each of them in memory.
pub const MAX_ACCOUNTS: i64 = 1_000_000;
/// How many accounts a new bank has, unless told otherwise.
pub const DEFAULT_ACCOUNTS: i64 = 100;
/// What each account of a new bank holds, in cents, unless told otherwise.
pub const DEFAULT_OPENING: i64 = 100_000;

/// Runs the transfers of a CSV file on two databases: SQLite files, bank.db and ledger.db, or what the URLs say
#[derive(Debug, Parser)]
#[command(name = "bank", after_help = "Exit status: 0 done, 1 the check failed, 2 bad usage or stopped by an error")]
pub struct Arguments {
    /// The folder of the two files; created if it is missing
    #[arg(long, value_name = "DIR", default_value = "bank-data")]
    pub dir: PathBuf,

    /// The database of the accounts: a PostgreSQL, MySQL or MariaDB server, or a file; bank.db in the folder if left out
    #[arg(long, value_name = "URL")]
    pub url_bank: Option<String>,

    /// The database of the ledger; ledger.db in the folder if left out
    #[arg(long, value_name = "URL")]
    pub url_ledger: Option<String>,

    /// How many accounts there are: 100 in a new bank; more than there are adds accounts, fewer takes none away
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = value_parser!(i64).range(1..=MAX_ACCOUNTS))]
    pub accounts: Option<i64>,

    /// What each account holds at first: 100000 in a new bank; can't be changed later
    #[arg(long, value_name = "CENTS", allow_negative_numbers = true, value_parser = value_parser!(i64).range(0..))]
    pub opening: Option<i64>,

    /// Lists the points at which `--crash` kills the run, and does nothing else
    #[arg(long)]
    pub points: bool,

    /// Kills the run when it passes this point, as a crash would; see `--points`
    #[arg(long, value_name = "POINT")]
    pub crash: Option<String>,

    /// How many times it passes the point before
    #[arg(long, value_name = "N", default_value_t = 0, requires = "crash")]
    pub crash_after: u32,

    /// Lines of `from,to,cents`; a list that ships with the example if left out
    #[arg(value_name = "FILE.csv")]
    pub file: Option<PathBuf>,
}
