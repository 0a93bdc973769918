//! The library's own tables. `once`, `verify_commit` and transactions over several databases need them; nothing makes them by itself.

use std::fmt;

use crate::alias::Alias;
use crate::connection::identity::ENVIRONMENT;
use crate::databases::Databases;
use crate::error::Result;

/// Makes the library's own tables in every database of the registry, where they are missing: `multidb_once`,
/// `multidb_decision`, `multidb_receipt` and `multidb_meta`. Any number of processes may do so at once.
///
/// They are Diesel migrations, so `__diesel_schema_migrations` lists them too, with versions that sort before an
/// application's. Each database is its own step: after an error, those before it have their tables.
///
/// # Errors
/// [`Error::Pool`](crate::Error::Pool) where a database can't be reached, and [`Error::Migration`](crate::Error::Migration) with the database and what
/// it said, where a table could not be made.
pub fn install(databases: &Databases) -> Result<SchemaReport> {
    let mut report = SchemaReport { databases: Vec::new() };
    for database in databases.iter() {
        let ran = database.driver().migrate(None)?;
        database.driver().install(databases.environment().unwrap_or(ENVIRONMENT))?;
        report.databases.push((database.alias().clone(), ran.versions));
    }
    Ok(report)
}

/// What [`install`] has done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchemaReport {
    databases: Vec<(Alias, Vec<String>)>,
}

impl SchemaReport {
    /// Each database with the versions of the migrations that were run on it: none where all was there.
    pub fn applied(&self) -> impl Iterator<Item = (&Alias, &[String])> {
        self.databases.iter().map(|(alias, versions)| (alias, &versions[..]))
    }
}

impl fmt::Display for SchemaReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (alias, versions)) in self.databases.iter().enumerate() {
            let separator = if at == 0 { "" } else { "; " };
            match &versions[..] {
                [] => write!(f, "{separator}`{alias}`: up to date")?,
                versions => write!(f, "{separator}`{alias}`: ran {}", versions.join(", "))?,
            }
        }
        Ok(())
    }
}
