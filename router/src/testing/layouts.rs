//! One test in several layouts of its models: what a function does must not depend on which of them share a database.

use std::fmt::Debug;

use crate::databases::Databases;
use crate::error::Result;
use crate::model::Models;
use crate::routing::StaticRouter;

/// The registries that a test is run with, each with a name.
#[derive(Debug, Default)]
#[must_use = "layouts do nothing until `check`"]
pub struct Layouts {
    layouts: Vec<Layout>,
    #[expect(dead_code, reason = "the files are gone when it is dropped")]
    folder: Option<tempfile::TempDir>,
}

/// One way to place the models.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Layout {
    /// Its name, for messages.
    pub name: &'static str,
    /// Its registry.
    pub databases: Databases,
}

impl Layouts {
    /// Layouts of the test's own making, for servers, say.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one.
    pub fn with(mut self, name: &'static str, databases: &Databases) -> Self {
        self.layouts.push(Layout { name, databases: databases.clone() });
        self
    }

    /// Empty SQLite files in a folder that goes with the result: `merged`, with all models in one file, and `split`, with a
    /// file for each model.
    ///
    /// In `split` a scope that lists models of several files has them on one connection, and commits them as one; a table
    /// name may then stand in one of the files alone. Where the outermost scope doesn't list a model that an inner one
    /// writes, that is [`Error::NotAtomic`](crate::Error::NotAtomic) in `split` and fine in `merged`: [`check`](Self::check)
    /// finds the difference.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) where no folder can be made.
    pub fn sqlite<M: Models>() -> Result<Self> {
        let folder = tempfile::tempdir().map_err(|error| {
            let problem = format!("no temporary folder could be made: {error}");
            crate::Error::config(problem, "look at `TMPDIR`")
        })?;
        let path = |name: &str| folder.path().join(format!("{name}.db"));
        let merged = Databases::builder().sqlite("default", path("merged")).build()?;
        let mut builder = Databases::builder();
        let mut router = StaticRouter::new();
        for (at, model) in M::infos().into_iter().enumerate() {
            let alias = format!("split_{at}");
            builder = builder.sqlite(alias.clone(), path(&alias));
            router = router.route(model, alias);
        }
        let split = builder.router(router).build()?;
        Ok(Self { folder: Some(folder), ..Self::new().with("merged", &merged).with("split", &split) })
    }

    /// Runs `test` with each layout entered, and compares what it returns. Gives what was the same in all of them.
    ///
    /// # Panics
    /// Where two layouts give different results, and where there is no layout.
    #[track_caller]
    pub fn check<T: PartialEq + Debug>(&self, mut test: impl FnMut(&Layout) -> T) -> T {
        let mut first: Option<(&'static str, T)> = None;
        for layout in &self.layouts {
            let _entered = layout.databases.enter();
            let result = test(layout);
            match &first {
                None => first = Some((layout.name, result)),
                Some((name, expected)) => assert!(
                    *expected == result,
                    "the layouts `{name}` and `{}` differ: {expected:?} and {result:?}",
                    layout.name
                ),
            }
        }
        first.expect("at least one layout").1
    }
}

/// Runs a test with its models on one SQLite file and on several, fails where what it returns differs, and gives what it
/// returned: `let rows = layouts!(Account, Entry; |layout| { ..; rows });`.
///
/// ```
/// use multidb::prelude::*;
/// use multidb::testing::layouts;
///
/// #[derive(Model)]
/// #[model(app = "bank")]
/// struct Account;
/// #[derive(Model)]
/// #[model(app = "ledger")]
/// struct Entry;
///
/// layouts!(Account, Entry; |_layout| {
///     connection::<Account, SqliteConn>().unwrap().batch_execute("CREATE TABLE accounts (id INTEGER)").unwrap();
///     connection::<Entry, SqliteConn>().unwrap().batch_execute("CREATE TABLE entries (id INTEGER)").unwrap();
///     // Call the functions to be tested here, and return the rows.
/// });
/// ```
#[macro_export]
macro_rules! layouts {
    ($($model:ty),+ $(,)?; $test:expr) => {
        $crate::testing::Layouts::sqlite::<($($model,)+)>().expect("SQLite files for the layouts").check($test)
    };
}
