//! Statements on the library's own tables. They hold text and whole numbers alone, so that one form does for all backends.

use std::fmt::Write;

use diesel::deserialize::QueryableByName;
use diesel::sql_types::{Nullable, Text};

use super::born::Born;
use crate::alias::Alias;
use crate::error::Error;

/// Up to three columns of text, which the statement names `a`, `b` and `c`.
#[derive(Debug, Clone, Default, PartialEq, Eq, QueryableByName)]
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

/// How the names of the library's own tables begin.
const PREFIX: &str = "multidb_";

impl Words {
    /// The statement as the backend wants it: with the names of the fields above in braces, and `?`, replaced, and with its
    /// place before each name of a table of ours, in this file where a connection holds several. Column names that tell their
    /// table stay, and so does what is in quotes.
    pub fn write(&self, born: &Born, file: usize, sql: &str) -> String {
        let mut written = String::with_capacity(2 * sql.len());
        self.write_part(born, file, sql, &mut written, &mut 0);
        written
    }

    fn write_part(&self, born: &Born, file: usize, sql: &str, written: &mut String, parameters: &mut usize) {
        let is_word = |letter: char| letter.is_alphanumeric() || letter == '_';
        let mut rest = sql;
        while let Some(first) = rest.chars().next() {
            let length = match first {
                '\'' | '"' => rest[1..].find(first).map_or(rest.len(), |end| end + 2),
                '{' => rest.find('}').map_or(rest.len(), |end| end + 1),
                first if is_word(first) => rest.find(|letter| !is_word(letter)).unwrap_or(rest.len()),
                first => first.len_utf8(),
            };
            let (token, after) = rest.split_at(length);
            rest = after;
            match first {
                '{' if token == "{database}" => write_text(born.schema.as_deref().unwrap_or_default(), written),
                '{' => self.write_part(born, file, self.word(token), written, parameters),
                '?' if self.numbered => {
                    *parameters += 1;
                    write!(written, "${parameters}").expect("a String takes everything");
                }
                _ => {
                    if token.starts_with(PREFIX) && !written.ends_with('.') && !after.starts_with('.') {
                        born.write_prefix(file, written);
                    }
                    written.push_str(token);
                }
            }
        }
    }

    fn word(&self, name: &str) -> &'static str {
        match name {
            "{now}" => self.now,
            "{insert}" => self.insert_new[0],
            "{or_nothing}" => self.insert_new[1],
            "{now_committed}" => self.now_committed,
            "{text}" => self.text,
            "{if_written}" => self.if_written,
            _ => unreachable!("the library's own statements have no other words"),
        }
    }
}

/// A text for MySQL and MariaDB, which means the same in every `sql_mode`.
fn write_text(text: &str, sql: &mut String) {
    sql.push_str("_utf8mb4 X'");
    for byte in text.bytes() {
        write!(sql, "{byte:02X}").expect("a String takes everything");
    }
    sql.push('\'');
}

/// The ways to run such a statement, and migrations, for one backend.
macro_rules! own_statements {
    ($native:ty, $raw:ty, $around:ty) => {
        fn execute_own_in(
            raw: &mut $raw,
            born: &crate::connection::born::Born,
            file: usize,
            sql: &str,
            binds: &[&str],
        ) -> diesel::result::QueryResult<usize> {
            use diesel::prelude::*;
            let mut query = diesel::sql_query(Self::WORDS.write(born, file, sql)).into_boxed::<$native>();
            for bind in binds {
                query = query.bind::<diesel::sql_types::Text, _>(*bind);
            }
            query.execute(raw)
        }

        fn load_own_in(
            raw: &mut $raw,
            born: &crate::connection::born::Born,
            file: usize,
            sql: &str,
            binds: &[&str],
        ) -> diesel::result::QueryResult<Vec<crate::connection::own::TextRow>> {
            Self::ask(raw, &Self::WORDS.write(born, file, sql), binds)
        }

        fn ask(
            raw: &mut $raw,
            sql: &str,
            binds: &[&str],
        ) -> diesel::result::QueryResult<Vec<crate::connection::own::TextRow>> {
            use diesel::prelude::*;
            let mut query = diesel::sql_query(sql).into_boxed::<$native>();
            for bind in binds {
                query = query.bind::<diesel::sql_types::Text, _>(*bind);
            }
            query.load(raw)
        }

        fn migrate(
            raw: &mut $raw,
            source: Option<&dyn crate::connection::migrations::Migrations>,
        ) -> diesel::migration::Result<crate::connection::migrations::Ran> {
            use crate::connection::migrations::{Around, Ran};
            use diesel::migration::{Migration, MigrationSource};
            use diesel_migrations::MigrationHarness;

            fn run_all(
                raw: &mut $raw,
                all: Vec<Box<dyn Migration<$native>>>,
                around: &mut $around,
            ) -> diesel::migration::Result<Ran> {
                // No other process does it meanwhile; the end of the connection gives the lock back.
                let locks = all.iter().all(|migration| LOCKS_ALWAYS || migration.metadata().run_in_transaction());
                if locks {
                    lock_schema(raw)?;
                }
                let mut ran = Ran::default();
                let there = raw.applied_migrations()?;
                for migration in all {
                    if there.contains(&migration.name().version()) {
                        ran.already += 1;
                        continue;
                    }
                    around.before(raw)?;
                    let alone = !locks && migration.metadata().run_in_transaction();
                    if alone {
                        lock_schema(raw)?;
                    }
                    ran.versions.push(raw.run_migration(&*migration)?.to_string());
                    around.after(raw, &migration.name().to_string())?;
                    if alone {
                        unlock_schema(raw)?;
                    }
                }
                if locks {
                    unlock_schema(raw)?;
                }
                Ok(ran)
            }

            let mut all: Vec<Box<dyn Migration<$native>>> = match source {
                Some(source) => MigrationSource::<$native>::migrations(source)?,
                None => MigrationSource::<$native>::migrations(&MIGRATIONS)?,
            };
            all.sort_by(|a, b| a.name().version().cmp(&b.name().version()));
            let mut around = <$around as Around<$raw>>::begin(raw)?;
            let ran = run_all(raw, all, &mut around);
            let ended = around.end(raw);
            let ran = ran?;
            ended?;
            Ok(ran)
        }
    };
}

