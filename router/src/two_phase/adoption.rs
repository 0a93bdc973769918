//! An operator says that a database is the one that it says to be.

use crate::databases::Databases;
use crate::error::Result;

impl Databases {
    /// Says that a database is the one that its `multidb_meta` names, although its server is another one now: after a
    /// failover, a move or a restored backup. Recovery then trusts it again, also where a decision is missing. The database
    /// takes the registry's environment where that names one.
    ///
    /// Not for a copy that is used beside the original: two databases of one id would decide about the same transactions. Give
    /// a copy an id of its own (`DELETE FROM multidb_meta`, then [`schema::install`](crate::schema::install)).
    ///
    /// # Errors
    /// [`Error::UnknownDatabase`](crate::Error::UnknownDatabase), [`Error::Pool`](crate::Error::Pool), and what the database
    /// says.
    pub fn adopt(&self, alias: &str) -> Result<()> {
        let database = self.database(alias)?;
        let mut survey = database.driver().begin_survey()?()?;
        if let Some(environment) = self.environment() {
            survey.adopt(environment)?;
        } else {
            let known = survey.identity()?.environment;
            survey.adopt(&known)?;
        }
        tracing::warn!(target: crate::telemetry::TARGET, alias, "a database was adopted");
        Ok(())
    }
}
