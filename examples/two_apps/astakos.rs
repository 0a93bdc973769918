//! The application `astakos`: users, and how many servers each may have.

use diesel::prelude::*;
use multidb::prelude::*;
use multidb::scope;

use crate::error::AppError;

diesel::table! { astakos_users (id) { id -> BigInt, name -> Text, } }
diesel::table! { astakos_quotas (user) { user -> Text, servers -> BigInt, used -> BigInt, } }

// Neither model names its application: it is that of the module.

#[derive(Insertable, Model)]
#[diesel(table_name = astakos_users)]
pub struct User {
    pub name: String,
}

#[derive(Insertable, Queryable, Selectable, Model)]
#[diesel(table_name = astakos_quotas)]
pub struct Quota {
    pub user: String,
    /// How many servers the user may have.
    pub servers: i64,
    pub used: i64,
}

/// Where all of `astakos` lives. Nothing else in this file says it.
pub struct AstakosRouter;

impl Router for AstakosRouter {
    fn select_db(&self, request: &RouteRequest<'_>) -> Route {
        match request.app() {
            "astakos" => Route::prefer("astakos"),
            _ => Route::pass(),
        }
    }
}

/// Returns the name of the database that the tables are on.
#[transactional]
pub fn create_tables(#[conn] conn: &mut SqliteConn) -> Result<String, AppError> {
    conn.batch_execute(
        "CREATE TABLE astakos_users (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;
         CREATE TABLE astakos_quotas (
             user TEXT PRIMARY KEY, servers INTEGER NOT NULL, used INTEGER NOT NULL CHECK (used >= 0)
         ) STRICT;",
    )?;
    Ok(conn.alias().to_string())
}

/// Adds users from lines of `name,servers`, and commits every `every` lines: a long import holds no lock for long, and
/// what is done stays done. A bad line stops it; what was not committed by then is rolled back with it.
///
/// Returns how many users were added.
#[commit_manually]
pub fn import_users(lines: &[&str], every: usize) -> Result<usize, AppError> {
    let mut committed = 0;
    for (at, line) in lines.iter().enumerate() {
        let stopped = |source| AppError::Import { line: at + 1, committed, source: Box::new(source) };
        add_user(line).map_err(stopped)?;
        if (at + 1).is_multiple_of(every) {
            scope::commit()?;
            committed = at + 1;
        }
    }
    scope::commit()?;
    Ok(lines.len())
}

/// Called by itself it commits. In the import it is a level of the import's transaction.
#[transactional(User, Quota)]
fn add_user(#[conn(User)] conn: &mut SqliteConn, line: &str) -> Result<(), AppError> {
    let bad = || AppError::BadLine(line.to_owned());
    let (name, servers) = line.split_once(',').ok_or_else(bad)?;
    let servers = servers.parse().map_err(|_| bad())?;
    let (user, quota) = (User { name: name.to_owned() }, Quota { user: name.to_owned(), servers, used: 0 });
    diesel::insert_into(astakos_users::table).values(user).execute(conn)?;
    diesel::insert_into(astakos_quotas::table).values(quota).execute(conn)?;
    Ok(())
}

/// Takes one server from the user's quota.
#[transactional(Quota)]
pub fn reserve(#[conn] conn: &mut SqliteConn, user: &str) -> Result<(), AppError> {
    let has_room = astakos_quotas::used.lt(astakos_quotas::servers);
    let reserved = diesel::update(astakos_quotas::table.find(user).filter(has_room))
        .set(astakos_quotas::used.eq(astakos_quotas::used + 1))
        .execute(conn)?;
    if reserved == 1 { Ok(()) } else { Err(AppError::NoQuota(user.to_owned())) }
}

/// Gives one server back to the user's quota.
#[transactional(Quota)]
pub fn release(#[conn] conn: &mut SqliteConn, user: &str) -> Result<(), AppError> {
    diesel::update(astakos_quotas::table.find(user))
        .set(astakos_quotas::used.eq(astakos_quotas::used - 1))
        .execute(conn)?;
    Ok(())
}

#[commit_on_success]
pub fn quotas(#[conn] conn: &mut SqliteConn) -> Result<Vec<Quota>, AppError> {
    Ok(astakos_quotas::table.order(astakos_quotas::user).select(Quota::as_select()).load(conn)?)
}
