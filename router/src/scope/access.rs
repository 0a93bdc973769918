//! Handles by model or by name, inside scopes and outside.

use std::sync::Arc;

use super::open::Target;
use crate::alias::Alias;
use crate::databases::Databases;
use crate::error::{Error, Result};
use crate::handle::{Handle, Origin};
use crate::model::Model;
use crate::routing::Access;
use crate::site::{Call, Site};
use crate::transaction;

/// A handle on the database that `M` is routed to: inside a scope that of its transaction, outside of any scope one
/// whose statements each run in autocommit.
///
/// # Errors
/// Those of routing, [`Error::WrongBackend`], and inside a scope [`Error::NotAtomic`] where the model lives on a
/// database that is no part of the transaction.
#[track_caller]
pub fn connection<M: Model, H: Handle>() -> Result<H> {
    open(&Target::model::<M>(), Site::call(Call::Connection))
}

/// A handle on a database by its name; see [`connection`].
///
/// # Errors
/// As [`connection`].
#[track_caller]
pub fn connection_on<H: Handle>(alias: impl Into<Alias>) -> Result<H> {
    open(&Target::alias(alias), Site::call(Call::ConnectionOn))
}

fn open<H: Handle>(target: &Target, site: Site) -> Result<H> {
    let asked = || format!("{site} for {target}");
    match transaction::top(|open| (open.databases().clone(), open.access())) {
        None => {
            let databases = Databases::current()?;
            let index = target.resolve(&databases, Access::Write, false, site)?;
            H::open(Origin::Pool(&databases, index, site), &asked)
        }
        Some((databases, access)) => {
            let index = target.resolve(&databases, access, true, site)?;
            target.pin(index)?;
            let slot = transaction::top(|open| open.branch(index).map(|branch| Arc::clone(&branch.slot)));
            let slot = slot.flatten().ok_or_else(|| not_a_branch(target, &databases, index))?;
            H::open(Origin::Scope(slot, databases.at(index)), &asked)
        }
    }
}

fn not_a_branch(target: &Target, databases: &Databases, index: usize) -> Error {
    let involved = transaction::top(|open| {
        open.branches().iter().map(|branch| databases.at(branch.database).alias().clone()).collect::<Vec<_>>()
    });
    let alias = databases.at(index).alias().clone();
    let reason = format!(
        "{target} lives on `{alias}`, which is no part of the open transaction, and an atomic commit over several \
         databases is not supported yet"
    );
    let mut databases = involved.unwrap_or_default();
    databases.push(alias);
    let remedies =
        "do this work in a function of its own with `propagation = requires_new`, or before or after the scope";
    Error::NotAtomic { databases, reason, remedies: remedies.into() }
}
