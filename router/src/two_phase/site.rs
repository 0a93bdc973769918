//! The databases as recovery sees them, each on a connection of its own.

use diesel::result::{Error as DieselError, QueryResult};

use super::protocol::{Incarnations, Receipts};
use super::report::RecoveryReport;
use crate::alias::Alias;
use crate::connection::identity::Identity;
use crate::connection::own::names_missing_table;
use crate::connection::survey::{Prepared, Survey};
use crate::databases::Databases;
use crate::transaction_id::TransactionId;

/// A database that can be asked.
pub(super) struct Site {
    pub(super) alias: Alias,
    pub(super) identity: Identity,
    pub(super) survey: Box<dyn Survey>,
    confirmed: Option<bool>,
}

impl Site {
    /// Proves once in a pass that this is the primary.
    pub(super) fn confirm(&mut self) -> QueryResult<()> {
        let survey = &mut self.survey;
        // The next transaction shall not wait for it again.
        let confirmed = *self.confirmed.get_or_insert_with(|| survey.confirm().is_ok());
        if confirmed { Ok(()) } else { Err(DieselError::QueryBuilderError("no standby has confirmed a write".into())) }
    }

    /// Its incarnations, from which the protocol concludes whether it may be believed.
    pub(super) fn incarnations(&self) -> Incarnations<'_> {
        incarnations(&self.identity)
    }

    /// A standby, or read-only.
    fn is_standby(&self) -> bool {
        self.identity.incarnation.is_none()
    }

    /// Its prepared branches. A standby doesn't know what is prepared: its empty list would be none.
    pub(super) fn prepared(&mut self) -> QueryResult<Vec<Prepared>> {
        if self.is_standby() {
            return Err(DieselError::NotFound);
        }
        self.survey.prepared(&self.identity.database_id)
    }
}

/// All databases that can be asked, each once, whatever aliases it has.
pub(crate) struct Sites {
    all: Vec<Site>,
    complete: bool,
    unconfirmed: bool,
}

impl Sites {
    /// Connects to each database. What is wrong with one is reported, and never stops the others.
    pub(crate) fn open(databases: &Databases, report: &mut RecoveryReport) -> Self {
        Self::open_some(databases, |_| true, report)
    }

    /// The same for some of them, by their indices in the registry.
    pub(crate) fn open_some(
        databases: &Databases,
        wanted: impl Fn(usize) -> bool,
        report: &mut RecoveryReport,
    ) -> Self {
        let mut sites: Vec<Site> = Vec::new();
        let mut complete = true;
        let indices = 0..databases.iter().count();
        let each_once = indices.filter(|index| {
            let is_first = !(0..*index).any(|before| wanted(before) && databases.are_same(before, *index));
            wanted(*index) && is_first && !databases.at(*index).is_in_memory()
        });
        // All at once, since one may take its whole time.
        let begun: Vec<_> = each_once.map(|index| (index, databases.at(index).driver().begin_survey())).collect();
        for (index, begun) in begun {
            let alias = databases.at(index).alias().clone();
            let survey = begun.and_then(|pending| pending()).map_err(|error| error.to_string());
            match survey.and_then(|survey| Self::site(databases, index, survey)) {
                Ok(Some(site)) => sites.push(site),
                // Without the library's tables nothing of it can be there.
                Ok(None) => {}
                Err(problem) => {
                    complete = false;
                    report.problem(alias, problem);
                }
            }
        }
        let mut sites = Self { all: sites, complete, unconfirmed: false };
        sites.remove_standbys(report);
        sites.remove_copies(report);
        sites
    }

    fn site(databases: &Databases, index: usize, mut survey: Box<dyn Survey>) -> Result<Option<Site>, String> {
        let database = databases.at(index);
        let identity = match survey.identity() {
            Ok(identity) => identity,
            Err(error) if is_not_installed(&error) => return Ok(None),
            Err(error) => return Err(error.to_string()),
        };
        if !identity.is_known_server() {
            return Err(format!(
                "it is on another server than `multidb_meta` says (`{}`, not `{}`), so it may be a copy or a restored \
                 backup; call `databases.adopt(\"{}\")` if it is the only one",
                identity.server,
                identity.known_server,
                database.alias()
            ));
        }
        if let Some(environment) = databases.environment().filter(|known| **known != *identity.environment) {
            return Err(format!(
                "it belongs to the environment `{}`, and this application runs in `{environment}`: it may be a copy; mend \
                 the URL, or call `databases.adopt(\"{}\")`",
                identity.environment,
                database.alias()
            ));
        }
        Ok(Some(Site { alias: database.alias().clone(), identity, survey, confirmed: None }))
    }

