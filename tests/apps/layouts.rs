//! The databases that the tests share, and the routes of one call.

use std::collections::{BTreeMap, BTreeSet};

use diesel::prelude::*;
use diesel::sql_types::Text;
use multidb::{DatabaseConfig, Databases, StaticRouter, with_routes};
use tempfile::TempDir;

use crate::astakos::{self, AstakosRouter, Quota, User};
use crate::cyclades::{self, CycladesRouter, Server};

/// Each has the tables of both applications, so that a row that is routed wrongly is found and not refused.
pub const ALIASES: [&str; 4] = ["default", "north", "south", "west"];

pub struct Fixture {
    folder: TempDir,
    pub databases: Databases,
}

#[derive(QueryableByName)]
struct Name {
    #[diesel(sql_type = Text)]
    name: String,
}

impl Fixture {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let builder = ALIASES.iter().fold(Databases::builder(), |builder, alias| {
            let path = folder.path().join(format!("{alias}.db"));
            let mut config = DatabaseConfig::new(*alias, path.to_str().unwrap());
            // A thousand rounds need not wait for the disk.
            config.sqlite.journal_mode = Some("wal".into());
            config.sqlite.synchronous = Some("normal".into());
            config.sqlite.busy_timeout = Some("60s".into());
            builder.database(config)
        });
        let builder = builder.router(AstakosRouter).router(CycladesRouter).models::<(User, Quota, Server)>();
        let databases = builder.build().unwrap();
        {
            let _entered = databases.enter();
            for alias in ALIASES {
                let made = with_routes(routes([alias, alias]), || {
                    (astakos::create_tables().unwrap(), cyclades::create_tables().unwrap())
                });
                assert_eq!(made, (alias.to_owned(), alias.to_owned()));
            }
        }
        Self { folder, databases }
    }

    /// A column of a table, read by a connection that knows nothing of the library.
    fn names(&self, alias: &str, query: &str) -> Vec<String> {
        let path = self.folder.path().join(format!("{alias}.db"));
        let mut conn = SqliteConnection::establish(path.to_str().unwrap()).unwrap();
        let names: Vec<Name> = diesel::sql_query(query).load(&mut conn).unwrap();
        names.into_iter().map(|name| name.name).collect()
    }

    pub fn users(&self, alias: &str) -> BTreeSet<String> {
        self.names(alias, "SELECT name FROM astakos_users").into_iter().collect()
    }

    /// The users, each with the quota that is used.
    pub fn quotas(&self, alias: &str) -> BTreeMap<String, usize> {
        let used = self.names(alias, "SELECT user || ' ' || used AS name FROM astakos_quotas");
        let pairs = used.iter().map(|pair| pair.split_once(' ').unwrap());
        pairs.map(|(user, used)| (user.to_owned(), used.parse().unwrap())).collect()
    }

    /// The owners of servers, each with how many servers there are.
    pub fn servers(&self, alias: &str) -> BTreeMap<String, usize> {
        let mut servers = BTreeMap::new();
        for owner in self.names(alias, "SELECT owner AS name FROM cyclades_servers") {
            *servers.entry(owner).or_default() += 1;
        }
        servers
    }
}

/// Where `astakos` and `cyclades` live.
pub fn routes([astakos, cyclades]: [&'static str; 2]) -> StaticRouter {
    StaticRouter::new().app("astakos", astakos).app("cyclades", cyclades)
}
