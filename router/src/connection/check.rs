//! What has to be right on a server before transactions over several databases can be trusted.

use diesel::result::QueryResult;

use super::backend::Dialect;
use super::born::Born;
use super::own::{TextRow, names_missing_table};

/// Something that is not as it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Shortcoming {
    /// The setting, the table, or what else it is about.
    pub setting: String,
    /// What it is.
    pub found: String,
    /// What it should be.
    pub wanted: String,
    /// What may happen otherwise.
    pub why: &'static str,
}

impl Shortcoming {
    /// One of them.
    pub fn new(
        setting: impl Into<String>,
        found: impl Into<String>,
        wanted: impl Into<String>,
        why: &'static str,
    ) -> Self {
        Self { setting: setting.into(), found: found.into(), wanted: wanted.into(), why }
    }
}

/// The text of a row's first column.
pub fn text(row: &TextRow) -> &str {
    row.a.as_deref().unwrap_or_default()
}

/// The text of a row's second column as a number; 0 where it is none.
#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub fn number(row: &TextRow) -> u64 {
    row.b.as_deref().and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// The library's own tables that a transaction over several databases needs, each with a column.
const TABLES: [(&str, &str); 3] =
    [("multidb_decision", "gid"), ("multidb_meta", "database_id"), ("multidb_receipt", "gid")];

const TABLE: &str = "a transaction over several databases can need it, and fails without";

/// Looks for the library's own tables as its statements do. What is found is added to what was found before.
///
/// Nothing makes them on demand, so a role that may not create tables needs another one to do it.
pub fn tables<B: Dialect>(raw: &mut B::Raw, born: &Born, found: &mut Vec<Shortcoming>) {
    const MADE: &str = "made by `multidb::schema::install(&databases)`, with a role that may create tables";
    for (table, column) in TABLES {
        let asked = format!("SELECT {column} AS a, NULL AS b, NULL AS c FROM {table} LIMIT 1");
        let rows: QueryResult<Vec<TextRow>> = B::load_own(raw, born, &asked, &[]);
        let (is, wanted) = match rows.map_err(|error| error.to_string()) {
            Ok(rows) if rows.is_empty() && table == "multidb_meta" => {
                ("without its row".to_owned(), "filled by `multidb::schema::install(&databases)`".to_owned())
            }
            Ok(_) => continue,
            Err(error) if names_missing_table(&error) => ("missing".to_owned(), MADE.to_owned()),
            // Some servers don't tell a role whether a table is there that it may not read.
            Err(error) => (
                format!("refused ({error})"),
                format!("granted SELECT, INSERT, UPDATE and DELETE to this role, or {MADE}"),
            ),
        };
        if !found.iter().any(|before| before.setting == table) {
            found.push(Shortcoming::new(table, is, wanted, TABLE));
        }
    }
}
