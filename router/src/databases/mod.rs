//! The databases of an application: the registry, its builder and its configuration.

mod across;
mod attached;
mod builder;
mod check;
mod complete;
mod config;
pub(crate) mod conninfo;
mod current;
mod database;
mod handed_over;
mod identity;
mod keys;
mod migrate;
mod named;
mod registry;
#[cfg(feature = "testing")]
mod rehearsed;
mod url;

pub use across::{CrossDatabase, OnLostHome};
#[cfg(all(test, feature = "sqlite"))]
pub(crate) use attached::{ATTACHED_POOL_SIZE, ATTACHED_SETS_LIMIT};
pub use builder::DatabasesBuilder;
pub use check::CheckReport;
pub(crate) use complete::Batch;
pub use config::{DatabaseConfig, PoolConfig, SqliteConfig};
pub use current::Entered;
pub(crate) use database::Driver;
pub(crate) use database::Kind;
pub use database::{Database, PoolState};
pub(crate) use handed_over::Work;
pub use handed_over::{HANDED_OVER_LIMIT, Unapplied};
#[cfg(feature = "sqlite")]
pub(crate) use identity::file_of;
pub use migrate::MigrationReport;
#[cfg(feature = "sqlite")]
pub(crate) use named::missing;
pub use registry::Databases;
#[cfg(feature = "testing")]
pub(crate) use rehearsed::FaultsByAlias;
#[cfg(all(test, feature = "postgres", feature = "mysql", feature = "testing"))]
pub(crate) use url::{instead_of, kind_of};
pub(crate) use url::{mask, mask_in};
