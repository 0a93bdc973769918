//! Which model lives on which database. Nothing here opens a connection.

mod block;
mod by_table;
mod chain;
mod explain;
mod request;
mod route;

pub(crate) use block::{HeldHint, hints_number, hold_hint};
pub use block::{with_hint, with_routes};
pub use by_table::StaticRouter;
pub(crate) use chain::{Chain, Subject};
pub use explain::{RouteExplanation, RouteStep};
pub use request::{Access, RouteRequest};
pub use route::Route;

use std::sync::Arc;

use crate::alias::Alias;
use crate::model::ModelInfo;

/// Decides which database a model, or an application, lives on.
///
/// Routers are asked in the order in which they were given to the builder, at each call; the first that doesn't
/// [pass](Route::pass) decides. Where all pass it is the database `default`. The methods have Django's names and
/// meanings, with `select_db` in place of `db_for_read` and `db_for_write`: one answer for queries and transactions.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a router",
    note = "write `impl Router for {Self} {{ fn select_db(&self, request: &RouteRequest<'_>) -> Route {{ .. }} }}`"
)]
pub trait Router: Send + Sync + 'static {
    /// The database for this request. Must be quick: it is asked at each call. A panic is not caught.
    fn select_db(&self, request: &RouteRequest<'_>) -> Route {
        let _ = request;
        Route::pass()
    }

    /// The databases that this router names by [`Route::to`], as far as it can tell without being asked: they are checked
    /// when the registry is built.
    fn aliases(&self) -> Vec<Alias> {
        Vec::new()
    }

    /// Whether rows of the two models may refer to each other. `None` is no opinion.
    fn allow_relation(&self, a: &ModelInfo, b: &ModelInfo) -> Option<bool> {
        let _ = (a, b);
        None
    }

    /// Whether migrations of the application, or of one model, may run on the database. `None` is no opinion.
    fn allow_migrate(&self, database: &Alias, app: &str, model: Option<&ModelInfo>) -> Option<bool> {
        let _ = (database, app, model);
        None
    }
}

impl<R: Router + ?Sized> Router for Arc<R> {
    fn select_db(&self, request: &RouteRequest<'_>) -> Route {
        (**self).select_db(request)
    }

    fn aliases(&self) -> Vec<Alias> {
        (**self).aliases()
    }

    fn allow_relation(&self, a: &ModelInfo, b: &ModelInfo) -> Option<bool> {
        (**self).allow_relation(a, b)
    }

    fn allow_migrate(&self, database: &Alias, app: &str, model: Option<&ModelInfo>) -> Option<bool> {
        (**self).allow_migrate(database, app, model)
    }
}
