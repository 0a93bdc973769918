//! All databases of an application, with the routers that choose among them.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use super::across::{Across, CrossDatabase, OnLostHome};
use super::attached::Sets;
use super::builder::DatabasesBuilder;
use super::complete::Complete;
use super::current::{self, Entered};
use super::database::Database;
use super::handed_over::HandedOver;
use super::identity::same;
use super::migrate::MigrationReport;
use super::url::mask;
use crate::alias::Alias;
use crate::connection::migrations::Migrations;
use crate::error::{Error, Result};
use crate::model::{Model, ModelInfo};
use crate::routing::{Access, Chain, RouteExplanation, Subject};

/// The databases of an application. A clone is the same registry.
#[derive(Clone)]
pub struct Databases(Arc<Registry>);

pub(super) struct Registry {
    pub(super) databases: Arc<[Database]>,
    /// For each database the first one that is the same under another alias.
    pub(super) same: Vec<usize>,
    /// Connections that hold several of them.
    pub(super) attached: Arc<Sets>,
    pub(super) chain: Chain,
    pub(super) models: Vec<&'static ModelInfo>,
    pub(super) on_hook_failure: Option<HookFailureListener>,
    pub(super) across: Across,
    pub(super) complete: Arc<Complete>,
    pub(super) handed_over: Arc<HandedOver>,
}

/// Told of each hook that fails.
pub(super) type HookFailureListener = Arc<dyn Fn(&Error) + Send + Sync>;

impl Databases {
    /// A builder without any database.
    pub fn builder() -> DatabasesBuilder {
        DatabasesBuilder::default()
    }

    /// Reads `databases.toml`, or what the file is called, and then the environment, which overrides it. A variable may give a
    /// database of its own to what a registered model is routed to. Another database that the file doesn't have is an error
    /// of [`build`](DatabasesBuilder::build): a table in the file declares it, and may be empty.
    ///
    /// # Errors
    /// [`Error::Config`] with the alias, the key and what to write.
    pub fn from_config(path: impl AsRef<Path>) -> Result<DatabasesBuilder> {
        super::config::from_file(path.as_ref())
    }

    /// Reads the text of a configuration file, and nothing else: the environment overrides nothing.
    ///
    /// # Errors
    /// [`Error::Config`] with the alias, the key and what to write.
    pub fn from_toml(text: &str) -> Result<DatabasesBuilder> {
        super::config::from_toml(text)
    }

    /// Reads the environment alone: `DATABASE_URL` is `default`, `DATABASE_URL_ORDERS` is `orders`, and
    /// `MULTIDB_DATABASES__ORDERS__URL` is the key `url` of `orders`. A SQLite file that isn't there is created for a database
    /// that a registered model is routed to, and if the URL asks for it: `sqlite:app.db?mode=rwc`. Otherwise it is an error.
    ///
    /// # Errors
    /// [`Error::Config`] with the variable and what to write.
    pub fn from_env() -> Result<DatabasesBuilder> {
        super::config::from_env()
    }

    pub(super) fn new(registry: Registry) -> Self {
        Self(Arc::new(registry))
    }

    /// Makes this registry the default of the process. A process can do that once.
    ///
    /// # Errors
    /// [`Error::Config`] when one is installed already.
    pub fn install(&self) -> Result<()> {
        current::install(self)
    }

    /// The registry that a scope opened now would use: the entered one, else the installed one.
    ///
    /// # Errors
    /// [`Error::Config`] when there is neither.
    #[inline]
    pub fn current() -> Result<Databases> {
        current::current()
    }

    /// Makes this registry the default of this thread until the guard is dropped. Parallel tests don't see each other.
    pub fn enter(&self) -> Entered {
        current::enter(self)
    }

    /// One database.
    ///
    /// # Errors
    /// [`Error::UnknownDatabase`] with the nearest configured alias.
    pub fn database(&self, alias: &str) -> Result<&Database> {
        let index = self
            .find(alias)
            .ok_or_else(|| self.unknown(Alias::from(alias.to_owned()), "asked for by its name".to_owned()))?;
        Ok(&self.0.databases[index])
    }

    /// The databases, in the order in which they were configured.
    pub fn iter(&self) -> impl Iterator<Item = &Database> {
        self.0.databases.iter()
    }

    /// The registered models.
    pub fn models(&self) -> &[&'static ModelInfo] {
        &self.0.models
    }

