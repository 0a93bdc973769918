//! The rows by which the branches of a transaction over several databases prove that they have committed: each is written
//! within its branch, and can be read once that is committed.

use diesel::result::QueryResult;

use super::backend::Dialect;
use super::born::Born;
use super::slot::AnySlot;
use crate::error::Result;
use crate::transaction_id::TransactionId;

const INSERT: &str = "INSERT INTO multidb_receipt (gid, branch, participants) VALUES (?, ?, ?)";
const INSERT_IF_WRITTEN: &str =
    "INSERT INTO multidb_receipt (gid, branch, participants) SELECT {text}, {text}, {text} {if_written}";
const DELETE: &str = "DELETE FROM multidb_receipt WHERE gid = ? AND branch = ?";
const SELECT: &str = "SELECT branch AS a, NULL AS b, NULL AS c FROM multidb_receipt WHERE gid = ?";

/// Leaves the receipt in a branch, unless the server knows that the branch has not written. Whether it is there.
pub fn leave(slot: &dyn AnySlot, id: &TransactionId, branch: &str, participants: &str) -> Result<bool> {
    slot.put_back()?;
    let is_opaque = slot.is_opaque();
    if !is_opaque && slot.has_only_read() {
        return Ok(false);
    }
    let sql = if is_opaque { INSERT } else { INSERT_IF_WRITTEN };
    Ok(slot.execute_at_end(sql, &[&id.to_string(), branch, participants])? > 0)
}

/// Takes it out again, before the branch commits alone.
pub fn withdraw(slot: &dyn AnySlot, id: &TransactionId, branch: &str) -> Result<()> {
    slot.execute_at_end(DELETE, &[&id.to_string(), branch]).map(drop)
}

/// Whether a branch is still open although it is on no list: its receipt is not committed, and locked.
pub fn is_held<B: Dialect>(raw: &mut B::Raw, born: &Born, id: &TransactionId, branch: &str) -> QueryResult<bool> {
    let Some(sql) = B::IS_HELD else { return Ok(false) };
    match B::load_own(raw, born, sql, &[&id.to_string(), branch]) {
        Ok(_) => Ok(false),
        Err(error) if is_locked(&error.to_string()) => Ok(true),
        Err(error) => Err(error),
    }
}

/// MariaDB's words, and MySQL's.
fn is_locked(text: &str) -> bool {
    text.contains("Lock wait timeout exceeded") || text.contains("NOWAIT is set")
}

/// The branches of a transaction whose receipts can be read.
pub fn find<B: Dialect>(raw: &mut B::Raw, born: &Born, id: &TransactionId) -> QueryResult<Vec<String>> {
    let rows = B::load_own(raw, born, SELECT, &[&id.to_string()])?;
    Ok(rows.into_iter().filter_map(|row| row.a).collect())
}
