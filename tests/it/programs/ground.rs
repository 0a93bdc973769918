//! Where programs run: two databases, the service on them, and an observer of each that knows nothing of the library.

use std::collections::BTreeMap;

use diesel::connection::SimpleConnection;
use multidb::testing::{self, TestDatabases};
use multidb::{DatabaseConfig, Databases, Model, SqliteConn, StaticRouter, connection_on, schema};
use tempfile::TempDir;

use super::program::Program;
use super::site::Site;
use crate::fixture::Kind;
use crate::support::idle::{Newborn, unwatched};

#[derive(Debug, Model)]
#[model(app = "bank")]
pub(super) struct Bank;

#[derive(Debug, Model)]
#[model(app = "ledger")]
pub(super) struct Ledger;

/// The aliases of the two databases.
pub(super) const ALIASES: [&str; 2] = ["bank", "ledger"];

/// Two databases and the service on them.
pub(super) struct Ground {
    pub(super) sites: [Site; 2],
    service: Option<Service>,
    /// What a fresh connection of each pool is like, by the alias.
    newborns: BTreeMap<String, Newborn>,
    _folder: TempDir,
}

/// The library's part.
struct Service {
    databases: Databases,
    /// Where the program plans failures.
    test: Option<TestDatabases>,
}

impl Ground {
    /// Makes the databases, the first one in memory if it is to be; `None` where there is no server.
    pub(super) fn new(kinds: [Kind; 2], in_memory: bool) -> Option<Self> {
        let folder = folder();
        let [bank, ledger] = kinds;
        let sites = [
            Site::new(bank, in_memory, ALIASES[0], folder.path())?,
            Site::new(ledger, false, ALIASES[1], folder.path())?,
        ];
        for other in [false, true] {
            let databases = build(&sites, other);
            schema::install(&databases).unwrap();
        }
        for site in sites.iter().filter(|site| !site.in_memory) {
            site.furnish();
        }
        Some(Self { sites, service: None, newborns: BTreeMap::new(), _folder: folder })
    }

    /// The registry for a program. Connections of earlier ones are used again, unless it is a test of its own.
    pub(super) fn open(&mut self, program: &Program) -> Databases {
        // They were looked at when the last program had ended.
        unwatched(|| self.open_anew(program))
    }

    /// Makes what a database in memory begins with.
    fn fill_memory(&self, databases: &Databases) {
        if let Some(site) = self.sites.iter().find(|site| site.in_memory) {
            schema::install(databases).unwrap();
            let _entered = databases.enter();
            connection_on::<SqliteConn>(site.alias).unwrap().batch_execute(&site.tables()).unwrap();
        }
    }

    fn open_anew(&mut self, program: &Program) -> Databases {
        if program.undone {
            self.service = None;
            let test = testing::rolled_back(&build(&self.sites, false)).unwrap();
            let databases = test.databases().clone();
            self.service = Some(Service { databases: databases.clone(), test: Some(test) });
            return databases;
        }
        if !program.faults.is_empty() {
            let databases = build(&self.sites, false);
            let test = testing::committed(&databases).unwrap();
            let databases = test.databases().clone();
            self.fill_memory(&databases);
            for (site, point, skip, fault) in &program.faults {
                test.fail_after(ALIASES[*site], *point, *skip, *fault).unwrap();
            }
            let plain = self.service.replace(Service { databases: databases.clone(), test: Some(test) });
            drop(plain);
            return databases;
        }
        if self.service.as_ref().is_none_or(|service| service.test.is_some()) {
            self.service = None;
            let databases = build(&self.sites, false);
            self.fill_memory(&databases);
            self.service = Some(Service { databases, test: None });
        }
        self.databases().clone()
    }

    pub(super) fn databases(&self) -> &Databases {
        &self.service.as_ref().unwrap().databases
    }

    /// Ends the test of the last program, if it was one.
    pub(super) fn end_test(&mut self) {
        unwatched(|| self.service = None);
    }

    /// Forgets all connections, whatever they are like, and ends what they have begun.
    pub(super) fn renew(&mut self) {
        unwatched(|| self.service = None);
        for site in &mut self.sites {
            site.renew();
        }
    }

    /// Kills the sessions of the service on a site.
    pub(super) fn kill(&self, site: usize) {
        self.sites[site].kill();
    }

    /// Looks at each idle connection, and at what is left on the servers.
    pub(super) fn rests(&mut self) -> Result<(), String> {
        let databases = self.databases().clone();
        let (mut found, newborns) = (Ok(()), &mut self.newborns);
        newborns.retain(|_, newborn| newborn.is_alive());
        testing::idle(&databases, |mut idle| {
            if found.is_err() {
                return;
            }
            let newborn = match newborns.get_mut(idle.alias) {
                Some(newborn) => newborn,
                None => newborns.entry(idle.alias.to_owned()).or_insert(Newborn::like(&idle).unwrap()),
            };
            found = newborn.compare(&mut idle);
        });
        found?;
        for alias in ALIASES {
            let state = databases.database(alias).unwrap().pool_state();
            if state.connections != state.idle_connections {
                return Err(format!("{} connections of `{alias}` are out", state.connections - state.idle_connections));
            }
        }
        Ok(())
    }

    /// The ids of the rows from this one on that stand on a site.
    pub(super) fn held(&self, site: usize, from: i64) -> Result<Vec<i64>, String> {
        let site = &self.sites[site];
        if !site.in_memory {
            return site.held(from);
        }
        // Without a connection there is no database.
        let mut held = Ok(Vec::new());
        testing::idle(self.databases(), |idle| {
            if idle.alias == site.alias
                && let Some(raw) = idle.raw.downcast_mut()
            {
                held = site.held_by(raw, from);
            }
        });
        held
    }

    /// Finishes branches that a lost connection has left prepared, as a service does.
    pub(super) fn settle(&self) -> Result<(), String> {
        self.sites.iter().for_each(Site::undo_prepared_by_texts);
        if self.sites.iter().all(|site| site.prepared().is_empty()) {
            return Ok(());
        }
        self.databases().recover().map_err(|error| format!("a recovery fails: {error}"))?;
        for site in &self.sites {
            let left = site.prepared();
            if !left.is_empty() {
                return Err(format!("`{}` still has {left:?} prepared after a recovery", site.alias));
            }
        }
        Ok(())
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        self.renew();
    }
}

/// In memory, if the system has such a folder: what a crash of the machine would lose is not asked for here.
fn folder() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// The registry of these sites, or of the others beside them.
fn build(sites: &[Site; 2], other: bool) -> Databases {
    let mut builder = Databases::builder();
    for site in sites {
        let mut config = DatabaseConfig::new(site.alias, if other { site.other_url.clone() } else { site.url.clone() });
        // No other process has the file, so a lock is this thread's own, and waiting for it doesn't help.
        config.sqlite.busy_timeout = Some("10ms".into());
        config.pool.max_size = Some(if site.in_memory { 1 } else { 6 });
        // The only connection of a database in memory is this thread's own, too.
        config.pool.connection_timeout = Some(if site.in_memory { "300ms" } else { "5s" }.into());
        builder = builder.database(config);
    }
    let router = StaticRouter::new().model::<Bank>(ALIASES[0]).model::<Ledger>(ALIASES[1]);
    builder.router(router).build().unwrap()
}

/// Runs a text on a plain connection.
pub(super) fn must(conn: &mut impl SimpleConnection, sql: &str) {
    conn.batch_execute(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
}
