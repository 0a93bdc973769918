//! Which of the files on its connection a statement reaches.
//!
//! A name without a schema means the first file that has it, and a table without one is made in the first file. But a handle is
//! one of a single database, and what may run on it must not depend on which others share its connection. So SQLite is asked for
//! the plan of each text before it runs, and what reaches another file is refused.

use std::collections::HashSet;

use diesel::connection::SimpleConnection;
use diesel::query_builder::{QueryBuilder, QueryFragment};
use diesel::result::{Error as DieselError, QueryResult};

use super::attached::{Attached, schema};
use super::backend::Dialect;
use super::instrument::TEXTS_LIMIT;
use super::link::{Link, is_raw_sql, type_name};
use super::pieces::{Pieces, is_blank};
use crate::error::Error;

/// How many texts of a transaction are remembered as harmless. When there are more, all are asked about again.
const TEXTS_KEPT: usize = 256;
/// How much of a statement an error shows.
const SHOWN_LIMIT: usize = 60;

/// A step of a plan, as far as it shows which file it is about.
#[derive(Debug, Clone)]
pub struct Step {
    /// What it does.
    pub opcode: String,
    /// Its numbers, of which one is the file for many steps: 0 is `main`, 1 holds what is temporary, the others are attached.
    pub numbers: [i32; 5],
}

/// The number of what is temporary.
const TEMPORARY: i32 = 1;

impl Step {
    /// The number of the file that it is about.
    fn file(&self) -> Option<i32> {
        let [one, two, three, _, five] = self.numbers;
        match &*self.opcode {
            "Transaction" | "ReadCookie" | "SetCookie" | "CreateBtree" | "ParseSchema" | "LoadAnalysis"
            | "DropTable" | "DropIndex" | "DropTrigger" | "TableLock" | "VCreate" | "VDestroy" | "JournalMode"
            | "Checkpoint" | "Vacuum" | "IncrVacuum" | "Pagecount" | "MaxPgcnt" => Some(one),
            "Clear" => Some(two),
            "OpenRead" | "OpenWrite" | "ReopenIdx" | "Destroy" => Some(three),
            "IntegrityCk" => Some(five),
            // It runs another text, of which nothing is known.
            "SqlExec" => Some(UNKNOWN),
            _ => None,
        }
    }

    /// Whether it only checks that what `main` has is as it was when the statement was prepared. So it does for a table-valued
    /// function, such as `json_each`, which belongs to no file.
    fn is_check_of_main(&self) -> bool {
        self.opcode == "Transaction" && self.numbers[0] == 0 && self.numbers[1] == 0
    }

    /// Whether a name may mean something else afterwards.
    fn changes_schema(&self) -> bool {
        matches!(&*self.opcode, "ParseSchema" | "DropTable" | "VCreate" | "VDestroy")
    }
}

/// The number of a file that is none of those that the connection has.
const UNKNOWN: i32 = -1;

/// What is known of a connection with several files.
#[derive(Default)]
pub struct Reach {
    /// The place of the file that the handle in use means.
    own: usize,
    /// Texts that stay in a file, by its place. They hold for one transaction, while no schema changes.
    harmless: HashSet<(usize, String)>,
    /// Another process may have changed a schema, and SQLite makes its plans of what it has read before.
    stale: bool,
}

impl Reach {
    /// What follows comes through a handle on the file at this place.
    pub fn aim(&mut self, own: usize) {
        self.own = own;
    }

    /// A transaction begins. What a name means may have changed since the last one, and doesn't change from now on but by
    /// this connection.
    pub fn begin(&mut self) {
        self.forget();
        self.stale = true;
    }

    /// A name may mean something else from now on.
    pub fn forget(&mut self) {
        self.harmless.clear();
    }
}

impl<B: Dialect> Link<B> {
    /// What follows comes through a handle on the file at this place.
    #[inline]
    pub fn aim(&mut self, file: usize) {
        self.reach.aim(file);
    }

    /// Refuses a statement that would reach another file than the handle's.
    #[inline]
    pub fn keep_in_file<T: QueryFragment<B::Native>>(&mut self, statement: &T) -> QueryResult<()> {
        if self.attached.is_none() {
            return Ok(());
        }
        let mut builder = <B::Native as diesel::backend::Backend>::QueryBuilder::default();
        statement.to_sql(&mut builder, &B::NATIVE)?;
        let sql = builder.finish();
        if is_raw_sql(type_name::<T>()) {
            // First, since SQLite carries some pragmas out when it is asked for their plan.
            self.guarded(&sql, |_| Ok(()))?;
        }
        self.keep_text_in_file(&sql)
    }