/// Whether a database says that a table of ours is not there. Its savepoints have names of ours too.
pub fn names_missing_table(text: &str) -> bool {
    text.contains(PREFIX)
        && !text.to_ascii_lowercase().contains("savepoint")
        && ["no such table", "does not exist", "doesn't exist"].iter().any(|absent| text.contains(absent))
}

/// How an error begins if the database, or the session on it, takes no writes.
const READ_ONLY: &str = "it is read-only, and the library has to write to its tables";

/// Why a statement on a table of ours failed, if the way to it is to blame, and what to do.
fn obstacle(text: &str) -> Option<(&'static str, &'static str)> {
    let names = |parts: &[&str]| parts.iter().any(|part| text.contains(part));
    if names(&["permission denied for schema"]) {
        return Some((
            "the role may not use the schema of the library's tables",
            "grant USAGE on the schema, and SELECT, INSERT, UPDATE and DELETE on its tables, to the role that connections \
             begin with",
        ));
    }
    if text.contains(PREFIX) && names(&["permission denied", "command denied"]) {
        return Some((
            "the role may not use a table of the library",
            "grant SELECT, INSERT, UPDATE and DELETE to the role that connections begin with; if a trigger or a function has \
             taken another one, let it give that back",
        ));
    }
    if names(&["in a read-only transaction", "READ ONLY transaction", "read-only option"]) {
        let remedy = "let the URL lead to the primary, and switch `default_transaction_read_only` off on PostgreSQL, `read_only` on \
                      MySQL and MariaDB";
        return Some((READ_ONLY, remedy));
    }
    if text.contains("readonly database") {
        return Some((READ_ONLY, "open the file without `mode=ro`, and let the process write to it and to its folder"));
    }
    names_missing_table(text).then_some((
        "a table of the library is missing",
        "call `multidb::schema::install(&databases)` once, when the application is set up",
    ))
}

/// The error of a statement on a table of ours that is not there, has not its row, or is kept from the role.
pub fn explained(error: Error, database: &Alias) -> Error {
    let text = match &error {
        Error::Query(diesel::result::Error::NotFound) => "multidb_meta does not exist: it has no row".to_owned(),
        Error::Query(query) => query.to_string(),
        _ => return error,
    };
    let Some((problem, remedy)) = obstacle(&text) else { return error };
    Error::Config {
        alias: Some(database.clone()),
        key: None,
        problem: format!("{problem}: {text}"),
        remedy: remedy.into(),
    }
}

pub(super) use own_statements;

#[cfg(test)]
mod tests {
    use super::{Born, Words};

    const WORDS: Words = Words {
        now: "now()",
        insert_new: ["INSERT INTO", "OR NOTHING"],
        now_committed: "",
        text: "CAST(? AS TEXT)",
        if_written: "WHERE wrote()",
        numbered: true,
    };

    #[test]
    fn a_statement_is_written_in_the_words_of_the_backend() {
        let born = Born::of_file();
        let sql = "{insert} t (a, b) VALUES (?, {now}) {or_nothing} AND b = ?";
        assert_eq!(WORDS.write(&born, 0, sql), "INSERT INTO t (a, b) VALUES ($1, now()) OR NOTHING AND b = $2");
        let sql = "INSERT INTO t SELECT {text}, {text} {if_written}";
        assert_eq!(WORDS.write(&born, 0, sql), "INSERT INTO t SELECT CAST($1 AS TEXT), CAST($2 AS TEXT) WHERE wrote()");
        let plain = Words { numbered: false, ..WORDS };
        assert_eq!(plain.write(&born, 0, "a = ?"), "a = ?");
        let born = Born::in_schema(Some("a'b".into()), true, '`');
        assert_eq!(plain.write(&born, 0, "CONCAT('x', {database})"), "CONCAT('x', _utf8mb4 X'612762')");
    }

    #[test]
    fn only_names_of_our_tables_get_their_place() {
        for (sql, expected) in [
            (
                "DELETE FROM multidb_once WHERE multidb_once.id = a",
                "DELETE FROM \"a?\".multidb_once WHERE multidb_once.id = a",
            ),
            ("SELECT gid FROM (multidb_decision)", "SELECT gid FROM (\"a?\".multidb_decision)"),
            ("SELECT 'multidb_a', \"multidb_1\".x FROM items", "SELECT 'multidb_a', \"multidb_1\".x FROM items"),
            ("SELECT 'it''s multidb_a' FROM multidb_b, c", "SELECT 'it''s multidb_a' FROM \"a?\".multidb_b, c"),
            ("SELECT a FROM x.multidb_b, my_multidb_c", "SELECT a FROM x.multidb_b, my_multidb_c"),
            ("SELECT 'multidb_a", "SELECT 'multidb_a"),
        ] {
            let born = Born::in_schema(Some("a?".into()), true, '"');
            assert_eq!(WORDS.write(&born, 0, sql), expected);
        }
    }
}
