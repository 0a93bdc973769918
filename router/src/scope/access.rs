//! Handles by model or by name, inside scopes and outside.

use super::open::Target;
use crate::alias::Alias;
use crate::databases::Databases;
use crate::error::Result;
use crate::handle::{Handle, Origin};
use crate::model::Model;
use crate::routing::Access;
use crate::site::{Call, Site};
use crate::transaction::{self, Enlisting};

/// A handle on the database that `M` is routed to: inside a scope that of its transaction, outside of any scope one
/// whose statements each run in autocommit.
///
/// # Errors
/// Those of routing, [`Error::WrongBackend`], and inside a scope [`Error::NotAtomic`] where the model lives on a
/// database that is no part of the transaction and can't become one.
///
/// [`Error::WrongBackend`]: crate::Error::WrongBackend
/// [`Error::NotAtomic`]: crate::Error::NotAtomic
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
            let reads = access == Access::Read;
            let slot = transaction::branch_of(&databases, &Enlisting { site, target, database: index, reads })?;
            let file = transaction::top(|open| open.own_file(index)).flatten();
            H::open(Origin::Scope(slot, file, databases.at(index)), &asked)
        }
    }
}
