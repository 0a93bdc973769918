//! Real connections: pools, the slot through which everything reaches one, and what differs between the databases.
//!
//! Only [`slot::Slot`] and [`pool::Pool`] touch a real connection. Nothing here knows of scopes or of routes.

pub mod attached;
pub mod backend;
pub mod beside;
pub mod born;
pub mod characteristics;
pub mod check;
pub mod control;
pub mod decision;
#[cfg(feature = "testing")]
pub mod fault;
#[cfg(feature = "sqlite")]
pub mod foreign_keys;
pub mod gate;
pub mod holders;
pub mod identity;
pub mod instrument;
pub mod levels;
pub mod link;
pub mod migrations;
#[cfg(feature = "mysql")]
pub mod mysql;
pub mod own;
pub mod pieces;
pub mod pool;
#[cfg(feature = "postgres")]
pub mod postgres;
pub mod pragma;
pub mod question;
pub mod queue;
pub mod reach;
pub mod receipt;
#[cfg(feature = "testing")]
pub mod rehearsal;
pub mod repeated;
pub mod right_of_way;
pub mod settings;
pub mod slot;
pub mod spoilt;
#[cfg(feature = "sqlite")]
pub mod sqlite;
pub mod stale;
pub mod survey;
pub mod text;
