//! A registry whose databases serve one test.

use std::collections::HashMap;
use std::sync::Arc;

use super::database::{Database, Driver};
use super::identity::same;
use super::registry::{Databases, Registry};
use crate::alias::Alias;
use crate::connection::fault::Faults;
use crate::connection::rehearsal::Test;
use crate::connection::settings::Settings;
use crate::error::Result;

/// Where failures of each database are planned.
pub(crate) type FaultsByAlias = Vec<(Alias, Arc<Faults>)>;

impl Databases {
    /// The same databases, routers and models, with pools of their own for a test. `declared` are the aliases that the test
    /// may use: all, if there is no list. Gives the place where failures of each database are planned, too.
    pub(crate) fn for_test(&self, rolled_back: bool, declared: Option<&[&str]>) -> Result<(Databases, FaultsByAlias)> {
        for alias in declared.unwrap_or_default() {
            self.database(alias)?;
        }
        let mut faults = Vec::new();
        // Two aliases of one database share its one connection, or they would not see each other's work.
        let mut shared: HashMap<usize, (Arc<dyn Driver>, Arc<Faults>)> = HashMap::new();
        // Files may have appeared since the registry was built.
        let first = same(&self.registry().databases);
        let mut databases = Vec::new();
        for (index, Database { alias, kind, driver, same_as, named }) in self.iter().enumerate() {
            let settings = driver.settings();
            // Another alias of a declared database is declared with it.
            let is_this = |known: &&str| self.find(known).is_some_and(|known| self.are_same(known, index));
            let undeclared = declared.is_some_and(|declared| !declared.iter().any(is_this));
            let key = if rolled_back { first[index] } else { index };
            let entry = match shared.get(&key) {
                Some(known) if !undeclared => known.clone(),
                _ => {
                    let test = Test { rolled_back, undeclared, ..Test::default() };
                    let planned = Arc::clone(&test.faults);
                    (kind.driver(settings_of(settings, test))?, planned)
                }
            };
            if !undeclared {
                shared.insert(key, entry.clone());
            }
            let (driver, planned) = entry;
            faults.push((alias.clone(), planned));
            let (alias, same_as, named) = (alias.clone(), same_as.clone(), named.clone());
            databases.push(Database { alias, kind: *kind, driver, same_as, named });
        }
        let Registry { chain, models, on_hook_failure, across, .. } = self.registry();
        let registry = Registry {
            same: same(&databases),
            databases: databases.into(),
            attached: Arc::default(),
            chain: chain.clone(),
            models: models.clone(),
            on_hook_failure: on_hook_failure.clone(),
            across: across.clone(),
            complete: Arc::default(),
            handed_over: Arc::default(),
        };
        Ok((Databases::new(registry), faults))
    }
}

fn settings_of(settings: &Settings, test: Test) -> Settings {
    let mut settings = settings.clone();
    if test.rolled_back {
        // The one connection holds the test's work: it must neither be doubled nor be replaced.
        settings.pool.max_size = 1;
        (settings.pool.min_idle, settings.pool.idle_timeout, settings.pool.max_lifetime) = (0, None, None);
    }
    settings.test = Some(test);
    settings
}
