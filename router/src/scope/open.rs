//! Opening a scope: from what was listed to branches of a transaction.

use std::fmt;

use super::options::{Options, Propagation};
use crate::alias::Alias;
use crate::connection::control::Start;
use crate::databases::Databases;
use crate::error::{Error, Result};
use crate::model::{Model, ModelInfo};
use crate::routing::{Access, Subject};
use crate::site::Site;
use crate::transaction::{self, Opener, Ticket};

/// What a scope is opened for.
#[derive(Debug, Clone)]
pub enum Target {
    /// The database that the model is routed to.
    Model(&'static ModelInfo),
    /// The database that the application is routed to.
    App {
        /// The application.
        app: &'static str,
        /// The module of the annotated function.
        module: Option<&'static str>,
    },
    /// A database by its name.
    Alias(Alias),
}

impl Target {
    /// The database of a model.
    pub fn model<M: Model>() -> Self {
        Self::Model(M::info())
    }

    /// The database of an application.
    pub const fn app(app: &'static str) -> Self {
        Self::App { app, module: None }
    }

    /// The database of the application that a module belongs to.
    pub const fn app_in(app: &'static str, module: &'static str) -> Self {
        Self::App { app, module: Some(module) }
    }

    /// A database by its name.
    pub fn alias(alias: impl Into<Alias>) -> Self {
        Self::Alias(alias.into())
    }

    /// The index of the database in the registry.
    pub(super) fn resolve(&self, databases: &Databases, in_scope: bool) -> Result<usize> {
        let subject = match self {
            Self::Model(model) => Subject::Model(model),
            Self::App { app, module } => Subject::App { app, module: *module },
            Self::Alias(alias) => {
                let unknown = || databases.unknown(alias.clone(), "named by the scope".into());
                return databases.find(alias.as_str()).ok_or_else(unknown);
            }
        };
        databases.route(subject, Access::Write, in_scope)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Model(model) => model.fmt(f),
            Self::App { app, .. } => write!(f, "app `{app}`"),
            Self::Alias(alias) => write!(f, "database `{alias}`"),
        }
    }
}

/// An open scope's right to its level, and the database of each target.
pub(super) struct Opened {
    pub(super) ticket: Ticket,
    pub(super) databases: Databases,
    pub(super) indices: Vec<usize>,
}

/// Opens a level, or a transaction where none is open or an independent one was asked for. Sends nothing.
pub(super) fn open(site: Site, targets: &[Target], options: Options) -> Result<Opened> {
    let open = transaction::top(|transaction| transaction.databases().clone());
    let nested = open.is_some();
    let nests = nested && options.propagation == Propagation::Nested;
    let databases = match (open, options.databases) {
        (Some(open), Some(named)) if nests && !open.same_as(&named) => return Err(other_registry(site)),
        (Some(open), None) => open,
        (_, Some(named)) => named,
        (None, None) => Databases::current()?,
    };
    let indices = targets.iter().map(|target| target.resolve(&databases, nested)).collect::<Result<Vec<_>>>()?;
    let ticket = if nests {
        all_are_branches(site, targets, &indices, &databases)?;
        transaction::nest(site, Opener::Scope)?
    } else {
        one_database(targets, &indices, &databases)?;
        if nested {
            not_locked_by_this_thread(&indices, &databases)?;
        }
        let start = Start { tripwire: true, lock_limit: nested, ..Start::default() };
        transaction::begin(databases.clone(), indices.iter().copied(), site, Opener::Scope, &start)?
    };
    Ok(Opened { ticket, databases, indices })
}

/// A level of a transaction can't be on databases of another registry.
fn other_registry(site: Site) -> Error {
    let outer = transaction::top(|open| open.outermost().to_string()).unwrap_or_default();
    Error::OptionConflict {
        outer: format!("{outer}, whose databases are others"),
        inner: format!("`databases = ..` of {site}"),
        remedy: "open the inner scope with `propagation = requires_new`, or leave `databases` out",
    }
}

/// The remedies for a scope over databases that can't commit as one.
const LISTED: &str = "route the models to one database, or give each database a function of its own with \
                      `propagation = requires_new`, which commits by itself";

fn one_database(targets: &[Target], indices: &[usize], databases: &Databases) -> Result<()> {
    let Some((at, second)) = indices.iter().enumerate().find(|(_, index)| **index != indices[0]) else {
        return Ok(());
    };
    let mut involved: Vec<Alias> = Vec::new();
    for index in indices {
        let alias = databases.at(*index).alias();
        if !involved.contains(alias) {
            involved.push(alias.clone());
        }
    }
    let reason = format!(
        "{} lives on `{}` and {} on `{}`, and an atomic commit over several databases is not supported yet",
        targets[0],
        databases.at(indices[0]).alias(),
        targets[at],
        databases.at(*second).alias()
    );
    Err(Error::NotAtomic { databases: involved, reason, remedies: LISTED.into() })
}

/// The remedies for a nested scope on another database.
const NESTED: &str = "route both to one database, or let the inner function say `propagation = requires_new`, so that \
                      it commits by itself";

fn all_are_branches(site: Site, targets: &[Target], indices: &[usize], databases: &Databases) -> Result<()> {
    let missing = transaction::top(|open| {
        let missing = indices.iter().position(|index| open.branch(*index).is_none())?;
        let involved: Vec<Alias> =
            open.branches().iter().map(|branch| databases.at(branch.database).alias().clone()).collect();
        Some((missing, involved, open.outermost()))
    });
    let Some((missing, mut involved, outermost)) = missing.flatten() else {
        return Ok(());
    };
    let alias = databases.at(indices[missing]).alias();
    let reason = format!(
        "{site} needs {} on `{alias}`, inside the transaction that {outermost} opened on `{}`, and an atomic commit over \
         several databases is not supported yet",
        targets[missing],
        involved.first().map_or("no database", Alias::as_str),
    );
    involved.push(alias.clone());
    Err(Error::NotAtomic { databases: involved, reason, remedies: NESTED.into() })
}

/// An independent transaction would wait for a write lock that its own thread holds.
fn not_locked_by_this_thread(indices: &[usize], databases: &Databases) -> Result<()> {
    for index in indices {
        let database = databases.at(*index);
        let locked = database.is_sqlite()
            && transaction::any(|open| {
                open.databases().same_as(databases) && open.branch(*index).is_some_and(|branch| branch.slot.begun())
            });
        if locked {
            let reason = "this thread's open transaction holds the write lock of the SQLite file, and an independent \
                          one would wait for it for ever; drop `requires_new`, or put the model on another database";
            return Err(Error::Busy { database: database.alias().clone(), reason });
        }
    }
    Ok(())
}