    /// The same for a text of one statement.
    fn keep_text_in_file(&mut self, sql: &str) -> QueryResult<()> {
        let Some(attached) = self.attached.clone() else { return Ok(()) };
        let own = self.reach.own;
        let key = (own, sql.to_owned());
        if self.reach.harmless.contains(&key) || is_plan(sql) {
            return Ok(());
        }
        if self.reach.stale {
            // Each compares its schema, and reads it again.
            self.raw().batch_execute(attached.reads())?;
            self.reach.stale = false;
        }
        let steps = B::plan(self.raw(), sql)?;
        let number = number_of(own);
        let mut foreign =
            steps.iter().filter(|step| step.file().is_some_and(|file| file != number && file != TEMPORARY));
        if let Some(first) = foreign.next()
            && !(first.is_check_of_main() && foreign.all(Step::is_check_of_main) && self.is_function(&steps)?)
        {
            return Err(self.refuse(&attached, sql, &steps)?.into());
        }
        if steps.iter().any(Step::changes_schema) {
            self.reach.forget();
        } else {
            if self.reach.harmless.len() >= TEXTS_KEPT {
                self.reach.forget();
            }
            self.reach.harmless.insert(key);
        }
        Ok(())
    }

    /// Whether what is opened by no number can only be a table-valued function, since `main` has no virtual table.
    fn is_function(&mut self, steps: &[Step]) -> QueryResult<bool> {
        const VIRTUAL: &str = "SELECT name AS a, NULL AS b, NULL AS c FROM main.sqlite_schema WHERE rootpage = 0 AND type = \
                               'table' LIMIT 1";
        let opens = steps.iter().any(|step| step.opcode == "VOpen");
        Ok(opens && B::ask(self.raw(), VIRTUAL, &[])?.is_empty())
    }

    /// The error of a statement that reaches another file. It names the table, if there is one.
    #[cold]
    fn refuse(&mut self, attached: &Attached, sql: &str, steps: &[Step]) -> QueryResult<Error> {
        let number = number_of(self.reach.own);
        let foreign = |step: &&Step| step.file().is_some_and(|file| file != number && file != TEMPORARY);
        let opens = |step: &&Step| matches!(&*step.opcode, "OpenRead" | "OpenWrite" | "Clear");
        let database = attached.alias(self.reach.own);
        let found = steps.iter().filter(foreign).find(opens).or_else(|| steps.iter().find(foreign));
        let place = found.and_then(Step::file).and_then(place_of).filter(|place| *place < attached.len());
        let table = match (found.filter(opens), place) {
            (Some(step), Some(place)) => {
                let page = step.numbers[usize::from(step.opcode != "Clear")];
                let named = format!(
                    "SELECT tbl_name AS a, NULL AS b, NULL AS c FROM \"{}\".sqlite_schema WHERE rootpage = {page}",
                    schema(place)
                );
                B::ask(self.raw(), &named, &[])?.into_iter().next().and_then(|row| row.a)
            }
            _ => None,
        };
        let makes = steps.iter().any(|step| step.opcode == "CreateBtree" || step.opcode == "VCreate");
        let other = place.map(|place| attached.alias(place));
        let what = match table {
            Some(table) if !makes => format!("the table `{table}`"),
            _ => format!("what `{}` reaches", shown(sql)),
        };
        let remedy = match &other {
            _ if makes => format!(
                "run what makes tables outside of the transaction, or on a handle of `{database}` alone; here a name without \
                 a schema is made in the first file"
            ),
            Some(other) => format!(
                "use the handle of a model on `{other}` for it (`#[conn(Model)]`, `multidb::connection`), or make what \
                 `{database}` lacks"
            ),
            None => "run it outside of the transaction".to_owned(),
        };
        let other = other.unwrap_or_else(|| "another file".into());
        Ok(Error::OtherDatabase { what, database, other, remedy })
    }

