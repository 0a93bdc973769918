//! PostgreSQL.

use diesel::PgConnection;
use diesel::prelude::*;
use diesel::sql_types::Integer;

use super::{Said, Unlike};

/// What a session has. Those of PL/pgSQL appear with the first block that is run in it. Settings of applications are not on the list, so those that
/// tests use are named.
const SAID: &str = "SELECT name, setting AS value FROM pg_settings WHERE name NOT LIKE 'plpgsql.%' \
    UNION ALL SELECT 'current_user', current_user::text \
    UNION ALL SELECT 'session_user', session_user::text \
    UNION ALL SELECT 'current_schemas', current_schemas(false)::text \
    UNION ALL SELECT name, nullif(current_setting(name, true), '') FROM unnest(ARRAY['app.x', 'app.tenant', 'multidb.tx']) name \
    UNION ALL SELECT 'listens', channel FROM pg_listening_channels() channel \
    UNION ALL SELECT 'cursor', name FROM pg_cursors \
    UNION ALL SELECT 'temporary', relname::text FROM pg_class WHERE pg_my_temp_schema() <> 0 AND relnamespace = pg_my_temp_schema() AND relkind IN ('r', 'S', 'v') \
    ORDER BY 1, 2";

/// The branches of this database that are prepared.
const PREPARED: &str =
    "SELECT gid AS name, NULL AS value FROM pg_prepared_xacts, multidb_meta WHERE gid LIKE '%' || database_id";

/// What others see of it. What a serializable transaction has read is remembered after its end, and blocks nobody.
const SEEN: &str = "SELECT 'state' AS name, state AS value FROM pg_stat_get_activity($1) WHERE state <> 'idle' \
    UNION ALL SELECT 'lock', locktype || ' ' || mode FROM pg_locks WHERE pid = $1 AND mode <> 'SIReadLock'";

pub(super) fn said(raw: &mut PgConnection) -> QueryResult<Vec<Said>> {
    diesel::sql_query(SAID).load(raw)
}

pub(super) fn rests(raw: &mut PgConnection, other: &mut PgConnection) -> Result<Vec<Said>, Unlike> {
    #[derive(QueryableByName)]
    struct Process {
        #[diesel(sql_type = Integer)]
        pid: i32,
    }
    let asked = diesel::sql_query("SELECT pg_backend_pid() AS pid").get_result::<Process>(raw);
    let Process { pid } = asked.map_err(|error| unlike(&error))?;
    let seen: Vec<Said> = diesel::sql_query(SEEN).bind::<Integer, _>(pid).load(other).map_err(|_| Unlike::Dead)?;
    if let [Said { name, value }, ..] = &seen[..] {
        return Err(Unlike::So(format!("has {name} {value:?}")));
    }
    said(raw).map_err(|error| unlike(&error))
}

/// Without the library's own tables nothing is prepared.
pub(super) fn prepared(raw: &mut PgConnection) -> Vec<String> {
    let found: QueryResult<Vec<Said>> = diesel::sql_query(PREPARED).load(raw);
    found.map_or_else(|_| Vec::new(), |found| found.into_iter().map(|said| said.name).collect())
}

/// Only what the server has answered is an answer.
fn unlike(error: &diesel::result::Error) -> Unlike {
    let text = error.to_string();
    let answered = ["aborted", "COPY", "another command is already in progress", "permission denied", "does not exist"];
    if answered.iter().any(|part| text.contains(part)) { Unlike::So(format!("says: {text}")) } else { Unlike::Dead }
}
