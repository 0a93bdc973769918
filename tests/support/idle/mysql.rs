//! MariaDB.

use diesel::MysqlConnection;
use diesel::prelude::*;
use diesel::r2d2::R2D2Connection;

use super::{Said, Unlike};

/// What a session has, but for what differs between any two, or with each statement.
const SAID: &str = "SELECT CAST(variable_name AS CHAR) AS name, CAST(session_value AS CHAR) AS value \
    FROM information_schema.system_variables WHERE session_value IS NOT NULL AND variable_name NOT IN ('TIMESTAMP', \
    'RAND_SEED1', 'RAND_SEED2', 'PSEUDO_THREAD_ID', 'INSERT_ID', 'LAST_INSERT_ID', 'IDENTITY', 'ERROR_COUNT', \
    'WARNING_COUNT', 'LAST_GTID', 'GTID_SEQ_NO', 'WSREP_GTID_SEQ_NO') \
    UNION ALL SELECT 'database', CAST(DATABASE() AS CHAR) \
    UNION ALL SELECT 'role', CAST(CURRENT_ROLE() AS CHAR) \
    UNION ALL SELECT CONCAT('@', CAST(variable_name AS CHAR)), CAST(variable_value AS CHAR) \
    FROM information_schema.user_variables ORDER BY 1, 2";

/// What must be nothing: an open transaction, and named locks.
const RESTS: &str = "SELECT 'a transaction' AS name, CAST(@@in_transaction AS CHAR) AS value \
    UNION ALL SELECT 'named locks', CAST(RELEASE_ALL_LOCKS() AS CHAR)";

/// Fails where LOCK TABLES has locked others, whatever stands in the table.
const LOCKED: &str = "SELECT 'plugin' AS name, 'plugin' AS value FROM mysql.plugin LIMIT 0";

pub(super) fn said(raw: &mut MysqlConnection) -> QueryResult<Vec<Said>> {
    diesel::sql_query(SAID).load(raw)
}

pub(super) fn rests(raw: &mut MysqlConnection) -> Result<Vec<Said>, Unlike> {
    let of = |raw: &mut MysqlConnection, error: diesel::result::Error| {
        if raw.ping().is_ok() { Unlike::So(format!("says: {error}")) } else { Unlike::Dead }
    };
    let rests: Vec<Said> = match diesel::sql_query(RESTS).load(raw) {
        Ok(rests) => rests,
        Err(error) => return Err(of(raw, error)),
    };
    if let Some(Said { name, value }) = rests.iter().find(|said| said.value.as_deref() != Some("0")) {
        return Err(Unlike::So(format!("has {name}: {value:?}")));
    }
    let said = match said(raw) {
        Ok(said) => said,
        Err(error) => return Err(of(raw, error)),
    };
    match diesel::sql_query(LOCKED).load::<Said>(raw) {
        Err(error) if error.to_string().contains("LOCK TABLES") => Err(Unlike::So(format!("says: {error}"))),
        // A role without the right to read it gets another error.
        _ => Ok(said),
    }
}

/// The branches of this database that are prepared. Without the library's own tables there are none.
pub(super) fn prepared(raw: &mut MysqlConnection) -> Vec<String> {
    /// Others' names need not be text.
    #[derive(QueryableByName)]
    struct Recovered {
        #[diesel(sql_type = diesel::sql_types::Binary)]
        data: Vec<u8>,
    }
    let own = "SELECT CAST(database_id AS CHAR) AS name, NULL AS value FROM multidb_meta";
    let Ok(own) = diesel::sql_query(own).get_result::<Said>(raw) else { return Vec::new() };
    let found: Vec<Recovered> = diesel::sql_query("XA RECOVER").load(raw).unwrap_or_default();
    let names = found.into_iter().map(|row| String::from_utf8_lossy(&row.data).into_owned());
    names.filter(|name| name.ends_with(&own.name)).collect()
}