    /// Runs a text of one or more statements in the handle's file: all of it, or nothing if a statement is refused.
    ///
    /// One after the other, since a statement may need what the one before it has made, and is unknown until then.
    pub fn batch_in_file(&mut self, sql: &str) -> QueryResult<()> {
        let mut pieces = Pieces::of(sql).filter(|piece| !is_blank(piece));
        if let (Some(only), None) = (pieces.next(), pieces.next()) {
            self.keep_text_in_file(only)?;
            return self.raw().batch_execute(sql);
        }
        self.undone_where_refused(|link| {
            let mut statement = String::new();
            for piece in Pieces::of(sql) {
                statement.push_str(piece);
                if is_blank(&statement) {
                    statement.clear();
                    continue;
                }
                match link.keep_text_in_file(&statement) {
                    Err(error) if is_incomplete(&error) => continue,
                    kept => kept?,
                }
                link.raw().batch_execute(&statement)?;
                statement.clear();
            }
            // What is not complete is an error of its own.
            if is_blank(&statement) { Ok(()) } else { link.raw().batch_execute(&statement) }
        })
    }

    /// Runs several statements, and undoes all of them if one is refused.
    fn undone_where_refused(&mut self, run: impl FnOnce(&mut Self) -> QueryResult<()>) -> QueryResult<()> {
        self.raw().batch_execute(BEFORE_TEXTS)?;
        let result = run(self);
        let undo = result.as_ref().is_err_and(is_refusal);
        let ended = self.end_texts(undo);
        // If a statement has failed, SQLite may have rolled all of it back.
        if result.is_ok() { ended } else { result }
    }

    /// Ends what [`BEFORE_TEXTS`] has begun.
    pub fn end_texts(&mut self, undo: bool) -> QueryResult<()> {
        if undo {
            self.reach.forget();
            self.raw().batch_execute("ROLLBACK TO multidb_text")?;
        }
        self.raw().batch_execute("RELEASE multidb_text")
    }

    /// Looks at texts that were sent without being asked about. What names a table that is gone again can't be told any more.
    pub fn look_back(&mut self, texts: Option<&HashSet<String>>) -> QueryResult<()> {
        let Some(texts) = texts else {
            let what = "statements of one `with_raw` over several SQLite files";
            return Err(Error::LimitExceeded { what, limit: TEXTS_LIMIT }.into());
        };
        for text in texts {
            let mut statement = String::new();
            for piece in Pieces::of(text) {
                statement.push_str(piece);
                match self.keep_text_in_file(&statement) {
                    Err(error) if is_refusal(&error) => return Err(error),
                    Err(error) if is_incomplete(&error) => {}
                    _ => statement.clear(),
                }
            }
        }
        Ok(())
    }
}

/// Begins what is undone if one of its texts is refused.
pub const BEFORE_TEXTS: &str = "SAVEPOINT multidb_text";

/// Whether a statement was refused because it would reach another file.
fn is_refusal(error: &DieselError) -> bool {
    let DieselError::QueryBuilderError(carried) = error else { return false };
    carried.downcast_ref().is_some_and(|error| matches!(error, Error::OtherDatabase { .. }))
}

/// Whether the end of the statement is missing: a trigger has semicolons inside.
fn is_incomplete(error: &DieselError) -> bool {
    matches!(error, DieselError::DatabaseError(_, information) if information.message() == "incomplete input")
}

/// The number that SQLite gives to the file at this place.
fn number_of(place: usize) -> i32 {
    let place = i32::try_from(place).unwrap_or(UNKNOWN);
    if place == 0 { 0 } else { place.saturating_add(1) }
}

/// The place of the file with this number.
fn place_of(number: i32) -> Option<usize> {
    match number {
        0 => Some(0),
        number => usize::try_from(number.checked_sub(1)?).ok(),
    }
}

/// Whether a text asks for a plan itself: it has none.
fn is_plan(sql: &str) -> bool {
    let mut piece = sql;
    loop {
        piece = piece.trim_start();
        let end = if piece.starts_with("--") { "\n" } else { "*/" };
        if !piece.starts_with("--") && !piece.starts_with("/*") {
            break;
        }
        piece = piece.split_once(end).map_or("", |(_, rest)| rest);
    }
    piece.get(..7).is_some_and(|word| word.eq_ignore_ascii_case("EXPLAIN"))
}

/// The beginning of a statement.
fn shown(sql: &str) -> String {
    let mut words = sql.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some((end, _)) = words.char_indices().nth(SHOWN_LIMIT) {
        words.truncate(end);
        words.push_str("..");
    }
    words
}
