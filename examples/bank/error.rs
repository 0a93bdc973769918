//! What can go wrong.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::reason::Reason;

/// Everything that a function of the bank may return instead of its result.
#[derive(Debug, Error)]
pub enum BankError {
    /// The line can't be done. The run goes on.
    #[error(transparent)]
    Rejected(#[from] Reason),

    #[error(transparent)]
    Database(#[from] multidb::Error),

    #[error("there is no point `{0}`; `--points` lists them")]
    NoSuchPoint(String),

    #[error("stopped at line {line}, the lines before it are done: {source}")]
    Stopped { line: u64, source: Box<BankError> },

    #[error(
        "the bank was opened with {stored} cents on each account, and `--opening {asked}` asks for another amount; \
         leave `--opening` out to go on with it, or choose another folder with `--dir`"
    )]
    OtherOpening { stored: i64, asked: i64 },

    #[error("{database}.db is in journal mode `{mode}` and not `delete`; close it in other programs and try again")]
    JournalMode { database: &'static str, mode: String },

    #[error("the folder `{}` can't be used: {source}", path.display())]
    Folder { path: PathBuf, source: io::Error },

    #[error("the file `{}` can't be read: {source}", path.display())]
    File { path: PathBuf, source: io::Error },

    #[error("the CSV parser failed: {0}")]
    Csv(#[from] csv::Error),

    #[error("the result can't be printed: {0}")]
    Output(io::Error),
}

/// Diesel may carry an error of the library, which comes out again here. So there is one variant for both.
impl From<diesel::result::Error> for BankError {
    fn from(error: diesel::result::Error) -> Self {
        Self::Database(error.into())
    }
}

impl BankError {
    /// Whether nothing was committed and the same call may succeed when it is made again.
    fn is_retryable(&self) -> bool {
        matches!(self, Self::Database(error) if error.is_retryable())
    }
}

/// How often something is tried that fails because another program holds a lock. SQLite itself waits each time.
const ATTEMPTS: u32 = 4;

/// Does the work, again if need be.
pub fn retry<T>(mut work: impl FnMut() -> Result<T, BankError>) -> Result<T, BankError> {
    for _ in 1..ATTEMPTS {
        match work() {
            Err(error) if error.is_retryable() => {}
            done => return done,
        }
    }
    work()
}
