//! The application `cyclades`: servers.

use diesel::prelude::*;
use multidb::prelude::*;
use multidb::scope;

use crate::error::AppError;

diesel::table! { cyclades_servers (id) { id -> BigInt, owner -> Text, image -> Text, state -> Text, } }

#[derive(Queryable, Selectable, Model)]
#[diesel(table_name = cyclades_servers)]
pub struct Server {
    pub id: i64,
    pub owner: String,
    pub image: String,
    pub state: String,
}

/// Where all of `cyclades` lives. Nothing else in this file says it.
pub struct CycladesRouter;

impl Router for CycladesRouter {
    fn select_db(&self, request: &RouteRequest<'_>) -> Route {
        match request.app() {
            "cyclades" => Route::prefer("cyclades"),
            _ => Route::pass(),
        }
    }
}

const IMAGES: [&str; 2] = ["debian", "plan9"];
/// The image that the hypervisor of this example can't boot.
const BROKEN: &str = "plan9";

/// Returns the name of the database that the table is on.
#[transactional]
pub fn create_tables(#[conn] conn: &mut SqliteConn) -> Result<String, AppError> {
    conn.batch_execute(
        "CREATE TABLE cyclades_servers (
             id INTEGER PRIMARY KEY, owner TEXT NOT NULL, image TEXT NOT NULL, state TEXT NOT NULL
         ) STRICT;",
    )?;
    Ok(conn.alias().to_string())
}

/// Enters a server that is to be built, and returns its number.
#[transactional(Server)]
pub fn start(#[conn] conn: &mut SqliteConn, owner: &str, image: &str) -> Result<i64, AppError> {
    if !IMAGES.contains(&image) {
        return Err(AppError::UnknownImage(image.to_owned()));
    }
    let server =
        (cyclades_servers::owner.eq(owner), cyclades_servers::image.eq(image), cyclades_servers::state.eq("building"));
    let id = cyclades_servers::id;
    Ok(diesel::insert_into(cyclades_servers::table).values(server).returning(id).get_result(conn)?)
}

/// Boots what is to be built, one server a transaction: one that does not boot is rolled back, and takes no other with
/// it. Returns how many have booted.
#[commit_manually]
pub fn boot_all(#[conn] conn: &mut SqliteConn) -> Result<usize, AppError> {
    let building = cyclades_servers::table.filter(cyclades_servers::state.eq("building"));
    let servers: Vec<Server> = building.select(Server::as_select()).load(conn)?;
    let mut booted = 0;
    for Server { id, image, .. } in servers {
        diesel::update(cyclades_servers::table.find(id)).set(cyclades_servers::state.eq("active")).execute(conn)?;
        if hypervisor_boots(&image) {
            scope::commit()?;
            booted += 1;
        } else {
            scope::rollback()?;
        }
    }
    Ok(booted)
}

fn hypervisor_boots(image: &str) -> bool {
    image != BROKEN
}

#[commit_on_success]
pub fn servers(#[conn] conn: &mut SqliteConn) -> Result<Vec<Server>, AppError> {
    Ok(cyclades_servers::table.order(cyclades_servers::id).select(Server::as_select()).load(conn)?)
}
