//! Whether rows of two models may refer to each other.

use crate::databases::Databases;
use crate::error::Result;
use crate::model::Model;
use crate::transaction;

/// Whether rows of the two models may refer to each other, by a foreign key or a join: Django's `allow_relation`. The first
/// router with an opinion says so; where nobody has one, they may if both live on one database.
///
/// # Errors
/// [`Error::RelationRefused`](crate::Error::RelationRefused) with their databases and the router, and those of routing.
pub fn check_relation<A: Model, B: Model>() -> Result<()> {
    match transaction::top(|open| open.databases().clone()) {
        Some(databases) => databases.check_relation::<A, B>(),
        None => Databases::current()?.check_relation::<A, B>(),
    }
}
