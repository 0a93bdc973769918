//! SQLite's foreign keys around migrations.
//!
//! A table is changed by a new one that takes its name, and to drop the old one deletes what refers to its rows. So SQLite's
//! documentation switches foreign keys off before the transaction (inside of it that does nothing), and looks for broken ones
//! before its end. Diesel's own tools leave them off as SQLite does.

use std::collections::BTreeMap;

use diesel::connection::{AnsiTransactionManager, SimpleConnection, TransactionManager};
use diesel::migration::Result;
use diesel::result::QueryResult;
use diesel::sqlite::SqliteConnection;

use super::backend::Dialect;
use super::migrations::Around;
use crate::Sqlite;

/// How many rows an error names.
const NAMED_ROWS: usize = 10;

/// The foreign keys of a database while migrations run on it.
pub struct ForeignKeys {
    enforced: bool,
    /// How many rows of a table have no row in another one, which some migration before these has left so. None if it was
    /// not asked, or if SQLite can't answer.
    broken: Option<BTreeMap<[String; 2], u64>>,
}

impl Around<SqliteConnection> for ForeignKeys {
    /// Switches them off. Outside of any transaction.
    fn begin(raw: &mut SqliteConnection) -> QueryResult<Self> {
        let asked = "SELECT CAST(foreign_keys AS TEXT) AS a, NULL AS b, NULL AS c FROM pragma_foreign_keys";
        let enforced = Sqlite::ask(raw, asked, &[])?.iter().any(|row| row.a.as_deref() == Some("1"));
        if enforced {
            raw.batch_execute("PRAGMA foreign_keys = OFF")?;
        }
        Ok(Self { enforced, broken: None })
    }

    /// Looks what is broken already. A migration that runs outside of a transaction may have switched them on again.
    fn before(&mut self, raw: &mut SqliteConnection) -> QueryResult<()> {
        if !self.enforced {
            return Ok(());
        }
        // In a transaction it does nothing, and they are off there.
        raw.batch_execute("PRAGMA foreign_keys = OFF")?;
        // A parent's key that is not unique is an error of every check, and may have been one before.
        self.broken = broken(raw).ok();
        Ok(())
    }

    /// Refuses a migration that has left rows without those that they refer to.
    fn after(&mut self, raw: &mut SqliteConnection, migration: &str) -> Result<()> {
        let Some(before) = &self.broken else { return Ok(()) };
        let now =
            broken(raw).map_err(|error| format!("migration `{migration}` leaves broken foreign keys: {error}"))?;
        let more = |found: &(&[String; 2], &u64)| found.1 > before.get(found.0).unwrap_or(&0);
        let Some(([table, parent], rows)) = now.iter().find(more) else { return Ok(()) };
        let asked = format!(
            "SELECT group_concat(id, ', ') AS a, NULL AS b, NULL AS c FROM (SELECT coalesce(rowid, 'without a rowid') AS id \
             FROM pragma_foreign_key_check WHERE \"table\" = ? AND parent = ? LIMIT {NAMED_ROWS})"
        );
        let named = Sqlite::ask(raw, &asked, &[table, parent])?.into_iter().find_map(|row| row.a);
        let problem = format!(
            "migration `{migration}` leaves {rows} rows of `{table}` that refer to rows of `{parent}` which are not there (rowid \
             {}); foreign keys are off while a migration runs, so that it must delete or change such rows by itself",
            named.unwrap_or_default()
        );
        Err(problem.into())
    }

    /// Sets them as they were, after the transaction. A migration that has failed leaves it open.
    fn end(self, raw: &mut SqliteConnection) -> QueryResult<()> {
        while AnsiTransactionManager::transaction_manager_status_mut(raw).transaction_depth()?.is_some() {
            AnsiTransactionManager::rollback_transaction(raw)?;
        }
        if self.enforced { raw.batch_execute("PRAGMA foreign_keys = ON") } else { Ok(()) }
    }
}

/// How many rows of a table have no row in another one.
fn broken(raw: &mut SqliteConnection) -> QueryResult<BTreeMap<[String; 2], u64>> {
    let asked =
        "SELECT \"table\" AS a, parent AS b, CAST(count(*) AS TEXT) AS c FROM pragma_foreign_key_check GROUP BY 1, 2";
    let rows = Sqlite::ask(raw, asked, &[])?.into_iter();
    Ok(rows.filter_map(|row| Some(([row.a?, row.b.unwrap_or_default()], row.c?.parse().ok()?))).collect())
}
