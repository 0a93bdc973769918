//! SQLite.

use std::fmt::Write;
use std::sync::LazyLock;

use diesel::SqliteConnection;
use diesel::connection::SimpleConnection;
use diesel::prelude::*;

use super::{Said, Unlike};

const PRAGMAS: [&str; 19] = [
    "analysis_limit",
    "automatic_index",
    "busy_timeout",
    "cache_size",
    "cell_size_check",
    "defer_foreign_keys",
    "foreign_keys",
    "ignore_check_constraints",
    "journal_mode",
    "legacy_alter_table",
    "locking_mode",
    "query_only",
    "read_uncommitted",
    "recursive_triggers",
    "reverse_unordered_selects",
    "synchronous",
    "temp_store",
    "trusted_schema",
    "writable_schema",
];

pub(super) fn said(raw: &mut SqliteConnection) -> QueryResult<Vec<Said>> {
    static SAID: LazyLock<String> = LazyLock::new(|| {
        let mut sql = "SELECT 'file ' || name AS name, file AS value FROM pragma_database_list WHERE name <> 'temp' \
                       UNION ALL SELECT 'temporary', name FROM sqlite_temp_schema"
            .to_owned();
        for pragma in PRAGMAS {
            let column = if pragma == "busy_timeout" { "timeout" } else { pragma };
            write!(sql, " UNION ALL SELECT '{pragma}', CAST({column} AS TEXT) FROM pragma_{pragma}").unwrap();
        }
        sql
    });
    diesel::sql_query(&*SAID).load(raw)
}

pub(super) fn rests(raw: &mut SqliteConnection) -> Result<Vec<Said>, Unlike> {
    // It fails exactly if a transaction is open, and locks nothing.
    raw.batch_execute("BEGIN; ROLLBACK").map_err(|error| Unlike::So(format!("says: {error}")))?;
    said(raw).map_err(|_| Unlike::Dead)
}
