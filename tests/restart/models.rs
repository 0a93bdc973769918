//! Two models, each on a database of its own.

use multidb::{Model, Route, RouteRequest, Router};

diesel::table! { accounts (id) { id -> BigInt, } }
diesel::table! { entries (id) { id -> BigInt, } }

#[derive(Model)]
#[model(app = "accounts")]
pub(crate) struct Account;

#[derive(Model)]
#[model(app = "entries")]
pub(crate) struct Entry;

pub(crate) struct ByApp;

impl Router for ByApp {
    fn select_db(&self, request: &RouteRequest<'_>) -> Route {
        Route::to(request.app().to_owned())
    }
}
