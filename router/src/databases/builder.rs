//! Building a registry.

use std::path::Path;
use std::sync::Arc;

use super::across::{Across, CrossDatabase, OnLostHome};
use super::config::DatabaseConfig;
use super::database::{Database, Kind};
use super::identity::same;
use super::registry::{Databases, HookFailureListener, Registry};
use super::url;
use crate::alias::Alias;
use crate::connection::settings::Settings;
use crate::error::{Error, Result};
use crate::model::{ModelInfo, Models};
use crate::routing::{Access, Chain, Router, Subject};

/// The most databases of one registry.
pub const DATABASES_LIMIT: usize = 1_000;

/// Collects databases, routers and models. See [`Databases::builder`].
#[derive(Default)]
#[must_use = "a builder does nothing until `build` or `install`"]
pub struct DatabasesBuilder {
    databases: Vec<DatabaseConfig>,
    chain: Chain,
    models: Vec<&'static ModelInfo>,
    relations: Vec<[&'static ModelInfo; 2]>,
    on_hook_failure: Option<HookFailureListener>,
    pub(super) across: Across,
    environment: Option<String>,
}

impl DatabasesBuilder {
    /// A SQLite file, by its path or a `sqlite:` or `file:` URL. The path must be UTF-8.
    pub fn sqlite(self, alias: impl Into<Alias>, path_or_url: impl AsRef<Path>) -> Self {
        let path = path_or_url.as_ref();
        // SQLite takes no other paths through Diesel. An empty one is refused when the registry is built.
        self.with_kind(alias, path.to_str().unwrap_or_default(), Kind::Sqlite)
    }

    /// A PostgreSQL database, by its `postgres://` URL or the words that libpq takes: `host=db dbname=bank`.
    pub fn postgres(self, alias: impl Into<Alias>, url: impl Into<String>) -> Self {
        self.with_kind(alias, url, Kind::Postgres)
    }

    /// A MySQL or MariaDB database, by its `mysql://` URL.
    pub fn mysql(self, alias: impl Into<Alias>, url: impl Into<String>) -> Self {
        self.with_kind(alias, url, Kind::Mysql)
    }

    /// A database with all its settings. One of the same alias is replaced: code comes after the configuration.
    pub fn database(mut self, database: DatabaseConfig) -> Self {
        match self.databases.iter_mut().find(|known| known.alias == database.alias) {
            Some(known) => *known = database,
            None => self.databases.push(database),
        }
        self
    }

    /// A router; the first one given is asked first.
    pub fn router(mut self, router: impl Router) -> Self {
        self.chain.push(router);
        self
    }

    /// Models whose routes are checked at the start, so that a misspelt alias is found there: a tuple of types. For each that
    /// belongs to another, by Diesel's `belongs_to`, the routers are asked whether that relation is allowed.
    pub fn models<M: Models>(mut self) -> Self {
        self.relations.extend(M::relations());
        for model in M::infos() {
            if !self.models.contains(&model) {
                self.models.push(model);
            }
        }
        self
    }

    /// Names the environment, by 1 to 8 letters and digits: `schema::install` writes it into each database, and a transaction
    /// over several databases refuses one of another environment, such as a copy of production's.
    pub fn environment(mut self, tag: impl Into<String>) -> Self {
        self.environment = Some(tag.into());
        self
    }

    /// What becomes of a transaction that needs a second database; it becomes a part of it unless set.
    pub fn cross_database(mut self, cross_database: CrossDatabase) -> Self {
        self.across.cross_database = cross_database;
        self
    }

    /// What recovery does where the database that held a decision has lost it; it waits unless set.
    pub fn on_lost_home(mut self, on_lost_home: OnLostHome) -> Self {
        self.across.on_lost_home = on_lost_home;
        self
    }

    /// Calls `listener` for each hook that fails, beside the error event.
    pub fn on_hook_failure(mut self, listener: impl Fn(&Error) + Send + Sync + 'static) -> Self {
        self.on_hook_failure = Some(Arc::new(listener));
        self
    }

    /// Builds the registry: connects to each database once, and asks the routers for every registered model.
    ///
    /// # Errors
    /// [`Error::Config`], [`Error::UnknownDatabase`], [`Error::RouteRefused`], [`Error::RelationRefused`] or
    /// [`Error::Pool`].
    pub fn build(mut self) -> Result<Databases> {
        let relations = std::mem::take(&mut self.relations);
        let databases = self.build_lazy()?;
        databases.check_aliases()?;
        for model in databases.models() {
            databases.route(Subject::Model(model), Access::Write, false)?;
        }
        for [model, parent] in relations {
            databases.relation(model, parent)?;
        }
        databases.check_named()?;
        for database in databases.iter() {
            database.driver().check()?;
        }
        // Now all files are there.
        Ok(databases.with_identities())
    }

