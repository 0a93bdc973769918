//! The routing decision alone.

use crate::databases::Databases;
use crate::error::Result;
use crate::model::Model;
use crate::routing::{Access, Subject};

/// Asks the routers as a call for the model would, and does nothing with the answer: what a benchmark measures.
///
/// # Errors
/// Those of routing.
pub fn route<M: Model>(databases: &Databases, access: Access) -> Result<usize> {
    databases.route(Subject::Model(M::info()), access, false)
}