    /// A standby beside its primary is asked for nothing. One without it may lag, and doesn't know what is prepared, so
    /// that its silence says nothing.
    fn remove_standbys(&mut self, report: &mut RecoveryReport) {
        let primaries = self.all.iter().filter(|site| !site.is_standby());
        let mut answered: Vec<Box<str>> = primaries.map(|site| site.identity.database_id.clone()).collect();
        self.all.retain(|site| {
            let id = &site.identity.database_id;
            let stays = !site.is_standby() || !answered.contains(id);
            if site.is_standby() && stays {
                self.complete = false;
                answered.push(id.clone());
                let text = "it is a standby or read-only, and its primary is none of the databases that can be reached";
                report.problem(site.alias.clone(), text.into());
            }
            stays
        });
    }

    /// Of two databases with one id, one is a copy, and nobody knows which.
    fn remove_copies(&mut self, report: &mut RecoveryReport) {
        let ids: Vec<Box<str>> = self.all.iter().map(|site| site.identity.database_id.clone()).collect();
        let is_copied = |site: &Site| ids.iter().filter(|id| **id == site.identity.database_id).count() > 1;
        for site in self.all.extract_if(.., |site| is_copied(site)) {
            self.complete = false;
            let text = "another database of the configuration has the same `database_id`: one is a copy of the other, or \
                        both are one, and `same_as` says so";
            report.problem(site.alias, text.into());
        }
    }

    /// Whether what was read and written everywhere is replicated, where anything is.
    pub(super) fn are_confirmed(&mut self) -> bool {
        self.unconfirmed = self.unconfirmed || self.all.iter_mut().any(|site| site.survey.confirm().is_err());
        !self.unconfirmed
    }

    /// Whether every configured database can be asked.
    pub(super) fn is_complete(&self) -> bool {
        self.complete
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn at(&self, at: usize) -> &Site {
        &self.all[at]
    }

    pub(super) fn at_mut(&mut self, at: usize) -> &mut Site {
        &mut self.all[at]
    }

    /// One database, and the others beside it.
    pub(super) fn split(&mut self, at: usize) -> (&mut Site, Others<'_>) {
        let (before, rest) = self.all.split_at_mut(at);
        let (site, after) = rest.split_first_mut().expect("a site of this number");
        (site, Others { before, after })
    }

    /// The database of this id.
    pub(super) fn of(&self, database_id: &str) -> Option<usize> {
        self.all.iter().position(|site| *site.identity.database_id == *database_id)
    }

    /// The database of the branch of this name.
    pub(super) fn of_branch(&self, branch: &str) -> Option<usize> {
        branch.split_once('_').and_then(|(_, database_id)| self.of(database_id))
    }

    /// The databases of these branches that are none of those that can be asked, by their ids.
    pub(super) fn missing(&self, branches: &[String]) -> Vec<String> {
        let missing = branches.iter().filter(|branch| self.of_branch(branch).is_none());
        missing.map(|branch| branch.split_once('_').map_or(&**branch, |(_, id)| id).to_owned()).collect()
    }

    /// Whether any database holds a receipt of a transaction.
    pub(super) fn receipts(&mut self, id: &TransactionId) -> Receipts {
        let mut receipts = Receipts { found: false, complete: self.complete };
        for site in &mut self.all {
            match site.survey.receipts(id) {
                Ok(found) => receipts.found |= !found.is_empty(),
                Err(_) => receipts.complete = false,
            }
        }
        receipts
    }

    /// Its prepared branches. A failure is reported.
    pub(super) fn list(&mut self, at: usize, report: &mut RecoveryReport) -> Vec<Prepared> {
        let site = &mut self.all[at];
        if site.is_standby() {
            // It is reported already.
            return Vec::new();
        }
        site.prepared().unwrap_or_else(|error| {
            self.complete = false;
            report.problem(site.alias.clone(), error.to_string());
            Vec::new()
        })
    }
}

/// All databases but one.
pub(super) struct Others<'a> {
    before: &'a mut [Site],
    after: &'a mut [Site],
}

impl Others<'_> {
    pub(super) fn get(&mut self, at: usize) -> Option<&mut Site> {
        let first_after = self.before.len() + 1;
        if at < self.before.len() { self.before.get_mut(at) } else { self.after.get_mut(at.checked_sub(first_after)?) }
    }
}

/// What a database tells of its incarnations.
pub(super) fn incarnations(identity: &Identity) -> Incarnations<'_> {
    Incarnations { now: identity.incarnation.as_deref(), adopted: &identity.adopted, grows: identity.grows }
}

/// Whether the library's tables are not there.
fn is_not_installed(error: &DieselError) -> bool {
    let text = error.to_string();
    matches!(error, DieselError::NotFound) || text.contains("multidb_meta") && names_missing_table(&text)
}
