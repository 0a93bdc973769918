//! What all connections of a pool begin with: where the library's own tables are, and as whom they come.
//!
//! Statements of the user's may change both for a session: `SET search_path`, `USE`, `SET ROLE`. The library's own rows must be
//! where every other process looks for them all the same, so its statements name the place and take the role back.

use std::fmt::Write;
use std::sync::{Arc, Mutex, PoisonError};

use diesel::result::QueryResult;

use super::attached;
use super::backend::Dialect;
use super::beside::Beside;
use super::settings::Settings;
use crate::error::Error;

/// What a fresh connection says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Born {
    /// PostgreSQL's schema, or MySQL's and MariaDB's database, in which the library's own tables are, or would be made. `None`
    /// where the session has none, and for a file.
    pub schema: Option<Box<str>>,
    /// Whether they are there, or could be nowhere else.
    pub settled: bool,
    /// PostgreSQL: the user as whom the connection was made.
    pub user: Box<str>,
    /// MySQL and MariaDB: what SQL means.
    pub mode: Box<str>,
    /// The role that the session has, as the server writes it.
    pub role: Box<str>,
    /// What stands before the name of a table, with its dot.
    prefix: Box<str>,
}

impl Born {
    /// A session whose tables are in this schema, which it writes in these quotes.
    pub fn in_schema(schema: Option<String>, settled: bool, quote: char) -> Self {
        let doubled = [quote; 2].iter().collect::<String>();
        let quoted = |schema: &String| format!("{quote}{}{quote}.", schema.replace(quote, &doubled));
        let prefix = schema.as_ref().map(quoted).unwrap_or_default().into();
        Self { schema: schema.map(Into::into), settled, prefix, ..Self::default() }
    }

    /// The same, with a role.
    pub fn with_role(self, role: impl Into<Box<str>>) -> Self {
        Self { role: role.into(), ..self }
    }

    /// The same, with a user.
    pub fn with_user(self, user: impl Into<Box<str>>) -> Self {
        Self { user: user.into(), ..self }
    }

    /// The same, with a mode.
    pub fn with_mode(self, mode: impl Into<Box<str>>) -> Self {
        Self { mode: mode.into(), ..self }
    }

    /// A connection to one or several files.
    pub fn of_file() -> Self {
        Self { settled: true, ..Self::default() }
    }

    /// Writes what stands before the name of a table of the library's, in the file at this place where there are several.
    pub fn write_prefix(&self, file: usize, sql: &mut String) {
        if self.schema.is_none() && self.settled {
            write!(sql, "{}.", attached::schema(file)).expect("a String takes everything");
        } else {
            sql.push_str(&self.prefix);
        }
    }
}

/// What the connections of one pool begin with: asked once, of a connection that was not used yet.
#[derive(Debug)]
pub struct Births {
    settings: Settings,
    beside: Beside,
    known: Mutex<Option<Arc<Born>>>,
}

impl Births {
    /// Nothing is asked yet.
    pub fn new<B: Dialect>(settings: Settings) -> Self {
        let known = Mutex::new(B::born_alike().map(Arc::new));
        Self { settings, beside: Beside::default(), known }
    }

    /// Opens connections that don't count.
    pub fn beside(&self) -> &Beside {
        &self.beside
    }

    fn known(&self) -> Option<Arc<Born>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Asks a connection that was not used yet, unless another one was asked before.
    pub fn of<B: Dialect>(&self, fresh: &mut B::Raw) -> QueryResult<Arc<Born>> {
        self.known().map_or_else(|| self.ask::<B>(fresh), Ok)
    }

    /// Asks a connection that was not used yet. Where the tables are missing the answer is not kept: they may be made elsewhere.
    pub fn ask<B: Dialect>(&self, fresh: &mut B::Raw) -> QueryResult<Arc<Born>> {
        let born = Arc::new(B::born(fresh)?);
        if born.settled {
            *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&born));
        }
        Ok(born)
    }

    /// What the connections begin with, told by one beside the pool where none was asked yet.
    pub fn get<B: Dialect>(&self) -> QueryResult<Arc<Born>> {
        if let Some(known) = self.known() {
            return Ok(known);
        }
        let unreachable = |problem: String| {
            let (alias, url) = (self.settings.alias.clone(), &self.settings.url);
            let problem =
                format!("{} (at `{}`)", crate::databases::mask_in(&problem, url), crate::databases::mask(url));
            Error::Pool { database: alias, problem }
        };
        let mut fresh = self.beside.open::<B>(&self.settings).map_err(unreachable)?;
        self.ask::<B>(&mut fresh)
    }
}

#[cfg(test)]
mod tests {
    use super::Born;

    fn prefix(born: &Born, file: usize) -> String {
        let mut sql = String::new();
        born.write_prefix(file, &mut sql);
        sql
    }

    #[test]
    fn a_name_that_needs_quotes_gets_them() {
        let named = |schema: &str, quote| prefix(&Born::in_schema(Some(schema.into()), true, quote), 0);
        assert_eq!(named("app", '"'), "\"app\".");
        assert_eq!(named("it's \"My\" app", '"'), "\"it's \"\"My\"\" app\".");
        assert_eq!(named("a`b\"c", '`'), "`a``b\"c`.");
        assert_eq!(prefix(&Born::in_schema(None, false, '"'), 0), "");
        assert_eq!((prefix(&Born::of_file(), 0), prefix(&Born::of_file(), 2)), ("main.".into(), "multidb_2.".into()));
    }
}
