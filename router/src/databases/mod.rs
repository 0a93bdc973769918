//! The databases of an application: the registry, its builder and its configuration.

mod across;
mod builder;
mod complete;
mod config;
mod current;
mod database;
mod identity;
mod keys;
mod migrate;
mod registry;
#[cfg(feature = "testing")]
mod rehearsed;
mod url;

pub use across::{CrossDatabase, OnLostHome};
pub use builder::DatabasesBuilder;
pub use config::{DatabaseConfig, PoolConfig, SqliteConfig};
pub use current::Entered;
pub(crate) use database::Kind;
pub use database::{Database, PoolState};
pub(crate) use identity::file_of;
pub use migrate::MigrationReport;
pub use registry::Databases;
#[cfg(feature = "testing")]
pub(crate) use rehearsed::FaultsByAlias;
pub(crate) use url::{mask, mask_in};
