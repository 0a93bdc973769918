//! An operator says that a database is the one that it says to be.

use super::protocol::{Adopting, State, adopting};
use super::recovery::is_open;
use super::report::RecoveryReport;
use super::site::{Sites, incarnations};
use crate::alias::Alias;
use crate::connection::survey::Survey;
use crate::databases::Databases;
use crate::error::{Error, Result};
use crate::transaction_id::{Home, TransactionId};

impl Databases {
    /// Says that a database is the one that its `multidb_meta` names, although its server is another one now: after a
    /// failover, a move or a restored backup. Recovery then trusts it again, also where a decision is missing. The database
    /// takes the registry's environment where that names one.
    ///
    /// What is prepared there and decided is committed first. A promoted standby may have a branch again whose COMMIT it had
    /// not got: where its decision may have been deleted since, nothing is adopted, and an operator finishes the branch before.
    ///
    /// Not for a copy that is used beside the original: two databases of one id would decide about the same transactions. Give
    /// a copy an id of its own (`DELETE FROM multidb_meta`, then [`schema::install`](crate::schema::install)).
    ///
    /// # Errors
    /// [`Error::UnknownDatabase`], [`Error::Pool`], what the database says, and [`Error::Config`] where a branch is prepared
    /// there that must be finished before, or whose home can't be asked.
    pub fn adopt(&self, alias: &str) -> Result<()> {
        let database = self.database(alias)?;
        let mut survey = database.driver().begin_survey()?()?;
        let identity = survey.identity()?;
        if !identity.is_known_server() || incarnations(&identity).is_promoted() {
            finish_decided(self, database.alias(), &identity.database_id, &mut *survey)?;
        }
        if let Some(environment) = self.environment() {
            survey.adopt(environment)?;
        } else {
            survey.adopt(&identity.environment)?;
        }
        tracing::warn!(target: crate::telemetry::TARGET, alias, "a database was adopted");
        Ok(())
    }
}

/// Commits what is prepared on a server before it is trusted, where home has decided so. Afterwards a branch that it has again
/// could not be told from one that was never decided.
fn finish_decided(databases: &Databases, alias: &Alias, database_id: &str, survey: &mut dyn Survey) -> Result<()> {
    let listed = survey.prepared(database_id)?;
    if listed.is_empty() {
        return Ok(());
    }
    let mut sites = Sites::open(databases, &mut RecoveryReport::default());
    for prepared in listed {
        let Some((home, gid)) = prepared.id.home().zip(prepared.gid()) else { continue };
        match of_home(&mut sites, &prepared.id, home) {
            Some(Adopting::Commit) => {
                survey.finish(&gid, true)?;
                if is_open(survey, &prepared.id, &prepared.branch)? {
                    let problem = "is said to be committed, and is still open";
                    return Err(refused(alias, &prepared.id, problem, "restart that server, which lists it again"));
                }
            }
            Some(Adopting::Leave) => {}
            Some(Adopting::Refuse) => {
                let problem = "may have been committed before, and its decision be deleted since";
                return Err(refused(
                    alias,
                    &prepared.id,
                    problem,
                    "finish it by hand (docs/OPERATIONS.md, \"A failover\")",
                ));
            }
            None => {
                let remedy = "adopt its home before, if that was failed over too, or finish the branch by hand";
                return Err(refused(alias, &prepared.id, "can't be judged, since its home can't be asked", remedy));
            }
        }
    }
    Ok(())
}

/// What home knows of a transaction; `None` where it can't be asked.
fn of_home(sites: &mut Sites, id: &TransactionId, home: &Home) -> Option<Adopting> {
    let at = sites.of(&home.database_id)?;
    let site = sites.at_mut(at);
    let is_another =
        *site.identity.environment != *home.environment || site.incarnations().is_before(&home.incarnation);
    if is_another || site.identity.incarnation.is_none() || site.confirm().is_err() {
        return None;
    }
    let letters = id.uuid_letters();
    // The row first: whoever deletes it has raised the mark.
    let row = site.survey.find(&letters).ok()?.first().and_then(|letter| State::of(letter));
    Some(adopting(row, letters <= site.survey.forgotten_up_to().ok()?))
}

fn refused(alias: &Alias, id: &TransactionId, problem: &str, remedy: &str) -> Error {
    let problem = format!("the branch of `{id}` that is prepared there {problem}");
    Error::Config {
        alias: Some(alias.clone()),
        key: None,
        problem,
        remedy: format!("{remedy}, and adopt `{alias}` then"),
    }
}
