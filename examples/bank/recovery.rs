//! What an earlier run that was killed has left, and what becomes of it.

use std::path::PathBuf;

use multidb::prelude::*;

use crate::cli::Arguments;
use crate::error::BankError;

/// The journals that a killed run has left beside the two files. To be asked before the files are opened.
pub fn journals(arguments: &Arguments) -> Vec<PathBuf> {
    let journal = |name| arguments.dir.join(name);
    let found = [journal("bank.db-journal"), journal("ledger.db-journal")];
    let is_left = |path: &PathBuf| path.metadata().is_ok_and(|journal| journal.len() > 0);
    found.into_iter().filter(is_left).collect()
}

/// Finishes what was left, and says what it did.
///
/// SQLite itself finishes what stands in the journals, as soon as a file is read: both files together.
pub fn recover(databases: &Databases, journals: &[PathBuf]) -> Result<String, BankError> {
    let report = databases.recover()?;
    let mut said = Vec::new();
    if !journals.is_empty() {
        said.push(
            "an unfinished commit was found in the journals, and SQLite undid or finished it in both files".to_owned(),
        );
    }
    let finished = report.committed().len() + report.rolled_back().len();
    if finished > 0 || !report.is_clear() {
        said.push(report.to_string());
    }
    if said.is_empty() {
        said.push("nothing was left to be done".to_owned());
    }
    Ok(format!("recovery: {}", said.join("; ")))
}
