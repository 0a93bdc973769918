//! Transactions with several branches, and the two phases of their commit, at the slots and on real databases.

use std::sync::Arc;

use diesel::connection::{Connection, SimpleConnection};
use diesel::prelude::*;

use super::{Kind, Terms, Ticket, Verdict, begin, leave, nest, top};
use crate::connection::characteristics::Limits;
#[cfg(any(feature = "postgres", feature = "mysql"))]
use crate::connection::control::Gid;
use crate::connection::control::Start;
use crate::connection::slot::AnySlot;
use crate::databases::{DatabaseConfig, Databases};
use crate::error::Error;
use crate::handle::{Handle, Origin};
use crate::site::{Function, Site};

#[cfg(feature = "sqlite")]
mod attached;
mod branches;
#[cfg(feature = "mysql")]
mod prepared_on_mysql;
#[cfg(feature = "postgres")]
mod prepared_on_postgres;
#[cfg(any(feature = "postgres", feature = "mysql"))]
#[path = "../../../../tests/support/servers.rs"]
mod servers;

diesel::table! { items (id) { id -> BigInt, } }

const SITE: Site = Site::of(&Function::new("test", "transaction::tests", "tests.rs", 1));

#[cfg(any(feature = "postgres", feature = "mysql"))]
fn fresh_name() -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    format!("u_{}_{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed))
}

/// A transaction over both databases, each of which commits by itself.
fn both(databases: &Databases, start: &Start) -> Ticket {
    let terms = Terms { best_effort: true, ..Terms::default() };
    begin(databases, [(None, 0), (None, 1)], SITE, Kind::Scope, start, &terms).expect("a transaction")
}

fn slot(at: usize) -> Arc<dyn AnySlot> {
    top(|open| Arc::clone(&open.branch(at).expect("a branch").slot)).expect("a transaction")
}

fn handle<H: Handle>(at: usize) -> H {
    let databases = top(|open| open.databases().clone()).expect("a transaction");
    H::open(Origin::Scope(slot(at), None, databases.at(at)), &|| "the test".into()).expect("the right backend")
}
