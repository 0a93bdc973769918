//! Opening a scope: from what was listed to branches of a transaction.

use std::fmt;

use super::commit_mode;
use super::open_scope::Scope;
use super::options::{Options, Propagation};
use crate::alias::Alias;
use crate::connection::characteristics::{Characteristics, Conflict};
use crate::connection::control::Start;
use crate::databases::Databases;
use crate::error::{Error, Result};
use crate::model::{Model, ModelInfo};
use crate::routing::{Access, Subject};
use crate::site::Site;
use crate::transaction::{self, Enlisting, Kind, Surroundings, Terms, Ticket, Verdict};

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

    /// The application, where that is known without asking.
    pub(super) fn app_name(&self) -> Option<&str> {
        match self {
            Self::Model(model) => Some(model.app()),
            Self::App { app, .. } => Some(app),
            Self::Alias(_) => None,
        }
    }

    /// The model, if it is one.
    pub(super) fn model_name(&self) -> Option<&str> {
        match self {
            Self::Model(model) => Some(model.name()),
            Self::App { .. } | Self::Alias(_) => None,
        }
    }

    /// The index of the database in the registry.
    #[inline]
    pub(super) fn resolve(&self, databases: &Databases, access: Access, in_scope: bool, site: Site) -> Result<usize> {
        match self {
            Self::Model(model) => databases.route(Subject::Model(model), access, in_scope),
            Self::App { app, module } => databases.route(Subject::App { app, module: *module }, access, in_scope),
            Self::Alias(alias) => {
                let unknown = || databases.unknown(alias.clone(), format!("named by {site}"));
                databases.find(alias.as_str()).ok_or_else(unknown)
            }
        }
    }

    /// What the routers are asked for; `None` for a database by its name.
    #[inline]
    fn subject(&self) -> Option<Subject> {
        match self {
            Self::Model(model) => Some(Subject::Model(model)),
            Self::App { app, module } => Some(Subject::App { app, module: *module }),
            Self::Alias(_) => None,
        }
    }

    /// Within the open transaction the route stays what it was, or is noted if it is the first.
    #[inline]
    pub(super) fn pin(&self, index: usize) -> Result<()> {
        match self.subject() {
            Some(subject) => transaction::pin(subject, index),
            None => Ok(()),
        }
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

/// An open scope: what it may end, and the database of each target.
pub(super) struct Opened {
    /// `None` in autocommit outside of any transaction, where there is nothing to end.
    pub(super) ticket: Option<Ticket>,
    pub(super) in_transaction: bool,
    /// Whether the scope has opened its transaction.
    pub(super) begun: bool,
    pub(super) databases: Databases,
    pub(super) indices: Indices,
}

/// The most models of one scope.
pub(super) const TARGETS_LIMIT: usize = 12;

/// The databases of a scope's targets, as indices into the registry.
#[derive(Debug, Clone, Copy)]
pub(super) struct Indices {
    indices: [u16; TARGETS_LIMIT],
    length: usize,
}

impl Indices {
    #[inline]
    fn of(targets: &[Target], databases: &Databases, access: Access, in_scope: bool, site: Site) -> Result<Self> {
        if targets.len() > TARGETS_LIMIT {
            let limit = u32::try_from(TARGETS_LIMIT).expect("a small number");
            return Err(Error::LimitExceeded { what: "models listed by one scope", limit });
        }
        let mut indices = [0; TARGETS_LIMIT];
        for (at, target) in targets.iter().enumerate() {
            let index = target.resolve(databases, access, in_scope, site)?;
            indices[at] = u16::try_from(index).expect("a registry is smaller than that");
        }
        Ok(Self { indices, length: targets.len() })
    }

    #[inline]
    pub(super) fn get(&self, at: usize) -> usize {
        self.indices[..self.length][at].into()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = usize> {
        self.indices[..self.length].iter().map(|index| usize::from(*index))
    }
}

/// What a scope does, given its propagation and whether a transaction is open: the table of `Propagation`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Entering {
    Begin,
    Level,
    Join,
    Autocommit,
    Suspend,
}

fn entering(propagation: Propagation, open: bool, site: Site) -> Result<Entering> {
    let function = site.function();
    Ok(match (propagation, open) {
        (Propagation::RequiresNew, _) | (Propagation::Nested | Propagation::Join | Propagation::Durable, false) => {
            Entering::Begin
        }
        (Propagation::Nested, true) => Entering::Level,
        (Propagation::Join | Propagation::Mandatory | Propagation::Supports, true) => Entering::Join,
        (Propagation::Supports | Propagation::Never | Propagation::NotSupported, false) => Entering::Autocommit,
        (Propagation::NotSupported, true) => Entering::Suspend,
        (Propagation::Durable, true) => return Err(Error::Durable { function, outer: outermost() }),
        (Propagation::Never, true) => return Err(Error::Never { function, outer: outermost() }),
        (Propagation::Mandatory, false) => return Err(Error::Mandatory { function }),
    })
}

/// The scope that opened the transaction, as errors write it.
pub(super) fn outermost() -> String {
    transaction::top(|open| open.outermost().to_string()).unwrap_or_default()
}

/// Opens a scope. Sends nothing.
pub(super) fn open<'a>(site: Site, targets: &'a [Target], options: &Options) -> Result<Scope<'a>> {
    let Surroundings { open, alone } = transaction::surroundings();
    let nested = open.is_some();
    let entering = entering(options.propagation, nested, site)?;
    let inside = matches!(entering, Entering::Level | Entering::Join);
    let asked = &options.terms.characteristics;
    if entering != Entering::Begin {
        if options.terms.manual {
            return Err(manual_inside(site, entering));
        }
        if inside || !asked.is_plain() || options.commit.is_some() {
            fits(targets, options, entering, site)?;
        }
    } else if options.commit.is_some() {
        commit_mode::promises(site, options)?;
    }
    // What joins a transaction is on its connections.
    let own = if asked.limits.read_only { Access::Read } else { Access::Write };
    let access = open.as_ref().filter(|_| inside).map_or(own, |(_, access)| *access);
    let databases = match (open, &options.databases) {
        (Some((open, _)), Some(named)) if inside && !open.same_as(named) => return Err(other_registry(site)),
        (Some((open, _)), None) => open,
        (_, Some(named)) => named.clone(),
        (None, None) => Databases::current()?,
    };
    let in_scope = nested && entering != Entering::Suspend;
    let indices = Indices::of(targets, &databases, access, in_scope, site)?;
    if inside {
        pin(targets, &indices)?;
        if entering == Entering::Join {
            enlist(site, targets, &indices, &databases, asked)?;
        }
    }
    let ticket = match entering {
        Entering::Begin => Some(begin(site, targets, &indices, &databases, alone, &options.terms)?),
        Entering::Level => Some(nest(site, targets, &indices, &databases, asked)?),
        Entering::Join => Some(transaction::join(site, asked.limits)?),
        Entering::Suspend => Some(transaction::hide()?),
        Entering::Autocommit => None,
    };
    let begun = entering == Entering::Begin;
    let opened = Opened { ticket, in_transaction: inside || begun, begun, databases, indices };
    Ok(Scope { site, targets, opened })
}

