//! Several SQLite files on one connection, so that one COMMIT is for all of them.
//!
//! SQLite writes the names of all their journals into a super-journal, and deleting that one commits them all. It does so
//! for rollback journals on a disk alone. In WAL mode, or without a journal, it commits file by file and says nothing.

use std::fmt::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;

use super::backend::Dialect;
use super::control::Start;
use super::link::Link;
use super::own::TextRow;
use super::right_of_way::RightOfWay;
use crate::alias::Alias;
use crate::databases::mask;
use crate::error::{Error, Result};

/// The most files in one transaction. SQLite attaches ten at most; ours are ten together.
pub const FILES_LIMIT: usize = 10;

/// One of the files.
#[derive(Debug, Clone)]
pub struct File {
    /// Its database.
    pub alias: Alias,
    /// Where it is, in the form that the driver takes.
    pub url: String,
    /// `PRAGMA journal_mode`; `None` leaves the file as it is.
    pub journal_mode: Option<&'static str>,
    /// Who comes first at it.
    pub right_of_way: Arc<RightOfWay>,
}

/// Which of a connection's files a handle means.
#[derive(Debug, Clone)]
pub struct OwnFile {
    /// Its place.
    pub place: usize,
    /// Its database.
    pub alias: Alias,
}

/// The name that a connection has for the file at this place.
pub fn schema(file: usize) -> impl fmt::Display {
    fmt::from_fn(move |f| if file == 0 { f.write_str("main") } else { write!(f, "multidb_{file}") })
}

/// Attaches the files to a connection that holds the first one, and sets up each.
#[cfg(feature = "sqlite")]
pub fn attach(files: &[File]) -> String {
    let mut sql = String::new();
    for (place, file) in files.iter().enumerate().skip(1) {
        let url = file.url.replace('\'', "''");
        write!(sql, " ATTACH '{url}' AS {};", schema(place)).expect("a String takes everything");
    }
    for (place, file) in files.iter().enumerate() {
        let schema = schema(place);
        if let Some(mode) = file.journal_mode {
            write!(sql, " PRAGMA {schema}.journal_mode = {mode};").expect("a String takes everything");
        }
        // Below FULL the journal may be lost that a file of a half commit needs; below EXTRA, where one file alone was
        // written, its journal may come back and undo the commit.
        write!(sql, " PRAGMA {schema}.synchronous = EXTRA;").expect("a String takes everything");
    }
    sql
}

/// The files of a connection, and what has to be asked of them before each COMMIT.
pub struct Attached {
    files: Vec<File>,
    modes: String,
    names: String,
    reads: String,
}

impl Attached {
    /// `None` for a connection to one file alone.
    pub fn new(files: &[File]) -> Option<Arc<Self>> {
        if files.is_empty() {
            return None;
        }
        let (mut modes, mut names, mut reads) = (String::new(), String::new(), String::new());
        for place in 0..files.len() {
            let (schema, more) = (schema(place), if place == 0 { "" } else { " UNION ALL " });
            // Where it is asked for in a transaction the mode can't change any more.
            write!(
                modes,
                "{more}SELECT (SELECT journal_mode FROM pragma_journal_mode('{schema}')) AS a, (SELECT file FROM \
                 pragma_database_list WHERE name = '{schema}') AS b, NULL AS c"
            )
            .expect("a String takes everything");
            write!(reads, "; SELECT 1 FROM \"{schema}\".sqlite_schema LIMIT 1").expect("a String takes everything");
            write!(names, "{more}SELECT '{place}' AS file, type, lower(name) AS name FROM \"{schema}\".sqlite_schema")
                .expect("a String takes everything");
        }
        // An unqualified name means the first file that has it. Names of ours and of Diesel's may be in each.
        let names = format!(
            "SELECT name AS a, min(file) AS b, max(file) AS c FROM ({names}) WHERE type IN ('table', 'view') AND name \
             NOT GLOB 'sqlite_*' AND name NOT GLOB 'multidb_*' AND name <> '__diesel_schema_migrations' GROUP BY name \
             HAVING count(*) > 1 ORDER BY name LIMIT 1"
        );
        Some(Arc::new(Self { files: files.to_vec(), modes, names, reads }))
    }

    /// The database of the file at this place.
    pub fn alias(&self, place: usize) -> Alias {
        self.files[place].alias.clone()
    }

    /// How many files there are.
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Reads the schema of each file.
    pub fn reads(&self) -> &str {
        self.reads.trim_start_matches("; ")
    }

    /// Takes the locks of a transaction that only reads with its BEGIN, in the order of the files, as BEGIN IMMEDIATE does.
    /// Taken one by one when each is read first, they and those of a COMMIT could wait for each other.
    pub fn write_locks(&self, begin: &Start, sql: &mut String) {
        if begin.characteristics.limits.read_only {
            sql.push_str(&self.reads);
        }
    }