    /// Builds the registry without connecting and without asking the routers.
    ///
    /// # Errors
    /// [`Error::Config`].
    pub fn build_lazy(mut self) -> Result<Databases> {
        if let Some(tag) = self.environment.take() {
            self.across.set_environment(&tag)?;
        }
        if self.databases.is_empty() {
            return Err(Error::config(
                "no database is configured",
                "add a table `[default]` with a `url` to databases.toml, set `DATABASE_URL`, or call \
                 `.sqlite(\"default\", \"app.db\")`",
            ));
        }
        if self.databases.len() > DATABASES_LIMIT {
            return Err(Error::config("more than 1000 databases are configured", "split the application"));
        }
        let databases: Arc<[Database]> = self.databases.into_iter().map(open).collect::<Result<Vec<_>>>()?.into();
        for Database { alias, kind, same_as, .. } in databases.iter() {
            let Some(named) = same_as else { continue };
            let problem = match databases.iter().find(|other| other.alias == *named) {
                Some(other) if other.alias == *alias => "a database is the same as itself anyway".to_owned(),
                Some(other) if other.kind != *kind => format!("`{named}` is of another backend"),
                Some(_) => continue,
                None => format!("there is no database `{named}`"),
            };
            let (alias, key) = (Some(alias.clone()), Some("same_as".to_owned()));
            let remedy = "give the alias of the same database with another URL, or leave it out".to_owned();
            return Err(Error::Config { alias, key, problem, remedy });
        }
        let (chain, models, on_hook_failure) = (self.chain, self.models, self.on_hook_failure);
        let (same, across) = (same(&databases), self.across);
        Ok(Databases::new(Registry {
            same,
            attached: Arc::default(),
            databases,
            chain,
            models,
            on_hook_failure,
            across,
            complete: Arc::default(),
            handed_over: Arc::default(),
        }))
    }

    /// Builds the registry and makes it the default of the process.
    ///
    /// # Errors
    /// Those of [`build`](Self::build) and [`Databases::install`].
    pub fn install(self) -> Result<Databases> {
        let databases = self.build()?;
        databases.install()?;
        Ok(databases)
    }

    fn with_kind(self, alias: impl Into<Alias>, url: impl Into<String>, kind: Kind) -> Self {
        let mut database = DatabaseConfig::new(alias, url);
        database.kind = Some(kind);
        self.database(database)
    }
}

fn open(config: DatabaseConfig) -> Result<Database> {
    if let Some(objection) = config.alias.objection() {
        let problem = format!("this is no name for a database: {objection}");
        return Err(config.error(None, problem, "choose a name such as `orders`"));
    }
    if config.url().trim().is_empty() {
        return Err(config.error(Some("url"), "it is empty, or a path that is not UTF-8", "write the path or the URL"));
    }
    let kind = config.kind()?;
    let driver_url = url::for_driver(kind, config.url());
    let mut pool = config.pool_settings()?;
    let private = url::is_private_memory(kind, &driver_url);
    if private {
        if config.pool.max_size.is_some_and(|size| size > 1) {
            let remedy = "set it to 1, or use `file:name?mode=memory&cache=shared`";
            return Err(config.error(
                Some("pool.max_size"),
                "each connection to `:memory:` would be a database of its own",
                remedy,
            ));
        }
        // The one connection is the database: it must neither be doubled nor be replaced.
        (pool.max_size, pool.idle_timeout, pool.max_lifetime) = (1, None, None);
    }
    let mut sqlite = config.sqlite_settings()?;
    // A URL with a `mode` has its own rule.
    if !driver_url.contains("mode=") {
        sqlite.must_exist = config.named.as_ref().map(|named| Arc::clone(&named.variable));
    }
    let settings = Settings {
        alias: config.alias.clone(),
        url: driver_url,
        pool,
        private,
        sqlite,
        files: Vec::new(),
        right_of_way: Arc::default(),
        prepare_repeated: config.prepare_repeated.unwrap_or(true),
        #[cfg(feature = "testing")]
        test: None,
    };
    let same_as = config.same_as.map(Alias::from);
    Ok(Database { alias: config.alias, kind, driver: kind.driver(settings)?, same_as, named: config.named })
}

impl std::fmt::Debug for DatabasesBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DatabasesBuilder").field("databases", &self.databases).finish_non_exhaustive()
    }
}
