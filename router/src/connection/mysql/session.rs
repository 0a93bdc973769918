//! What a session of MySQL or MariaDB is born with, and how it becomes that again.

use std::borrow::Cow;

use diesel::connection::SimpleConnection;
use diesel::mysql::MysqlConnection;
use diesel::prelude::*;
use diesel::result::QueryResult;
use diesel::sql_types::Text;

use super::super::backend::Dialect;
use super::super::born::Born;
use super::super::own::TextRow;
use crate::Mysql;

/// The quotes of names.
const QUOTE: char = '`';
/// What a session without a role takes.
const NO_ROLE: &str = "NONE";

/// The library's own tables.
const TABLES: [&str; 4] = ["multidb_decision", "multidb_meta", "multidb_once", "multidb_receipt"];

pub(super) fn born(raw: &mut MysqlConnection) -> QueryResult<Born> {
    let asked = "SELECT DATABASE() AS a, CURRENT_ROLE() AS b, @@sql_mode AS c";
    let row = Mysql::ask(raw, asked, &[])?.into_iter().next().ok_or(diesel::result::Error::NotFound)?;
    // There is no path: a name means one database, whether the tables are there or not.
    let settled = row.a.is_some();
    Ok(Born::in_schema(row.a, settled, QUOTE).with_role(role(row.b.as_deref())).with_mode(row.c.unwrap_or_default()))
}

/// A role as SET ROLE takes it. MySQL gives a list in quotes, MariaDB one name without.
fn role(current: Option<&str>) -> Cow<'_, str> {
    match current {
        None | Some("" | NO_ROLE) => NO_ROLE.into(),
        Some(list) if list.starts_with(QUOTE) => list.into(),
        Some(name) => format!("{QUOTE}{}{QUOTE}", name.replace(QUOTE, "``")).into(),
    }
}

pub(super) fn step_in(raw: &mut MysqlConnection, born: &Born) -> QueryResult<TextRow> {
    let found = Mysql::ask(raw, "SELECT CURRENT_ROLE() AS a, @@sql_mode AS b, NULL AS c", &[])?;
    let now = found.into_iter().next().unwrap_or_default();
    let before = TextRow { a: Some(role(now.a.as_deref()).into_owned()), ..now };
    change(raw, [&before.a, &before.b], [&born.role, &born.mode])?;
    Ok(before)
}

pub(super) fn step_out(raw: &mut MysqlConnection, born: &Born, before: &TextRow) -> QueryResult<()> {
    let [role, mode] = [&before.a, &before.b].map(|setting| setting.as_deref().unwrap_or_default());
    change(raw, [&Some(born.role.to_string()), &Some(born.mode.to_string())], [role, mode])
}

/// Sets a role and a mode that are not what they should be.
fn change(
    raw: &mut MysqlConnection,
    [role, mode]: [&Option<String>; 2],
    [to_role, to_mode]: [&str; 2],
) -> QueryResult<()> {
    // The names of modes are letters and commas.
    if mode.as_deref() != Some(to_mode) {
        raw.batch_execute(&format!("SET SESSION sql_mode = '{to_mode}'"))?;
    }
    if role.as_deref() != Some(to_role) {
        raw.batch_execute(&format!("SET ROLE {to_role}"))?;
    }
    Ok(())
}

pub(super) fn hidden(raw: &mut MysqlConnection, born: &Born) -> Option<&'static str> {
    #[derive(QueryableByName)]
    struct Created {
        #[diesel(sql_type = Text, column_name = "Create Table")]
        by: String,
    }
    for table in TABLES {
        let mut asked = "SHOW CREATE TABLE ".to_owned();
        born.write_prefix(0, &mut asked);
        asked.push_str(table);
        // A table that is missing, or may not be looked at, is none that hides another one.
        let created: QueryResult<Created> = diesel::sql_query(asked).get_result(raw);
        if created.is_ok_and(|created| created.by.starts_with("CREATE TEMPORARY")) {
            return Some(table);
        }
    }
    None
}
