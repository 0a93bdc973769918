//! Statements on the library's own tables. They hold text and whole numbers alone, so that one form does for all backends.

use std::fmt::Write;

use diesel::deserialize::QueryableByName;
use diesel::sql_types::{Nullable, Text};

use crate::alias::Alias;
use crate::error::Error;

/// Up to three columns of text, which the statement names `a`, `b` and `c`.
#[derive(Debug, Clone, PartialEq, Eq, QueryableByName)]
pub struct TextRow {
    /// The first.
    #[diesel(sql_type = Nullable<Text>)]
    pub a: Option<String>,
    /// The second.
    #[diesel(sql_type = Nullable<Text>)]
    pub b: Option<String>,
    /// The third.
    #[diesel(sql_type = Nullable<Text>)]
    pub c: Option<String>,
}

/// How a backend writes what its SQL doesn't share with the others.
#[derive(Debug, Clone, Copy)]
pub struct Words {
    /// The time in seconds since 1970.
    pub now: &'static str,
    /// What stands before and after an INSERT that does nothing where the row is there.
    pub insert_new: [&'static str; 2],
    /// What makes a SELECT see what is committed now, whatever the transaction has read before.
    pub now_committed: &'static str,
    /// A parameter where its type can't be told from its place.
    pub text: &'static str,
    /// What makes an INSERT .. SELECT do nothing in a transaction that has not written. Empty where the server doesn't tell.
    pub if_written: &'static str,
    /// Whether parameters have numbers.
    pub numbered: bool,
}

impl Words {
    /// The statement as the backend wants it: with the names of the fields above in braces, and `?`, replaced.
    pub fn write(&self, sql: &str) -> String {
        let [insert, or_nothing] = self.insert_new;
        let sql = sql.replace("{now}", self.now).replace("{insert}", insert);
        let sql = sql.replace("{or_nothing}", or_nothing).replace("{now_committed}", self.now_committed);
        let sql = sql.replace("{text}", self.text).replace("{if_written}", self.if_written);
        if !self.numbered {
            return sql;
        }
        let mut parts = sql.split('?');
        let mut numbered = parts.next().unwrap_or_default().to_owned();
        for (at, part) in parts.enumerate() {
            write!(numbered, "${}{part}", at + 1).expect("a String takes everything");
        }
        numbered
    }
}

/// The ways to run such a statement, and migrations, for one backend.
macro_rules! own_statements {
    ($native:ty, $raw:ty) => {
        fn execute_own(raw: &mut $raw, sql: &str, binds: &[&str]) -> diesel::result::QueryResult<usize> {
            use diesel::prelude::*;
            let mut query = diesel::sql_query(Self::WORDS.write(sql)).into_boxed::<$native>();
            for bind in binds {
                query = query.bind::<diesel::sql_types::Text, _>(*bind);
            }
            query.execute(raw)
        }

        fn load_own(
            raw: &mut $raw,
            sql: &str,
            binds: &[&str],
        ) -> diesel::result::QueryResult<Vec<crate::connection::own::TextRow>> {
            use diesel::prelude::*;
            let mut query = diesel::sql_query(Self::WORDS.write(sql)).into_boxed::<$native>();
            for bind in binds {
                query = query.bind::<diesel::sql_types::Text, _>(*bind);
            }
            query.load(raw)
        }

        fn migrate(
            raw: &mut $raw,
            source: Option<&dyn crate::connection::migrations::Migrations>,
        ) -> diesel::migration::Result<crate::connection::migrations::Ran> {
            use diesel::migration::{Migration, MigrationSource};
            use diesel_migrations::MigrationHarness;
            let mut all: Vec<Box<dyn Migration<$native>>> = match source {
                Some(source) => MigrationSource::<$native>::migrations(source)?,
                None => MigrationSource::<$native>::migrations(&MIGRATIONS)?,
            };
            all.sort_by(|a, b| a.name().version().cmp(&b.name().version()));
            // Nobody else does it meanwhile; the end of the connection gives the lock back.
            let locks = all.iter().all(|migration| LOCKS_ALWAYS || migration.metadata().run_in_transaction());
            if locks {
                lock_schema(raw)?;
            }
            let mut ran = crate::connection::migrations::Ran::default();
            let there = raw.applied_migrations()?;
            for migration in all {
                if there.contains(&migration.name().version()) {
                    ran.already += 1;
                } else {
                    ran.versions.push(raw.run_migration(&*migration)?.to_string());
                }
            }
            if locks {
                unlock_schema(raw)?;
            }
            Ok(ran)
        }
    };
}

/// The error of a statement on a table of ours that is not there, or has not its row.
pub fn explained(error: Error, database: &Alias) -> Error {
    let text = match &error {
        Error::Query(diesel::result::Error::NotFound) => "does not exist: the row of multidb_meta".to_owned(),
        Error::Query(query) => query.to_string(),
        _ => return error,
    };
    let missing = text.contains("multidb_")
        && ["no such table", "does not exist", "doesn't exist"].iter().any(|absent| text.contains(absent));
    if !missing {
        return error;
    }
    Error::Config {
        alias: Some(database.clone()),
        key: None,
        problem: format!("a table of the library is missing: {text}"),
        remedy: "call `multidb::schema::install(&databases)` once, when the application is set up".into(),
    }
}

pub(super) use own_statements;

#[cfg(test)]
mod tests {
    use super::Words;

    #[test]
    fn a_statement_is_written_in_the_words_of_the_backend() {
        let words = Words {
            now: "now()",
            insert_new: ["INSERT INTO", "OR NOTHING"],
            now_committed: "",
            text: "CAST(? AS TEXT)",
            if_written: "WHERE wrote()",
            numbered: true,
        };
        let sql = "{insert} t (a, b) VALUES (?, {now}) {or_nothing} AND b = ?";
        assert_eq!(words.write(sql), "INSERT INTO t (a, b) VALUES ($1, now()) OR NOTHING AND b = $2");
        let sql = "INSERT INTO t SELECT {text}, {text} {if_written}";
        assert_eq!(words.write(sql), "INSERT INTO t SELECT CAST($1 AS TEXT), CAST($2 AS TEXT) WHERE wrote()");
        let plain = Words { numbered: false, ..words };
        assert_eq!(plain.write("a = ?"), "a = ?");
    }
}
