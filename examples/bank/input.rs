//! Where the lines come from.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use crate::error::BankError;

/// The list that ships with the example, in the program itself so that it runs from any folder.
const SHIPPED: &[u8] = include_bytes!("transfers.csv");

/// An open file, or the shipped list.
pub struct Input {
    pub reader: Box<dyn BufRead>,
    /// 0 where it is not known.
    pub bytes: u64,
}

impl Input {
    /// Opens the file and reads its beginning, so that a file that can't be read is found before anything is done.
    pub fn open(file: Option<&Path>) -> Result<Self, BankError> {
        let Some(path) = file else {
            return Ok(Self { reader: Box::new(SHIPPED), bytes: SHIPPED.len() as u64 });
        };
        let at = |source| BankError::File { path: path.to_owned(), source };
        let file = File::open(path).map_err(at)?;
        let bytes = file.metadata().map_err(at)?.len();
        let mut reader = BufReader::new(file);
        reader.fill_buf().map_err(at)?;
        Ok(Self { reader: Box::new(reader), bytes })
    }

    /// What it is called in messages.
    pub fn name(file: Option<&Path>) -> &Path {
        file.unwrap_or(Path::new("transfers.csv"))
    }
}
