//! Database routers and transaction decorators for Diesel and r2d2.
//!
//! An application with several databases says once, in a [`Router`], which model lives on which database.
//! `#[transactional(Account)]` wraps a function in a transaction on the database that `Account` is routed to: no
//! connection is passed around, nested calls join through savepoints, and the route decides where the work is done. Models
//! of several databases commit on all of them or on none.

#![warn(missing_docs)]

#[cfg(not(any(feature = "sqlite", feature = "postgres", feature = "mysql")))]
compile_error!("multidb needs a backend: turn on the feature `sqlite`, `postgres` or `mysql`");

mod alias;
mod connection;
mod databases;
mod error;
mod failure;
#[cfg(feature = "failpoints")]
#[doc(hidden)]
pub mod fault;
#[cfg(not(feature = "failpoints"))]
mod fault;
mod handle;
mod model;
mod reported;
mod routing;
pub mod schema;
pub mod scope;
mod site;
mod telemetry;
#[cfg(feature = "testing")]
pub mod testing;
#[cfg(test)]
mod texts;
mod transaction;
mod transaction_id;
mod two_phase;

pub use alias::Alias;
pub use connection::backend::Backend;
pub use connection::characteristics::Isolation;
pub use connection::check::Shortcoming;
pub use connection::control::{BRANCH_IDLE_LIMIT, CROSS_LOCK_WAIT};
pub use connection::migrations::{Migrations, Ran};
#[cfg(feature = "mysql")]
pub use connection::mysql::Mysql;
#[cfg(feature = "postgres")]
pub use connection::postgres::Postgres;
#[cfg(feature = "sqlite")]
pub use connection::sqlite::Sqlite;
pub use databases::{
    CheckReport, CrossDatabase, Database, DatabaseConfig, Databases, DatabasesBuilder, Entered, HANDED_OVER_LIMIT,
    MigrationReport, OnLostHome, PoolConfig, PoolState, SqliteConfig, Unapplied,
};
pub use error::{Error, Result};
pub use failure::{Failure, FailureClass};
#[cfg(feature = "mysql")]
pub use handle::MysqlConn;
#[cfg(feature = "postgres")]
pub use handle::PgConn;
#[cfg(feature = "sqlite")]
pub use handle::SqliteConn;
pub use handle::{AnyConn, Conn, Handle, MultiBackend};
pub use model::{Model, ModelInfo, Models};
pub use multidb_macros::{Model, commit_manually, commit_on_success, transactional};
pub use routing::{
    Access, Route, RouteExplanation, RouteRequest, RouteStep, Router, StaticRouter, with_hint, with_routes,
};
pub use scope::{
    Acknowledge, Atomic, AtomicMany, CommitMode, HookErrors, Propagation, Scope, atomic, atomic_app, atomic_many,
    atomic_on, check_relation, connection, connection_on, detached,
};
pub use transaction_id::TransactionId;
pub use two_phase::{
    DECISION_RETENTION, DRAIN_LIMIT, InDoubt, OPEN_LIMIT, OpenDecision, RECOVERY_INTERVAL, Reason, RecoveryHandle,
    RecoveryReport, TransactionStatus, status,
};

/// Diesel, in the version that this library is built on.
pub use diesel;
/// r2d2, in the version that Diesel is built on.
pub use diesel::r2d2;

/// What most files of an application need.
pub mod prelude {
    #[cfg(feature = "mysql")]
    pub use crate::MysqlConn;
    #[cfg(feature = "postgres")]
    pub use crate::PgConn;
    #[cfg(feature = "sqlite")]
    pub use crate::SqliteConn;
    /// `batch_execute`, which Diesel's own prelude leaves out.
    pub use diesel::connection::SimpleConnection as _;

    pub use crate::{
        AnyConn, Databases, Model, Route, RouteRequest, Router, atomic, commit_manually, commit_on_success, connection,
        transactional,
    };
}

/// What the macros expand to. No part of the public surface: it may change in any version.
#[doc(hidden)]
pub mod __private {
    pub use crate::model::app_of;
    pub use crate::scope::{
        Again, Handles, Once, Options, Returned, Stored, Target, once, route, run, run_again, run_once, run_once_again,
    };
    pub use crate::site::Function;
}
