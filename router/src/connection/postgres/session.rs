//! What a session of PostgreSQL is born with, and how it becomes that again.

use diesel::pg::PgConnection;
use diesel::prelude::*;
use diesel::result::QueryResult;
use diesel::sql_types::{Nullable, Text};

use super::super::backend::Dialect;
use super::super::born::Born;
use super::super::own::TextRow;
use crate::Postgres;

/// The quotes of names.
const QUOTE: char = '"';
/// What the server calls having no role.
const NO_ROLE: &str = "none";

/// The schema in which a name means the library's table; else the one in which it would be made.
const BORN: &str = "SELECT (SELECT n.nspname FROM pg_catalog.pg_class c, pg_catalog.pg_namespace n WHERE n.oid \
                    OPERATOR(pg_catalog.=) c.relnamespace AND c.oid OPERATOR(pg_catalog.=) \
                    pg_catalog.to_regclass('multidb_meta'))::pg_catalog.text AS found, \
                    pg_catalog.current_schema()::pg_catalog.text AS current, session_user::pg_catalog.text AS \"user\", \
                    pg_catalog.current_setting('role') AS role";

/// The user is set only where it has changed, since setting it takes the role away.
const STEP_IN: &str = "SELECT pg_catalog.current_setting('session_authorization') AS a, pg_catalog.current_setting('role') AS \
                       b, pg_catalog.current_setting('search_path') AS c, CASE WHEN \
                       pg_catalog.current_setting('session_authorization') OPERATOR(pg_catalog.<>) $1 THEN \
                       pg_catalog.set_config('session_authorization', $1, {local}) END AS d, \
                       pg_catalog.set_config('role', $2, {local}) AS e, pg_catalog.set_config('search_path', 'pg_catalog', \
                       {local}) AS f";
const STEP_OUT: &str = "SELECT CASE WHEN pg_catalog.current_setting('session_authorization') OPERATOR(pg_catalog.<>) $1 THEN \
                        pg_catalog.set_config('session_authorization', $1, {local}) END AS a, \
                        pg_catalog.set_config('role', $2, {local}) AS b, pg_catalog.set_config('search_path', $3, {local}) AS c";
/// The role stays: the same connection is to finish the branch. What is prepared is to be replicated, where anything is.
const PUT_BACK: &str = "SELECT CASE WHEN pg_catalog.current_setting('session_authorization') OPERATOR(pg_catalog.<>) $1 THEN \
                        pg_catalog.set_config('session_authorization', $1, false) END AS d, \
                        pg_catalog.set_config('role', $2, false) AS e, CASE WHEN \
                        pg_catalog.current_setting('synchronous_commit') OPERATOR(pg_catalog.=) ANY (ARRAY['off', 'local', \
                        'remote_write']) THEN pg_catalog.set_config('synchronous_commit', 'on', true) END AS f, \
                        pg_catalog.set_config('search_path', 'pg_catalog', true) AS g, \
                        current_user::pg_catalog.text AS a, NULL AS b, NULL AS c";

#[derive(QueryableByName)]
struct Fresh {
    #[diesel(sql_type = Nullable<Text>)]
    found: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    current: Option<String>,
    #[diesel(sql_type = Text)]
    user: String,
    #[diesel(sql_type = Text)]
    role: String,
}

pub(super) fn born(raw: &mut PgConnection) -> QueryResult<Born> {
    let Fresh { found, current, user, role } = diesel::sql_query(BORN).get_result(raw)?;
    let settled = found.is_some();
    Ok(Born::in_schema(found.or(current), settled, QUOTE).with_user(user).with_role(role))
}

pub(super) fn step_in(raw: &mut PgConnection, born: &Born, local: bool) -> QueryResult<TextRow> {
    let asked = STEP_IN.replace("{local}", if local { "true" } else { "false" });
    let found = Postgres::ask(raw, &asked, &[&born.user, &born.role])?;
    found.into_iter().next().ok_or(diesel::result::Error::NotFound)
}

pub(super) fn step_out(raw: &mut PgConnection, before: &TextRow, local: bool) -> QueryResult<()> {
    let asked = STEP_OUT.replace("{local}", if local { "true" } else { "false" });
    let before = [&before.a, &before.b, &before.c].map(|setting| setting.as_deref().unwrap_or_default());
    Postgres::ask(raw, &asked, &before).map(drop)
}

pub(super) fn put_back(raw: &mut PgConnection, born: &Born) -> QueryResult<Option<String>> {
    let found = Postgres::ask(raw, PUT_BACK, &[&born.user, &born.role])?;
    let is = found.into_iter().next().and_then(|row| row.a).unwrap_or_default();
    let should = if &*born.role == NO_ROLE { &born.user } else { &born.role };
    Ok((*is != **should).then_some(is))
}

pub(super) fn make_in(raw: &mut PgConnection, born: &Born) -> QueryResult<()> {
    let Some(schema) = &born.schema else { return Ok(()) };
    // As a list: a name in quotes is one name in it.
    let schema = format!("{QUOTE}{}{QUOTE}", schema.replace(QUOTE, "\"\""));
    Postgres::ask(raw, "SELECT pg_catalog.set_config('search_path', $1, false) AS a, NULL AS b, NULL AS c", &[&schema])
        .map(drop)
}