    /// The same databases and pools, with this router instead of the chain.
    #[must_use]
    pub fn with_router(&self, router: impl crate::routing::Router) -> Databases {
        let mut chain = Chain::default();
        chain.push(router);
        let Registry { databases, same, attached, models, on_hook_failure, across, complete, handed_over, .. } =
            &*self.0;
        Self::new(Registry {
            databases: Arc::clone(databases),
            same: same.clone(),
            attached: Arc::clone(attached),
            chain,
            models: models.clone(),
            on_hook_failure: on_hook_failure.clone(),
            across: across.clone(),
            complete: Arc::clone(complete),
            handed_over: Arc::clone(handed_over),
        })
    }

    /// How the routers decide for a model, as of now: with the hints and routes that hold on this thread.
    pub fn explain_route<M: Model>(&self, access: Access) -> RouteExplanation {
        self.explain(M::info(), access)
    }

    /// How the routers decide for each registered model, to write: the whole table, for tools.
    pub fn explain_routes(&self) -> Vec<(&'static ModelInfo, RouteExplanation)> {
        self.0.models.iter().map(|model| (*model, self.explain(model, Access::Write))).collect()
    }

    fn explain(&self, model: &'static ModelInfo, access: Access) -> RouteExplanation {
        let (subject, in_scope) = (Subject::Model(model), false);
        let end = self.route(subject, access, in_scope).map(|index| self.at(index).alias().clone());
        self.0.chain.explain(subject, access, in_scope, |alias| self.find(alias), end)
    }

    /// Whether rows of the two models may refer to each other: the first router with an opinion says so; where nobody has
    /// one, they may if both live on one database.
    ///
    /// # Errors
    /// [`Error::RelationRefused`], and those of routing.
    pub fn check_relation<A: Model, B: Model>(&self) -> Result<()> {
        self.relation(A::info(), B::info())
    }

    pub(super) fn relation(&self, a: &'static ModelInfo, b: &'static ModelInfo) -> Result<()> {
        let opinion = self.0.chain.relation(a, b);
        if let Some((_, true)) = opinion {
            return Ok(());
        }
        let database = |model| self.route(Subject::Model(model), Access::Write, false);
        let (of_a, of_b) = (database(a)?, database(b)?);
        if opinion.is_none() && self.are_same(of_a, of_b) {
            return Ok(());
        }
        let databases = [of_a, of_b].map(|index| self.at(index).alias().clone());
        let router = opinion.map(|(router, _)| router);
        Err(Error::RelationRefused { a: a.name(), b: b.name(), databases: databases.into(), router })
    }

    /// Whether migrations of an application, or of one model, may run on a database: the first router with an opinion says
    /// so; nobody: yes.
    ///
    /// # Errors
    /// [`Error::UnknownDatabase`].
    pub fn allows_migrate(&self, alias: &str, app: &str, model: Option<&ModelInfo>) -> Result<bool> {
        let database = self.database(alias)?;
        Ok(self.0.chain.migration(database.alias(), app, model).is_none_or(|(_, allowed)| allowed))
    }

    /// Runs an application's migrations on each database on which the routers allow them. What they refuse is reported,
    /// and so is what was there already. Any number of processes may do so at once.
    ///
    /// On SQLite foreign keys are off meanwhile, as in Diesel's own tools, so that a table can be rebuilt. A migration that leaves
    /// rows without those that they refer to is an error, unless the configuration has switched foreign keys off.
    ///
    /// Diesel keeps one list of versions for each database: two applications that share one need versions that differ.
    ///
    /// # Errors
    /// [`Error::Migration`] with the database and what it said. What ran before it stays.
    #[expect(clippy::needless_pass_by_value, reason = "as `diesel_migrations` takes it")]
    pub fn migrate(&self, app: &str, migrations: impl Migrations) -> Result<MigrationReport> {
        let mut report = MigrationReport::default();
        for database in self.iter() {
            match self.0.chain.migration(database.alias(), app, None) {
                Some((router, false)) => report.refuse(database.alias(), router),
                _ => report.ran(database.alias(), database.driver().migrate(Some(&migrations))?),
            }
        }
        Ok(report)
    }

    /// Looks whether the databases are there that routers name without being asked.
    pub(super) fn check_aliases(&self) -> Result<()> {
        for (router, alias) in self.0.chain.aliases() {
            if self.find(alias.as_str()).is_none() {
                return Err(self.unknown(alias, format!("router `{router}` names it")));
            }
        }
        Ok(())
    }

    /// Asks the routers.
    pub(crate) fn route(&self, subject: Subject, access: Access, in_scope: bool) -> Result<usize> {
        let unknown = |alias, asked| self.unknown(alias, asked);
        self.0.chain.decide(subject, access, in_scope, |alias| self.find(alias), unknown)
    }