/// Opens a transaction of the scope's own.
#[inline]
fn begin(
    site: Site,
    targets: &[Target],
    indices: &Indices,
    databases: &Databases,
    alone: bool,
    terms: &Terms,
) -> Result<Ticket> {
    if !alone {
        not_locked_by_this_thread(indices, databases)?;
    }
    let asked = terms.characteristics;
    if !asked.is_plain() {
        can_be_enforced(&asked, site, indices, databases)?;
    }
    // Another one of the thread, also a hidden one, may hold the lock that this one waits for.
    let start = Start { tripwire: true, lock_limit: !alone, characteristics: asked, across: None };
    if let [only] = targets {
        return transaction::begin(
            databases,
            std::iter::once((only.subject(), indices.get(0))),
            site,
            Kind::Scope,
            &start,
            terms,
        );
    }
    let on = targets.iter().zip(indices.iter()).map(|(target, index)| (target.subject(), index));
    if indices.iter().all(|index| databases.are_same(index, indices.get(0))) {
        return transaction::begin(databases, on, site, Kind::Scope, &start, terms);
    }
    transaction::begin_across(databases, &on.collect::<Vec<_>>(), site, &start, terms)
}

#[inline]
fn pin(targets: &[Target], indices: &Indices) -> Result<()> {
    targets.iter().zip(indices.iter()).try_for_each(|(target, index)| target.pin(index))
}

