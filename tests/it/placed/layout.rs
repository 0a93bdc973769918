//! Where the models can live.

use crate::fixture::Kind::{self, Mysql, Postgres, Sqlite};

/// One way to place the models.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) name: &'static str,
    /// Its databases.
    pub(super) sites: &'static [Kind],
    /// On which of them each model is.
    pub(super) at: [usize; 3],
    /// Each model has an alias of its own for the only database.
    pub(super) renamed: bool,
}

pub(super) const LAYOUTS: [Layout; 18] = [
    merged("sqlite", &[Sqlite]),
    merged("postgres", &[Postgres]),
    merged("mariadb", &[Mysql]),
    renamed("aliases of one sqlite", &[Sqlite]),
    renamed("aliases of one postgres", &[Postgres]),
    renamed("aliases of one mariadb", &[Mysql]),
    split("postgres + postgres", &[Postgres, Postgres], [0, 1, 1]),
    split("postgres + postgres + postgres", &[Postgres, Postgres, Postgres], [0, 1, 2]),
    split("mariadb + mariadb", &[Mysql, Mysql], [0, 1, 0]),
    split("postgres + mariadb", &[Postgres, Mysql], [0, 1, 1]),
    split("mariadb + postgres", &[Mysql, Postgres], [0, 1, 0]),
    split("postgres + sqlite", &[Postgres, Sqlite], [0, 1, 0]),
    split("sqlite + postgres", &[Sqlite, Postgres], [0, 1, 1]),
    split("mariadb + sqlite", &[Mysql, Sqlite], [0, 1, 1]),
    split("sqlite + mariadb", &[Sqlite, Mysql], [0, 1, 0]),
    split("sqlite + sqlite", &[Sqlite, Sqlite], [0, 1, 1]),
    split("sqlite + sqlite + postgres", &[Sqlite, Sqlite, Postgres], [0, 1, 2]),
    split("postgres + mariadb + sqlite", &[Postgres, Mysql, Sqlite], [0, 1, 2]),
];

const fn merged(name: &'static str, sites: &'static [Kind]) -> Layout {
    Layout { name, sites, at: [0; 3], renamed: false }
}

const fn renamed(name: &'static str, sites: &'static [Kind]) -> Layout {
    Layout { name, sites, at: [0; 3], renamed: true }
}

const fn split(name: &'static str, sites: &'static [Kind], at: [usize; 3]) -> Layout {
    Layout { name, sites, at, renamed: false }
}

impl Layout {
    /// The alias of each model.
    pub(super) fn aliases(&self) -> [&'static str; 3] {
        const NAMES: [&str; 3] = ["first", "second", "third"];
        if self.renamed { NAMES } else { self.at.map(|site| NAMES[site]) }
    }

    /// The kind of the database that a model is on.
    pub(super) fn kind(&self, model: usize) -> Kind {
        self.sites[self.at[model]]
    }
}