    /// Refuses where what is written to the files could be committed in part, or in another file than was meant. Gives the
    /// path of each file.
    pub fn examine<B: Dialect>(&self, raw: &mut B::Raw) -> Result<Vec<PathBuf>> {
        let modes = B::ask(raw, &self.modes, &[])?;
        for (file, found) in self.files.iter().zip(&modes) {
            self.examine_journal(file, found)?;
        }
        if let [clash, ..] = &B::ask(raw, &self.names, &[])?[..] {
            return Err(self.clash(clash));
        }
        Ok(modes.into_iter().map(|found| found.b.unwrap_or_default().into()).collect())
    }

    fn examine_journal(&self, file: &File, found: &TextRow) -> Result<()> {
        let path = found.b.as_deref().filter(|path| !path.is_empty());
        let Some(path) = path else { return Err(in_memory(&self.files, file)) };
        match found.a.as_deref() {
            Some("delete" | "truncate" | "persist") => Ok(()),
            Some("wal") => Err(in_wal_mode(&self.files, file, path)),
            mode => {
                let mode = mode.unwrap_or("unknown");
                let reason = format!(
                    "`{}` ({path}) has `journal_mode = {mode}`, and without a journal on the disk a crash leaves a part of \
                     a commit",
                    file.alias
                );
                Err(self.refusal(reason, "set no `journal_mode` on its connections, or `DELETE`".to_owned()))
            }
        }
    }

    fn clash(&self, row: &TextRow) -> Error {
        let alias = |place: &Option<String>| {
            let place = place.as_deref().and_then(|place| place.parse::<usize>().ok());
            place.and_then(|place| self.files.get(place)).map_or("?", |file| file.alias.as_str())
        };
        let (name, first, second) = (row.a.as_deref().unwrap_or_default(), alias(&row.b), alias(&row.c));
        let reason = format!(
            "a table or view `{name}` is in both `{first}` and `{second}`, and on their one connection the name would mean \
             one of them"
        );
        self.refusal(reason, format!("rename one, drop the one that is not used, or {APART}"))
    }

    fn refusal(&self, reason: String, remedies: String) -> Error {
        refusal(&self.files, reason, remedies)
    }
}

impl<B: Dialect> Link<B> {
    /// Refuses where the connection holds several files and could not commit them as one. Then it is not kept either, so
    /// that the next transaction is refused before its first statement.
    #[inline]
    pub fn examine(&mut self) -> Result<()> {
        if self.attached.is_none() { Ok(()) } else { self.examine_files() }
    }

    #[inline(never)]
    fn examine_files(&mut self) -> Result<()> {
        let Some(attached) = self.attached.clone() else { return Ok(()) };
        attached.examine::<B>(self.raw()).map(drop).inspect_err(|_| self.break_off())
    }
}

/// What does without one transaction.
const APART: &str = "let one of the two scopes say `propagation = requires_new`, which commits by itself";

/// The error of files that can't be committed as one.
pub fn refusal(files: &[File], reason: String, remedies: String) -> Error {
    Error::NotAtomic { databases: files.iter().map(|file| file.alias.clone()).collect(), reason, remedies }
}

/// The error of a database that has no file.
pub fn in_memory(files: &[File], file: &File) -> Error {
    let reason = format!("`{}` is in memory, and SQLite commits as one what is in files", file.alias);
    refusal(files, reason, format!("give it a file, or {APART}"))
}

/// The error of a file that has a write-ahead log, or would get one by its configuration.
pub fn in_wal_mode(files: &[File], file: &File, path: &str) -> Error {
    let alias = &file.alias;
    let reason = format!("`{alias}` ({}) is in WAL mode, in which SQLite commits file by file", mask(path));
    let configured = match file.journal_mode {
        Some("wal") => {
            format!("write `sqlite.journal_mode = \"delete\"` for `{alias}`, whose configuration asks for WAL, and ")
        }
        _ => String::new(),
    };
    let remedies = format!(
        "{configured}run `PRAGMA journal_mode = DELETE` on that file while no other connection has it open, or {APART}"
    );
    refusal(files, reason, remedies)
}

#[cfg(all(test, feature = "sqlite"))]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_quotes_stays_one_name() {
        let file = |url: &str| File {
            alias: "a".into(),
            url: url.into(),
            journal_mode: Some("persist"),
            right_of_way: Arc::default(),
        };
        let sql = attach(&[file("a.db"), file("it's \"b\".db")]);
        assert_eq!(
            sql,
            " ATTACH 'it''s \"b\".db' AS multidb_1; PRAGMA main.journal_mode = persist; PRAGMA main.synchronous = EXTRA; \
             PRAGMA multidb_1.journal_mode = persist; PRAGMA multidb_1.synchronous = EXTRA;"
        );
    }
}
