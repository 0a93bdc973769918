//! Databases that nothing but a variable of the environment names: a typo, or a variable that was meant for another program,
//! must neither become a database nor a file.

use std::sync::Arc;

use super::database::Database;
use super::identity::file_of;
use super::registry::{Databases, nearest};
use crate::error::{Error, Result};
use crate::routing::{Access, Subject};

/// The variable that names a database.
#[derive(Debug, Clone)]
pub(super) struct Named {
    pub(super) variable: Arc<str>,
    /// The databases of the configuration file, which doesn't have this one; `None` if there is no file.
    pub(super) file_has: Option<Arc<[String]>>,
}

fn error(database: &Database, problem: String, remedy: String) -> Error {
    Error::Config { alias: Some(database.alias.clone()), key: Some("url".into()), problem, remedy }
}

impl Named {
    /// The file of the configuration doesn't have the database, and no model is routed to it.
    fn undeclared(&self, database: &Database, file_has: &[String]) -> Error {
        let Self { variable, .. } = self;
        let alias = &database.alias;
        let known: Vec<&str> = file_has.iter().map(String::as_str).collect();
        let meant = nearest(alias.as_str(), &known).map_or_else(String::new, |near| {
            let end = alias.as_str().to_uppercase();
            let meant = variable.strip_suffix(&end).map_or_else(
                || variable.replacen(&end, &near.to_uppercase(), 1),
                |begin| format!("{begin}{}", near.to_uppercase()),
            );
            // Only `default` has a variable of another form.
            let meant = if near == "default" { "DATABASE_URL" } else { &meant };
            format!("did you mean `{meant}`? Otherwise ")
        });
        let problem = format!(
            "the environment variable `{variable}` names it, the configuration file doesn't have it, and no model that the \
             registry knows is routed to it"
        );
        error(
            database,
            problem,
            format!("{meant}unset the variable, or write a table `[{alias}]`, which may be empty, in the file"),
        )
    }

    fn without_file(&self, database: &Database) -> Error {
        error(database, missing(&self.variable), REMEDY.to_owned())
    }
}

/// What is wrong with a SQLite database without its file.
pub(crate) fn missing(variable: &str) -> String {
    format!("its SQLite file isn't there, and nothing but the environment variable `{variable}` asks for it")
}

const REMEDY: &str = "correct or unset the variable, create the file, or write `sqlite:app.db?mode=rwc`, which creates it; \
                      the file of a database that a model of the registry is routed to is created too";

impl Database {
    /// The error of a file that must be there, and isn't.
    pub(super) fn without_file(&self) -> Option<Error> {
        let named = self.named.as_ref().filter(|_| self.is_without_file())?;
        Some(named.without_file(self))
    }

    fn is_without_file(&self) -> bool {
        let settings = self.driver.settings();
        settings.sqlite.must_exist.is_some() && file_of(&settings.url).is_some_and(|path| !path.exists())
    }
}

impl Databases {
    /// Looks at each database that nothing but a variable names. One that a model is routed to is meant: its file is created, as
    /// that of a configuration file would be.
    pub(super) fn check_named(&self) -> Result<()> {
        if self.iter().all(|database| database.named.is_none()) {
            return Ok(());
        }
        let mut reached: Vec<usize> =
            self.registry().chain.aliases().filter_map(|(_, alias)| self.find(alias.as_str())).collect();
        for model in self.models() {
            for access in [Access::Write, Access::Read] {
                // What is wrong with a route is an error of its own.
                reached.extend(self.route(Subject::Model(model), access, false));
            }
        }
        for (index, database) in self.iter().enumerate() {
            let Some(named) = &database.named else { continue };
            let is_reached = reached.iter().any(|reached| self.are_same(*reached, index));
            match &named.file_has {
                Some(file_has) if !is_reached => return Err(named.undeclared(database, file_has)),
                _ if !database.is_without_file() => {}
                _ if is_reached => create(database),
                _ => return Err(named.without_file(database)),
            }
        }
        Ok(())
    }
}

/// An empty file is an empty database.
fn create(database: &Database) {
    if let Some(path) = file_of(&database.driver.settings().url) {
        // If it can't be created, SQLite's own error follows.
        drop(std::fs::File::create_new(path));
    }
}
