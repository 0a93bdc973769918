//! A router that is a table.

use std::borrow::Cow;

use super::Router;
use super::request::RouteRequest;
use super::route::Route;
use crate::alias::Alias;
use crate::model::{Model, ModelInfo};

/// A router that needs no code: a table of applications and models.
///
/// A model's own line counts before its application's. What is in no line is left to the next router. Every alias that a
/// line without `prefer` names is checked when the registry is built, so that a misspelt one is found at the start.
///
/// ```
/// use multidb::StaticRouter;
/// # #[derive(multidb::Model)] #[model(app = "ledger")] struct Archive;
///
/// let router = StaticRouter::new()
///     .app("orders", "orders")           // an error at the start where `orders` is not configured
///     .prefer_app("ledger", "ledger")    // only where `ledger` is configured
///     .model::<Archive>("cold");
/// # let _ = router;
/// ```
#[derive(Debug, Clone, Default)]
#[must_use = "a router does nothing until a builder has it"]
pub struct StaticRouter {
    apps: Vec<(Cow<'static, str>, Route)>,
    models: Vec<(&'static ModelInfo, Route)>,
}

impl StaticRouter {
    /// A table without lines.
    pub fn new() -> Self {
        Self::default()
    }

    /// All of an application's models live on this database. A second line for the application replaces the first.
    pub fn app(self, app: impl Into<Cow<'static, str>>, alias: impl Into<Alias>) -> Self {
        self.with_app(app.into(), Route::to(alias))
    }

    /// All of an application's models live on this database where it is configured.
    pub fn prefer_app(self, app: impl Into<Cow<'static, str>>, alias: impl Into<Alias>) -> Self {
        self.with_app(app.into(), Route::prefer(alias))
    }

    /// The model lives on this database, whatever its application says.
    pub fn model<M: Model>(self, alias: impl Into<Alias>) -> Self {
        self.with_model(M::info(), Route::to(alias))
    }

    /// The model lives on this database where it is configured, whatever its application says.
    pub fn prefer_model<M: Model>(self, alias: impl Into<Alias>) -> Self {
        self.with_model(M::info(), Route::prefer(alias))
    }

    /// As [`model`](Self::model), for a model that is known at run time only.
    #[cfg(feature = "testing")]
    pub(crate) fn route(self, model: &'static ModelInfo, alias: impl Into<Alias>) -> Self {
        self.with_model(model, Route::to(alias))
    }

    fn with_app(mut self, app: Cow<'static, str>, route: Route) -> Self {
        self.apps.retain(|(known, _)| *known != app);
        self.apps.push((app, route));
        self
    }

    fn with_model(mut self, model: &'static ModelInfo, route: Route) -> Self {
        self.models.retain(|(known, _)| *known != model);
        self.models.push((model, route));
        self
    }
}

impl Router for StaticRouter {
    fn select_db(&self, request: &RouteRequest<'_>) -> Route {
        let own = |model: &ModelInfo| {
            // A model's description is one for the whole program, so its address is enough almost always.
            let same = |known: &ModelInfo| std::ptr::eq(known, model) || known == model;
            self.models.iter().find(|(known, _)| same(known))
        };
        let route = match request.model().and_then(own) {
            Some((_, route)) => Some(route),
            None => self.apps.iter().find(|(app, _)| app == request.app()).map(|(_, route)| route),
        };
        route.cloned().unwrap_or_else(Route::pass)
    }

    /// An application with a line runs its migrations where its lines send it or one of its models, and nowhere else. With
    /// `prefer` alone there is no opinion on the other databases, since one of them may stand in.
    fn allow_migrate(&self, database: &Alias, app: &str, model: Option<&ModelInfo>) -> Option<bool> {
        let of_app = self.apps.iter().filter(|(known, _)| known == app).map(|(_, route)| route);
        let of_models =
            self.models.iter().filter(|(known, _)| model.map_or(known.app() == app, |model| *known == model));
        let of_models: Vec<&Route> = of_models.map(|(_, route)| route).collect();
        // A model's own line counts alone.
        let of_app = of_app.filter(|_| model.is_none() || of_models.is_empty());
        let routes: Vec<&Route> = of_models.iter().copied().chain(of_app).collect();
        if routes.iter().any(|route| route.names(database)) {
            return Some(true);
        }
        let is_sent = |route: &&Route| route.target().is_some();
        let sent_elsewhere = if model.is_some() {
            routes.iter().any(is_sent)
        } else {
            self.apps.iter().any(|(known, route)| known == app && route.target().is_some())
        };
        sent_elsewhere.then_some(false)
    }

    fn aliases(&self) -> Vec<Alias> {
        let routes = self.models.iter().map(|(_, route)| route).chain(self.apps.iter().map(|(_, route)| route));
        routes.filter_map(Route::target).cloned().collect()
    }
}
