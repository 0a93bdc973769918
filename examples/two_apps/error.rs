//! What can go wrong.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Everything that a function of the two applications may return instead of its result.
#[derive(Debug, Error)]
pub enum AppError {
    #[error("`{0}` is not a user and a quota, as in `alice,2`")]
    BadLine(String),

    #[error("stopped at line {line}: {source}; the first {committed} are committed")]
    Import { line: usize, committed: usize, source: Box<AppError> },

    #[error("no quota is left for {0}")]
    NoQuota(String),

    #[error("there is no image `{0}`")]
    UnknownImage(String),

    #[error("the tables can't be made: {0}; begin in an empty folder, see `--dir`")]
    Tables(Box<AppError>),

    #[error("the folder `{}` can't be used: {source}", path.display())]
    Folder { path: PathBuf, source: io::Error },

    #[error("the story can't be told: {0}")]
    Output(io::Error),

    #[error(transparent)]
    Database(#[from] multidb::Error),
}

impl AppError {
    pub fn folder(path: &Path, source: io::Error) -> Self {
        Self::Folder { path: path.to_owned(), source }
    }
}

/// Diesel may carry an error of the library, which comes out again here. So there is one variant for both.
impl From<diesel::result::Error> for AppError {
    fn from(error: diesel::result::Error) -> Self {
        Self::Database(error.into())
    }
}
