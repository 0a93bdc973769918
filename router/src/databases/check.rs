//! Whether the servers are set up for transactions over several databases.

use std::fmt;

use super::across::CrossDatabase;
use super::database::Database;
use super::registry::Databases;
use crate::alias::Alias;
use crate::connection::check::Shortcoming;

/// What [`Databases::check`] has found.
#[derive(Debug, Clone, Default)]
pub struct CheckReport {
    findings: Vec<(Alias, Shortcoming)>,
    unreachable: Vec<(Alias, String)>,
}

impl CheckReport {
    /// What is not as it must be, each with its database.
    pub fn findings(&self) -> &[(Alias, Shortcoming)] {
        &self.findings
    }

    /// The databases that could not be asked, and why.
    pub fn unreachable(&self) -> &[(Alias, String)] {
        &self.unreachable
    }

    /// Whether all is well.
    pub fn is_ok(&self) -> bool {
        self.findings.is_empty() && self.unreachable.is_empty()
    }
}

impl fmt::Display for CheckReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_ok() {
            return f.write_str("all databases are set up for transactions over several");
        }
        let mut separator = "";
        for (alias, Shortcoming { setting, found, wanted, why }) in &self.findings {
            write!(f, "{separator}`{alias}`: `{setting}` is {found}, and should be {wanted}: {why}")?;
            separator = "\n";
        }
        for (alias, problem) in &self.unreachable {
            write!(f, "{separator}`{alias}`: can't be asked: {problem}")?;
            separator = "\n";
        }
        Ok(())
    }
}

impl Databases {
    /// Looks whether each database is set up for transactions over several: prepared transactions, durability, privileges,
    /// versions, storage engines, journal modes, the language of messages, the library's own tables. Each finding names the
    /// setting, or the table, and what is to be done.
    ///
    /// Tables are missed only where a transaction of this registry can need them: on a server beside any other database that is
    /// no `:memory:`, and on a file beside a server. Not on one database alone, on files alone, which commit as one by ATTACH, or with
    /// `cross_database = "refuse"`. `once` and `verify_commit` need the tables on any database, and this doesn't look for that.
    ///
    /// A transaction that can't be atomic is refused when it is tried, whatever this says. This tells before.
    pub fn check(&self) -> CheckReport {
        let mut report = CheckReport::default();
        let distinct =
            self.iter().enumerate().filter(|(index, _)| !(0..*index).any(|before| self.are_same(before, *index)));
        let distinct: Vec<&Database> =
            distinct.map(|(_, database)| database).filter(|database| !database.is_in_memory()).collect();
        // All at once: each may take a while to answer, or not answer at all.
        let pending: Vec<_> = distinct.iter().map(|database| (*database, database.driver().begin_survey())).collect();
        for (database, pending) in pending {
            let (alias, settings) = (database.alias(), database.driver().settings());
            let needed = self.cross_database() == CrossDatabase::Enlist && needs_tables(database, &distinct);
            let found = pending
                .and_then(|wait| wait())
                .and_then(|mut survey| survey.shortcomings(settings, needed).map_err(crate::error::Error::from));
            match found {
                Ok(found) => report.findings.extend(found.into_iter().map(|one| (alias.clone(), one))),
                Err(error) => report.unreachable.push((alias.clone(), error.to_string())),
            }
        }
        report
    }
}

/// Whether a transaction over this database and another one can need the library's tables: one of the two must prepare, and a
/// file can't. A PostgreSQL that can't yet is told to be set so.
fn needs_tables(database: &Database, distinct: &[&Database]) -> bool {
    let mut others = distinct.iter().filter(|other| !std::ptr::eq(**other, database));
    others.any(|other| !(database.is_sqlite() && other.is_sqlite()))
}