    pub(crate) fn tell_of_hook_failure(&self, error: &Error) {
        if let Some(listener) = &self.0.on_hook_failure {
            listener(error);
        }
    }

    pub(super) fn registry(&self) -> &Registry {
        &self.0
    }

    /// The same registry, with a new look at which aliases are one database.
    pub(super) fn with_identities(&self) -> Self {
        let Registry { databases, attached, chain, models, on_hook_failure, across, complete, handed_over, .. } =
            &*self.0;
        Self::new(Registry {
            same: same(databases),
            databases: Arc::clone(databases),
            attached: Arc::clone(attached),
            chain: chain.clone(),
            models: models.clone(),
            on_hook_failure: on_hook_failure.clone(),
            across: across.clone(),
            complete: Arc::clone(complete),
            handed_over: Arc::clone(handed_over),
        })
    }

    /// Lends each idle connection as it is.
    #[cfg(feature = "testing")]
    pub(crate) fn idle(&self, ask: &mut dyn FnMut(crate::testing::Idle<'_>)) {
        for database in self.iter() {
            database.driver().idle(ask);
        }
        for driver in self.0.attached.drivers() {
            driver.idle(ask);
        }
    }

    /// The environment that the configuration names.
    pub(crate) fn environment(&self) -> Option<&str> {
        self.0.across.environment.as_deref()
    }

    /// What becomes of a transaction that needs a second database.
    pub(crate) fn cross_database(&self) -> CrossDatabase {
        self.0.across.cross_database
    }

    /// The transactions whose rows nobody needs any more.
    pub(crate) fn complete(&self) -> &Complete {
        &self.0.complete
    }

    /// What functions leave to a thread.
    pub(crate) fn handed_over(&self) -> &Arc<HandedOver> {
        &self.0.handed_over
    }

    /// Whether recovery commits what is left where home has lost a decision.
    pub(crate) fn commits_on_lost_home(&self) -> bool {
        self.0.across.on_lost_home == OnLostHome::Commit
    }

    /// Whether two indices are one database, be it under two aliases.
    #[inline]
    pub(crate) fn are_same(&self, a: usize, b: usize) -> bool {
        a == b || self.0.same[a] == self.0.same[b]
    }

    /// The place of a database in the order in which pools are taken: the same under each alias.
    pub(crate) fn rank(&self, index: usize) -> usize {
        self.0.same[index]
    }

    /// The index of a configured alias.
    pub(crate) fn find(&self, alias: &str) -> Option<usize> {
        self.0.databases.iter().position(|database| database.alias == alias)
    }

    pub(crate) fn at(&self, index: usize) -> &Database {
        &self.0.databases[index]
    }

    pub(crate) fn same_as(&self, other: &Databases) -> bool {
        Arc::ptr_eq(&self.0.databases, &other.0.databases)
    }

    pub(crate) fn unknown(&self, alias: Alias, asked: String) -> Error {
        let known: Vec<&str> = self.iter().map(|database| database.alias.as_str()).collect();
        let list = match &known[..] {
            [] => "none is configured".to_owned(),
            known => format!("configured: `{}`", known.join("`, `")),
        };
        let remedy = match nearest(alias.as_str(), &known) {
            Some(near) => format!("did you mean `{near}`? ({list})"),
            None => format!("{list}; add a table `[{alias}]` with its `url` to the configuration"),
        };
        // A URL in the place of a name: it may hold a password.
        if alias.as_str().contains("://") {
            let (alias, remedy) =
                (mask(alias.as_str()).into(), format!("give the name of a database, not its URL; {list}"));
            return Error::UnknownDatabase { alias, asked, remedy };
        }
        Error::UnknownDatabase { alias, asked, remedy }
    }
}

/// How many letters two words may differ in for one to be taken for the other.
const TYPO_LIMIT: usize = 2;

/// The word that was probably meant.
pub(crate) fn nearest<'a>(word: &str, among: &[&'a str]) -> Option<&'a str> {
    let near = among.iter().map(|known| (strsim::levenshtein(word, known), *known)).min()?;
    let (distance, known) = near;
    (distance <= TYPO_LIMIT && distance < known.len().max(1)).then_some(known)
}

impl From<&Databases> for Databases {
    fn from(databases: &Databases) -> Self {
        databases.clone()
    }
}

impl fmt::Debug for Databases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typo_finds_the_alias_that_was_meant() {
        assert_eq!(nearest("oders", &["default", "orders"]), Some("orders"));
        assert_eq!(nearest("ledger", &["default", "orders"]), None);
        assert_eq!(nearest("x", &["y"]), None);
        assert_eq!(nearest("x", &[]), None);
    }
}
