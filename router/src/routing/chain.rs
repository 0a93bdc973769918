//! The routers of an application, asked in order.

use std::fmt;
use std::sync::Arc;

use super::block::{Hints, overrides};
use super::route::Answer;
use super::{Access, RouteRequest, Router};
use crate::alias::Alias;
use crate::error::{Error, Result};
use crate::model::ModelInfo;

/// What a database is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Subject {
    Model(&'static ModelInfo),
    App { app: &'static str, module: Option<&'static str> },
}

impl Subject {
    /// Whether it is the same. A model's description is one for the whole program, so its address is enough almost always.
    pub(crate) fn is(self, other: Self) -> bool {
        match (self, other) {
            (Self::Model(a), Self::Model(b)) => std::ptr::eq(a, b) || a == b,
            (a, b) => a == b,
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Model(model) => model.fmt(f),
            Self::App { app, .. } => write!(f, "app `{app}`"),
        }
    }
}

/// The routers, in the order in which they are asked.
#[derive(Default, Clone)]
pub(crate) struct Chain {
    routers: Vec<(&'static str, Arc<dyn Router>)>,
}

/// The name under which errors list the routers of `with_routes`.
pub(super) const OVERRIDE: &str = "with_routes";

impl Chain {
    pub(crate) fn push<R: Router>(&mut self, router: R) {
        self.routers.push((std::any::type_name::<R>(), Arc::new(router)));
    }

    /// The configured routers with their names, in the order in which they are asked.
    pub(super) fn routers(&self) -> impl Iterator<Item = (&'static str, &dyn Router)> {
        self.routers.iter().map(|(name, router)| (*name, &**router))
    }

    /// The aliases that routers name without being asked, each with its router.
    pub(crate) fn aliases(&self) -> impl Iterator<Item = (&'static str, Alias)> {
        self.routers().flat_map(|(name, router)| router.aliases().into_iter().map(move |alias| (name, alias)))
    }

    /// The first opinion on a relation, and whose it is.
    pub(crate) fn relation(&self, a: &ModelInfo, b: &ModelInfo) -> Option<(&'static str, bool)> {
        let overrides = overrides();
        let overriding = overrides.iter().map(|router| (OVERRIDE, router));
        let mut all = overriding.chain(self.routers());
        all.find_map(|(name, router)| router.allow_relation(a, b).map(|allowed| (name, allowed)))
    }

    /// The first opinion on a migration, and whose it is.
    pub(crate) fn migration(
        &self,
        database: &Alias,
        app: &str,
        model: Option<&ModelInfo>,
    ) -> Option<(&'static str, bool)> {
        let overrides = overrides();
        let overriding = overrides.iter().map(|router| (OVERRIDE, router));
        let mut all = overriding.chain(self.routers());
        all.find_map(|(name, router)| router.allow_migrate(database, app, model).map(|allowed| (name, allowed)))
    }

    /// Finds the database among the configured ones. `find` gives a configured alias its index.
    pub(crate) fn decide(
        &self,
        subject: Subject,
        access: Access,
        in_scope: bool,
        find: impl Fn(&str) -> Option<usize>,
        unknown: impl Fn(Alias, String) -> Error,
    ) -> Result<usize> {
        let hints = Hints::current();
        let request = RouteRequest::of(subject, access, in_scope, &hints);
        // Aliases that a router would have preferred, for the error.
        let mut missed = None;
        let overrides = overrides();
        let overriding = overrides.iter().map(|router| (OVERRIDE, router));
        for (name, router) in overriding.chain(self.routers()) {
            match router.select_db(&request).0 {
                Answer::Pass => {}
                Answer::Prefer(alias) => {
                    if let Some(index) = find(alias.as_str()) {
                        return Ok(index);
                    }
                    missed.get_or_insert((name, alias));
                }
                Answer::To(alias) => {
                    let found = find(alias.as_str());
                    return found.ok_or_else(|| unknown(alias, format!("router `{name}` chose it for {subject}")));
                }
                Answer::Refuse(reason) => {
                    return Err(Error::RouteRefused {
                        router: name,
                        subject: subject.to_string(),
                        reason: reason.into_owned(),
                    });
                }
            }
        }
        find(Alias::DEFAULT.as_str()).ok_or_else(|| unknown(Alias::DEFAULT, self.nobody(subject, missed)))
    }

    /// Why it came to `default`.
    fn nobody(&self, subject: Subject, missed: Option<(&'static str, Alias)>) -> String {
        if let Some((router, alias)) = missed {
            return format!(
                "needed for {subject}, since `{alias}`, which router `{router}` prefers, is not configured either"
            );
        }
        match &self.routers[..] {
            [] => format!("needed for {subject}, since there is no router"),
            routers => {
                let names: Vec<String> = routers.iter().map(|(name, _)| format!("`{name}`")).collect();
                format!("needed for {subject}, since no router had an opinion: {} passed", names.join(", "))
            }
        }
    }
}
