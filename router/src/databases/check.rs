//! Whether the servers are set up for transactions over several databases.

use std::fmt;

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
    /// versions, storage engines, journal modes, the language of messages. Each finding names the setting and its value.
    ///
    /// A transaction that can't be atomic is refused when it is tried, whatever this says. This tells before.
    pub fn check(&self) -> CheckReport {
        let mut report = CheckReport::default();
        let distinct =
            self.iter().enumerate().filter(|(index, _)| !(0..*index).any(|before| self.are_same(before, *index)));
        let distinct = distinct.filter(|(_, database)| !database.is_in_memory());
        // All at once: each may take a while to answer, or not answer at all.
        let pending: Vec<_> = distinct
            .map(|(_, database)| (database.alias(), database.driver(), database.driver().begin_survey()))
            .collect();
        for (alias, driver, pending) in pending {
            let found = pending
                .and_then(|wait| wait())
                .and_then(|mut survey| survey.shortcomings(driver.settings()).map_err(crate::error::Error::from));
            match found {
                Ok(found) => report.findings.extend(found.into_iter().map(|one| (alias.clone(), one))),
                Err(error) => report.unreachable.push((alias.clone(), error.to_string())),
            }
        }
        report
    }
}
