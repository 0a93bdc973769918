//! Work of both applications: quota is reserved in one and a server started in the other.

use multidb::prelude::*;

use crate::astakos::{Quota, release, reserve};
use crate::cyclades::{Server, start};
use crate::error::AppError;

/// Both or neither, wherever the two models live.
#[transactional(Quota, Server)]
pub fn launch(user: &str, image: &str) -> Result<i64, AppError> {
    reserve(user)?;
    start(user, image)
}

/// The same without a word of servers in the attribute. On servers that is enough. A second SQLite file can't join a
/// transaction that has begun on another one, so there the call of `start` is refused, and the reservation is rolled back with
/// the function.
#[transactional(Quota)]
pub fn launch_nested(user: &str, image: &str) -> Result<i64, AppError> {
    reserve(user)?;
    start(user, image)
}

/// Two transactions, so it works wherever the models live. A start that fails gives the reservation back. **A kill
/// between the two leaves a reservation without its server**, for somebody to find.
pub fn launch_apart(user: &str, image: &str) -> Result<i64, AppError> {
    reserve(user)?;
    start(user, image).or_else(|error| {
        release(user)?;
        Err(error)
    })
}
