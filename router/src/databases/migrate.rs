//! Migrations of an application over all its databases.

use std::fmt;

use crate::alias::Alias;
use crate::connection::migrations::Ran;

/// What [`Databases::migrate`](crate::Databases::migrate) has done on each database.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MigrationReport {
    applied: Vec<(Alias, Ran)>,
    refused: Vec<(Alias, &'static str)>,
}

impl MigrationReport {
    /// The databases on which the migrations are now, each with what was run.
    pub fn applied(&self) -> impl Iterator<Item = (&Alias, &Ran)> {
        self.applied.iter().map(|(alias, ran)| (alias, ran))
    }

    /// The databases on which a router refused them, each with the router.
    pub fn refused(&self) -> impl Iterator<Item = (&Alias, &'static str)> {
        self.refused.iter().map(|(alias, router)| (alias, *router))
    }

    pub(super) fn ran(&mut self, alias: &Alias, ran: Ran) {
        self.applied.push((alias.clone(), ran));
    }

    pub(super) fn refuse(&mut self, alias: &Alias, router: &'static str) {
        self.refused.push((alias.clone(), router));
    }
}

impl fmt::Display for MigrationReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (alias, Ran { versions, already }) in &self.applied {
            match &versions[..] {
                [] => write!(f, "{separator}`{alias}`: up to date ({already} there)")?,
                versions => write!(f, "{separator}`{alias}`: ran {} ({already} there)", versions.join(", "))?,
            }
            separator = "; ";
        }
        for (alias, router) in &self.refused {
            write!(f, "{separator}`{alias}`: refused by router `{router}`")?;
            separator = "; ";
        }
        Ok(())
    }
}