/// Refuses what the open transaction can't give, and in autocommit what only a transaction can have.
fn fits(targets: &[Target], options: &Options, entering: Entering, site: Site) -> Result<()> {
    let asked = &options.terms.characteristics;
    let (outer, inner, remedy) = match entering {
        Entering::Begin => return Ok(()),
        Entering::Autocommit | Entering::Suspend => {
            let outer = "which is none: the scope runs in autocommit".to_owned();
            (
                outer,
                format!("what {site} asks of its transaction"),
                "use `nested` or `mandatory`, or drop these options",
            )
        }
        Entering::Level | Entering::Join => {
            let found = transaction::top(|open| (open.conflict(asked), open.is_best_effort()));
            let (conflict, best_effort) = found.unwrap_or_default();
            let Some((conflict, by)) = conflict else {
                return commit_mode::agrees(site, targets, options, best_effort);
            };
            let Conflict { outer, inner } = &conflict;
            (format!("{outer} of {by}"), format!("{inner} of {site}"), conflict.remedy())
        }
    };
    Err(Error::OptionConflict { outer, inner, remedy })
}

fn can_be_enforced(asked: &Characteristics, site: Site, indices: &Indices, databases: &Databases) -> Result<()> {
    for index in indices.iter() {
        let database = databases.at(index);
        if let Some(option) = database.driver().lacks(asked) {
            return Err(database.unsupported(option, site.to_string()));
        }
    }
    Ok(())
}

/// A level of a transaction can't be on databases of another registry.
fn other_registry(site: Site) -> Error {
    Error::OptionConflict {
        outer: format!("{}, whose databases are others", outermost()),
        inner: format!("`databases = ..` of {site}"),
        remedy: "open the inner scope with `propagation = requires_new`, or leave `databases` out",
    }
}

/// A manual scope's `commit` would be an `Ok` that lies, where it is a part of another transaction or of none.
fn manual_inside(site: Site, entering: Entering) -> Error {
    let (outer, remedy) = match entering {
        Entering::Autocommit | Entering::Suspend => (
            "which is none: the scope would run in autocommit".to_owned(),
            "let it have `propagation = requires_new`, or drop `mode = manual`",
        ),
        _ => (outermost(), "call it outside, or let it have `propagation = requires_new`"),
    };
    Error::OptionConflict { outer, inner: format!("`mode = manual` of {site}"), remedy }
}

/// Opens a level, and makes its databases parts of the transaction in it: it takes those with it that joined there.
fn nest(
    site: Site,
    targets: &[Target],
    indices: &Indices,
    databases: &Databases,
    asked: &Characteristics,
) -> Result<Ticket> {
    let ticket = transaction::nest(site, Kind::Scope, asked.limits)?;
    match enlist(site, targets, indices, databases, asked) {
        Ok(()) => Ok(ticket),
        Err(error) => {
            let _ = transaction::leave(ticket, Verdict::Undo);
            Err(error)
        }
    }
}

/// Makes the scope's databases parts of the open transaction.
fn enlist(
    site: Site,
    targets: &[Target],
    indices: &Indices,
    databases: &Databases,
    asked: &Characteristics,
) -> Result<()> {
    let reads = asked.limits.read_only;
    targets.iter().zip(indices.iter()).try_for_each(|(target, database)| {
        transaction::branch_of(databases, &Enlisting { site, target, database, reads }).map(drop)
    })
}

/// An independent transaction would wait for a write lock that its own thread holds.
fn not_locked_by_this_thread(indices: &Indices, databases: &Databases) -> Result<()> {
    for index in indices.iter() {
        let database = databases.at(index);
        let locked = database.is_sqlite()
            && transaction::any(|open| {
                open.databases().same_as(databases) && open.branch(index).is_some_and(|branch| branch.slot.begun())
            });
        if locked {
            let reason = "this thread's open transaction uses the SQLite file, and an independent one would wait for its \
                          locks forever; drop `requires_new`, call it outside, or put the model on another database";
            return Err(Error::Busy { database: database.alias().clone(), reason });
        }
    }
    Ok(())
}
